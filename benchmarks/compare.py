"""Our engines and what people use today: the same crops, the same threads, the same run."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from benchmarks.arguments import add_sets, engine_parser, session_options
from robustscanner.program import exit_status, whole_number

if TYPE_CHECKING:
    from benchmarks.reader import Reader
    from robustscanner.labels import LabelledCrop

DEFAULT_PEERS = ("ppocrv6", "ppocrv4", "openvino", "eager")
_BATCH = 16  # words that are read at once when only accuracy is asked for
EPILOG = """examples:
  python benchmarks/compare.py build/edge-int8.engine build/edge-fp32.engine --data sets/ic13 sets/iiit5k
  python benchmarks/compare.py build/*.engine --peer ppocrv6 --peer eager -o compare.json

ppocrv6, ppocrv4: the recognisers of the rapidocr wheels. openvino: our FP32 graph in Intel's runtime.
eager: the shipped weights in PyTorch, decoded as PaddleOCR's Python code does, all steps, the text run again in each.
It is slow and reads only a part of each set; its row says how many words.
Peers come with pip install -e '.[bench,peers]'. One that is missing is left out and named, unless --peer asks for it.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = engine_parser(__doc__, EPILOG)
    add_sets(parser)
    parser.add_argument(
        "--peer",
        action="append",
        choices=DEFAULT_PEERS,
        help="one that must be there (default: all that are installed)",
    )
    parser.add_argument(
        "--timed-words",
        type=whole_number,
        default=32,
        metavar="N",
        help="crops of a timed round (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=whole_number, default=12, metavar="N", help="timed rounds (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="start no new round after so long")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parsed = parse_arguments(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Latency first, while nothing is warm from reading thousands of words; then accuracy."""
    from benchmarks.reader import opened
    from benchmarks.result import begin_result, report_progress, write_result
    from benchmarks.rounds import interleave, summarise
    from benchmarks.sample import load_bytes, readable_crops

    result = begin_result("compare", __doc__, arguments.output)
    sets = {folder.name: readable_crops(folder, arguments.words) for folder in arguments.data}
    everything = [crop for crops in sets.values() for crop in crops]
    timed = load_bytes(everything[:: max(1, len(everything) // arguments.timed_words)][: arguments.timed_words])
    options = session_options(arguments)
    with opened(arguments.engines, options) as ours:
        peers, missing = open_peers(arguments.peer, options.threads)
        readers = [*ours, *peers]
        report_progress(f"timing {', '.join(reader.name for reader in readers)}")
        reads = {reader.name: reader.read for reader in readers}
        times = interleave(reads, [[data] for data in timed], rounds=arguments.rounds, seconds=arguments.seconds)
        rows: dict[str, dict[str, Any]] = {
            reader.name: {**reader.facts, "latency_ms": summarise(times[reader.name]), "sets": judge(reader, sets)}
            for reader in readers
        }
    print_table(rows)
    result |= {"threads": options.threads, "timed_words": len(timed), "readers": rows, "missing": missing}
    write_result(arguments.output, result)


def open_peers(wanted: Sequence[str] | None, threads: int) -> "tuple[list[Reader], dict[str, str]]":
    """Those asked for, or all; and why others could not be opened, by name.

    Raises:
        PeerError: one that was asked for.
    """
    from benchmarks.peers import PEERS, PeerError, open_peer

    readers, missing = [], {}
    for name in wanted or DEFAULT_PEERS:
        try:
            readers.append(open_peer(name, threads))
        except PeerError as error:
            if wanted:
                raise
            missing[PEERS[name].title] = str(error)
            print(f"left out: {error}", file=sys.stderr)
    return readers, missing


def judge(reader: "Reader", sets: "Mapping[str, Sequence[LabelledCrop]]") -> dict[str, dict[str, float]]:
    """Accuracy of one reader on every set."""
    from benchmarks.result import report_progress
    from benchmarks.sample import load_bytes, thin
    from benchmarks.verdict import Verdict

    rows = {}
    for name, whole in sets.items():
        crops = thin(whole, reader.most_words)
        report_progress(f"reading {len(crops)} words of {name} with {reader.name}")
        chunks = [crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH)]
        texts = [text for chunk in chunks for text in reader.read(load_bytes(chunk))]
        rows[name] = Verdict(texts, [crop.label for crop in crops]).row()
    return rows


def print_table(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line each, the first one's median as the unit of the third column."""
    from benchmarks.verdict import describe_row

    width = max(map(len, rows))
    first = next(iter(rows.values()))
    names = "".join(f"  {name[:20]:>20}" for name in first["sets"])
    print(f"{'':<{width}} {'p50 ms':>8} {'p90 ms':>8} {'ratio':>6}{names}")
    for name, row in rows.items():
        times = row["latency_ms"]
        accuracies = "".join(f"  {describe_row(score):>20}" for score in row["sets"].values())
        ratio = times["p50"] / first["latency_ms"]["p50"]
        print(f"{name:<{width}} {times['p50']:8.2f} {times['p90']:8.2f} {ratio:6.2f}{accuracies}")


if __name__ == "__main__":
    sys.exit(main())
