"""Exports a checkpoint as one ONNX graph: pixels in, tokens out, encoder and greedy decoder inside."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.program import exit_status

EPILOG = """examples:
  python convert/export_onnx.py runs/edge/best.safetensors -o edge.onnx
  python convert/export_onnx.py r31.safetensors -o r31.onnx --fold-values
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="NAME.safetensors of training or import")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.onnx")
    parser.add_argument(
        "--fold-values", action="store_true", help="project values once, in the encoder, not in every step"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from .graph.export import export

    output = arguments.output
    difference = export(arguments.checkpoint, output, fold_values=arguments.fold_values, force=arguments.force)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, scores within {difference:.1e} of PyTorch")


if __name__ == "__main__":
    sys.exit(main())
