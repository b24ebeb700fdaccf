"""Word accuracy of a checkpoint, an ONNX file or an engine on folders of labelled crops."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.program import exit_status

EPILOG = """protocol: case-insensitive, only [0-9a-z] count, the whole word must be right;
labels that are empty then are left out.

examples:
  python training/evaluate.py runs/edge/best.safetensors iiit5k_test ic13_test
  python training/evaluate.py build/e.engine calib_data --json
"""

Reader = Callable[[Sequence[Path]], list[str]]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="NAME.safetensors, NAME.onnx or NAME.engine")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folder with labels.tsv")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--batch", type=int, default=32, metavar="WORDS", help="words at a time (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to mend."""
    arguments = parse_arguments()
    return exit_status(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Reads every folder and prints its row, then the mean over the sets."""
    from robustscanner.labels import read_labels
    from robustscanner.metrics import score_words

    read = open_reader(arguments.model, arguments.batch)
    rows: dict[str, dict[str, float]] = {}
    for folder in arguments.folders:
        crops = read_labels(folder)
        accuracy = score_words(read([crop.path for crop in crops]), [crop.label for crop in crops])
        rows[str(folder)] = {
            "words": accuracy.words,
            "accuracy": accuracy.rate,
            "edit_similarity": accuracy.edit_similarity,
        }
    if arguments.json:
        print(json.dumps({"model": str(arguments.model), "sets": rows}, indent=2))
    else:
        print_table(rows)


def open_reader(model: Path, batch_size: int) -> Reader:
    """A function from picture files to texts, whatever the model is."""
    if model.suffix == ".safetensors":
        from training.checkpoint import load_checkpoint
        from training.reader import read_crops

        network, _ = load_checkpoint(model)
        return lambda paths: read_crops(network, paths, batch_size=batch_size)
    from robustscanner.recognizer import Recognizer

    recognizer = Recognizer(model, batch_size=batch_size)
    return lambda paths: [reading.text for reading in recognizer.read_batch(list(paths))]


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Percent, one row a set, and their mean when there are several."""
    means = {key: sum(row[key] for row in rows.values()) / len(rows) for key in ("accuracy", "edit_similarity")}
    if len(rows) > 1:
        rows = {**rows, "mean": {"words": sum(row["words"] for row in rows.values()), **means}}
    width = max(len(name) for name in [*rows, "set"])
    print(f"{'set':<{width}}  {'words':>6}  {'accuracy %':>10}  {'1 - NED %':>9}")
    for name, row in rows.items():
        print(
            f"{name:<{width}}  {row['words']:>6}  {100 * row['accuracy']:>10.2f}  {100 * row['edit_similarity']:>9.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
