"""What the command lines of the benchmarks have in common."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from robustscanner.program import whole_number

if TYPE_CHECKING:
    from robustscanner.session import SessionOptions

CALIB_DATA = Path(__file__).parents[1] / "calib_data"  # real text lengths, and there in every checkout


def engine_parser(what: str | None, epilog: str) -> argparse.ArgumentParser:
    """Engines, their threads, and a file for the figures; each program adds its own."""
    parser = argparse.ArgumentParser(
        description=what, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("engines", type=Path, nargs="+", metavar="ENGINE", help="NAME.engine or NAME.onnx")
    parser.add_argument(
        "--threads", type=whole_number, metavar="N", help="CPU threads of each engine (default: all cores)"
    )
    parser.add_argument(
        "--allow-host-code",
        action="store_true",
        help="run the code that version-compatible TensorRT engines carry: only if you trust it",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write the figures there")
    return parser


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Labelled words to read."""
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[CALIB_DATA], metavar="DIR", help="folders with labels.tsv"
    )
    parser.add_argument(
        "--words", type=whole_number, metavar="N", help="words of each set, spread evenly (default: all)"
    )


def counts(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [whole_number(part) for part in text.split(",")]


def session_options(arguments: argparse.Namespace, *, spinning: bool = True) -> "SessionOptions":
    """How the engines are opened."""
    from robustscanner.session import GpuOptions, SessionOptions

    threads = {} if arguments.threads is None else {"threads": arguments.threads}
    return SessionOptions(**threads, spinning=spinning, gpu=GpuOptions(host_code=arguments.allow_host_code))
