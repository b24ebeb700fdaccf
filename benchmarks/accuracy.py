"""Word accuracy of engines with its uncertainty, and word by word against a reference: what 8 bits changed."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from benchmarks.arguments import add_sets, engine_parser, session_options
from robustscanner.program import exit_status

if TYPE_CHECKING:
    from robustscanner.labels import LabelledCrop
    from robustscanner.recognizer import Reading
    from robustscanner.session import SessionOptions

EPILOG = """examples:
  python benchmarks/accuracy.py build/edge-fp32.engine build/edge-int8.engine --data sets/ic13 sets/iiit5k
  python benchmarks/accuracy.py build/*.engine --reference build/r31-fp32.engine --data crops --sheet changed.png

Case and everything but digits and Latin letters do not count, as in published tables. Intervals are Wilson's, 95 %;
p is McNemar's exact test. A set that training, calibration or a choice has seen says little about other words.
"""

Readings = dict[str, dict[str, "list[Reading]"]]  # engine -> set -> readings in order
Sets = Mapping[str, "Sequence[LabelledCrop]"]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = engine_parser(__doc__, EPILOG)
    add_sets(parser)
    parser.add_argument("--reference", type=Path, metavar="ENGINE", help="what to compare with (default: the first)")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw the crops that are read differently")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parsed = parse_arguments(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Reads all sets with all engines, prints tables, and writes figures and sheet."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, report_progress, write_result
    from benchmarks.sample import readable_crops

    result = begin_result("accuracy", __doc__, arguments.output)
    reference = arguments.reference or arguments.engines[0]
    sets = {folder.name: readable_crops(folder, arguments.words) for folder in arguments.data}
    paths = list(dict.fromkeys([reference, *arguments.engines]))
    readings = {}
    for path in paths:
        report_progress(f"reading {', '.join(sets)} with {path.name}")
        readings[path.name] = read_sets(path, sets, session_options(arguments))
    rows = judge(readings, sets, reference.name)
    engines = {path.name: engine_facts(path) | rows[path.name] for path in paths}
    print_table(engines, reference.name)
    if arguments.sheet:
        draw_changed(arguments.sheet, changed_words(readings, sets, reference.name), sets)
    write_result(arguments.output, result | {"reference": reference.name, "engines": engines})


def read_sets(path: Path, sets: Sets, options: "SessionOptions") -> "dict[str, list[Reading]]":
    """Every set with one engine."""
    from robustscanner.recognizer import Recognizer

    with Recognizer(path, options=options) as recognizer:
        return {name: recognizer.read_batch([crop.path for crop in crops]) for name, crops in sets.items()}


def judge(readings: Readings, sets: Sets, reference: str) -> dict[str, dict[str, Any]]:
    """Figures of every engine on every set, on all words together, and against the reference."""
    from benchmarks.significance import compare_words
    from benchmarks.verdict import Verdict

    engines: dict[str, dict[str, Any]] = {}
    for engine, by_set in readings.items():
        verdicts = {name: Verdict(_texts(by_set[name]), [crop.label for crop in sets[name]]) for name in sets}
        base = [Verdict(_texts(readings[reference][name]), v.labels) for name, v in verdicts.items()]
        engines[engine] = {"sets": {name: verdict.row() for name, verdict in verdicts.items()}}
        if engine != reference:
            ours = [right for verdict in verdicts.values() for right in verdict.right]
            engines[engine]["against_reference"] = compare_words([r for b in base for r in b.right], ours)
    return engines


def changed_words(readings: Readings, sets: Sets, reference: str) -> list[dict[str, Any]]:
    """Crops that an engine reads differently than the reference, where the protocol sees it."""
    from robustscanner.metrics import normalise

    found = []
    for engine, by_set in readings.items():
        for name, crops in sets.items():
            for crop, before, after in zip(crops, readings[reference][name], by_set[name], strict=True):
                if normalise(before.text) != normalise(after.text):
                    texts = {"label": crop.label, "reference": before.text, "engine": after.text}
                    place = {"set": name, "file": crop.path.name, "by": engine}
                    found.append({**place, **texts, "score": round(after.score, 4)})
    return found


def draw_changed(path: Path, changed: Sequence[Mapping[str, Any]], sets: Sets) -> None:
    """A sheet of them, what the reference read before what the engine read."""
    from robustscanner.output import replacing
    from robustscanner.recognizer import Reading
    from robustscanner.sheet import MAX_CELLS, Cell, draw_sheet, encode_sheet

    if not changed:
        print("no crop is read differently; no sheet")
        return
    files = {(name, crop.path.name): str(crop.path) for name, crops in sets.items() for crop in crops}
    cells = [
        Cell(files[row["set"], row["file"]], Reading(f"{row['reference']} > {row['engine']}", row["score"]))
        for row in changed[:MAX_CELLS]
    ]
    with replacing(path, force=True) as temporary:
        temporary.write_bytes(encode_sheet(draw_sheet(cells), path.suffix))


def print_table(engines: Mapping[str, Mapping[str, Any]], reference: str) -> None:
    """A line for every engine and set, and one for the comparison."""
    from benchmarks.verdict import describe_row

    width = max(map(len, engines))
    for name, engine in engines.items():
        for folder, row in engine["sets"].items():
            print(f"{name:<{width}}  {folder:<16} {row['words']:>6} words  {describe_row(row)} %")
        if "against_reference" in engine:
            row = engine["against_reference"]
            split = f"{row['only_second']} words won, {row['only_first']} lost"
            print(f"{name:<{width}}  against {reference}: {row['points']:+.2f} points, {split}, p = {row['p']:.2g}")


def _texts(readings: "Sequence[Reading]") -> list[str]:
    return [reading.text for reading in readings]


if __name__ == "__main__":
    sys.exit(main())
