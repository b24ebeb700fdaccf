"""Word accuracy of a checkpoint, an ONNX file or an engine on sets of labelled crops."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.program import exit_status

if TYPE_CHECKING:
    from training.evaluation.scores import Reader, SetResult

EPILOG = """protocols: the whole word must be right; characters outside the protocol's set do not count,
and words whose labels are empty then are left out.
  36  case-insensitive, [0-9a-z]: the one of most published tables; 1 - NED and confusions are of this one
  62  case-sensitive, [0-9a-zA-Z]
  90  case-sensitive with symbols
62 and 90 tell something only about sets whose labels kept case and symbols.

examples:
  python training/evaluate.py runs/edge/best.safetensors iiit5k_test ic13_test
  python training/evaluate.py runs/edge/best.safetensors union14m.lmdb --sheet worst.png --confusions 20
  python training/evaluate.py build/e.engine calib_data --json
"""

Row = dict[str, Any]  # figures, JSON-ready


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="NAME.safetensors, NAME.onnx or NAME.engine")
    parser.add_argument("sets", type=Path, nargs="+", metavar="SET", help="folder with labels.tsv, or LMDB")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--batch", type=int, default=32, metavar="WORDS", help="words at a time (default: %(default)s)")
    parser.add_argument("--confusions", type=int, default=0, metavar="N", help="also the N most frequent mistakes")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw the worst crops, named by their labels")
    parser.add_argument("--worst", type=int, default=48, metavar="N", help="crops of the sheet (default: %(default)s)")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite the sheet")
    arguments = parser.parse_args()
    if arguments.batch < 1 or not 1 <= arguments.worst <= 1000 or arguments.confusions < 0:
        parser.error("--batch and --worst take 1 or more (a sheet holds 1000), --confusions 0 or more")
    if arguments.sheet and arguments.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        parser.error("--sheet takes a .png, .jpg, .jpeg or .webp")
    return arguments


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Reads every set and prints its row, the means over the sets, and what else was asked for."""
    from robustscanner.output import check_output
    from training.data.crop_set import open_crop_set
    from training.data.record import describe_skipped
    from training.evaluation.scores import read_set

    if arguments.sheet:
        check_output(arguments.sheet, force=arguments.force)
    sets = [open_crop_set(path) for path in arguments.sets]
    read = open_reader(arguments.model, arguments.batch)
    results = [read_set(crops, read, batch_size=arguments.batch) for crops in sets]
    report = make_report(arguments, results)
    if arguments.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print_tables(report)
    for result in results:
        for line in describe_skipped(result.skipped):
            print(line, file=sys.stderr)
    if arguments.sheet:
        draw_worst(results, arguments)


def open_reader(model: Path, batch_size: int) -> "Reader":
    """A function from pictures to readings, whatever the model is."""
    if model.suffix == ".safetensors":
        return network_reader(model)
    from robustscanner.recognizer import Recognizer

    recognizer = Recognizer(model, batch_size=batch_size)
    return lambda images: recognizer.read_batch(list(images))


def network_reader(checkpoint: Path) -> "Reader":
    """Reads with PyTorch; float32, greedy."""
    from training.checkpoint import load_checkpoint
    from training.evaluation.network_reader import read_pictures

    model, _ = load_checkpoint(checkpoint)
    return lambda images: read_pictures(model, images)


def make_report(arguments: argparse.Namespace, results: "Sequence[SetResult]") -> Row:
    """All figures, shares 0…1: by set, and over the sets, which weigh the same in `mean`."""
    from training.evaluation.scores import confusion_rows, mean_row

    rows = {str(result.crops.path): result.row() for result in results}
    means = {"mean": mean_row(list(rows.values())), "weighted_mean": mean_row(list(rows.values()), weighted=True)}
    report = {"model": str(arguments.model), "sets": rows, **means}
    return report | ({"confusions": confusion_rows(results, arguments.confusions)} if arguments.confusions else {})


def print_tables(report: Row) -> None:
    """Percent, one row a set, and their means when there are several; then the confusions."""
    rows = [
        (name, row["words"], *(p["accuracy"] for p in row["protocols"].values()), row["edit_similarity"])
        for name, row in report["sets"].items()
    ]
    if len(rows) > 1:
        words = sum(row["words"] for row in report["sets"].values())
        for name, key in (("mean of sets", "mean"), ("mean of words", "weighted_mean")):
            rows.append((name, words, *report[key]["accuracy"].values(), report[key]["edit_similarity"]))
    width = max(len(row[0]) for row in rows)
    names = next(iter(report["sets"].values()))["protocols"]
    print(f"{'set':<{width}}  {'words':>7}" + "".join(f"{name + ' %':>8}" for name in names) + f"{'1 - NED %':>11}")
    for name, words, *shares, similarity in rows:
        print(f"{name:<{width}}  {words:>7}" + "".join(f"{100 * s:8.2f}" for s in shares) + f"{100 * similarity:11.2f}")
    for line in confusion_lines(report.get("confusions", [])):
        print(line)


def confusion_lines(confusions: Sequence[Row]) -> Iterator[str]:
    """What is written, what was read there, how often; a dot stands for nothing."""
    if confusions:
        yield f"\n{'written':>7}  {'read':>4}  {'times':>6}"
    for row in confusions:
        yield f"{row['label'] or '·':>7}  {row['read'] or '·':>4}  {row['count']:>6}"


def draw_worst(results: "Sequence[SetResult]", arguments: argparse.Namespace) -> None:
    """Draws the worst crops with what was read; where a sheet has the file's name, it tells the label."""
    import tempfile

    from robustscanner.output import replacing
    from robustscanner.sheet import Cell, draw_sheet, encode_sheet
    from training.evaluation.scores import worst_words

    words = worst_words(results, arguments.worst)
    if not words:
        print(f"{arguments.sheet}: not drawn: every word is right", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        cells = []
        for number, (crops, word) in enumerate(words):
            name = "label " + "".join("_" if c in "/\\\0" else c for c in word.label)[:50]
            picture = Path(folder) / str(number) / name
            picture.parent.mkdir()
            picture.write_bytes(crops.data(word.number))
            cells.append(Cell(str(picture), word.reading))
        data = encode_sheet(draw_sheet(cells), arguments.sheet.suffix.lower())
    with replacing(arguments.sheet, force=arguments.force) as temporary:
        temporary.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
