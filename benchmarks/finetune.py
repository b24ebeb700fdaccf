"""What fine-tuning on a user's labelled crops is worth, cross-validated: every crop is read before and after.

The crops are split into folds. For each fold `training/train.py` fine-tunes the model on the others, and both models,
the one before and the one after, read the fold. No crop is read by a model that learnt from it.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(ROOT / "runtime"), str(ROOT)]
    __package__ = "benchmarks"

from robustscanner.program import exit_status

if TYPE_CHECKING:
    from robustscanner.labels import LabelledCrop

EPILOG = """examples:
  python benchmarks/finetune.py my_signs --words words.txt -o build/finetune.json
  python benchmarks/finetune.py my_plates --words plates.txt --folds 5 --set steps=600 --set characters=0123456789AB
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crops", type=Path, nargs="+", metavar="DIR", help="folders with labels.tsv")
    parser.add_argument("--words", type=Path, required=True, metavar="FILE", help="word list for rendering, one a line")
    parser.add_argument("--init-from", type=Path, metavar="CHECKPOINT", help="default: the shipped model")
    parser.add_argument("--config", type=Path, default=ROOT / "training/configs/finetune.yaml", metavar="FILE.yaml")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="replace a setting"
    )
    parser.add_argument("--folds", type=int, default=4, metavar="N", help="default: %(default)s")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write the figures there")
    arguments = parser.parse_args()
    if arguments.folds < 2:
        parser.error("--folds takes 2 or more")
    return arguments


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: measure(arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Fine-tunes once a fold, prints accuracy before and after, and writes the figures."""
    from benchmarks.result import begin_result, report_progress, write_result
    from benchmarks.significance import compare_words
    from benchmarks.verdict import Verdict, describe_row
    from robustscanner.engine import default_engine
    from training.config import load_config

    result = begin_result("finetune", __doc__, arguments.output)
    config = load_config(arguments.config, arguments.overrides)
    start = arguments.init_from or default_engine().with_suffix(".safetensors")
    folds = split_by_photo(arguments.crops, arguments.folds, config.photo_pattern)
    before: list[str] = []
    after: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, fold in enumerate(folds):
            others = [crop for other in folds if other is not fold for crop in other]
            report_progress(f"fold {number + 1} of {len(folds)}: {len(others)} crops to learn from")
            tuned = fine_tune(arguments, start, others, Path(folder) / f"fold-{number}")
            before += read_with(start, fold)
            after += read_with(tuned, fold)
    labels = [crop.label for fold in folds for crop in fold]
    verdicts = {"before": Verdict(before, labels), "after": Verdict(after, labels)}
    for name, verdict in verdicts.items():
        print(f"{name:<8}{verdict.row()['words']:>6} words  {describe_row(verdict.row())} %")
    change = compare_words(verdicts["before"].right, verdicts["after"].right)
    print(f"{change['points']:+.2f} points, p = {change['p']:.2g}")
    rows = {name: verdict.row() for name, verdict in verdicts.items()}
    about = {"crops": len(labels), "folds": len(folds), "settings": config.to_dict()}
    write_result(arguments.output, result | about | rows | {"change": change})


def split_by_photo(folders: Sequence[Path], count: int, photo_pattern: str) -> "list[list[LabelledCrop]]":
    """As many parts of about the same size, the same at each run; crops of one photo stay together."""
    import random

    from robustscanner.labels import read_labels
    from training.data.folder import HoldOut

    photos: dict[tuple[Path, str], list[LabelledCrop]] = {}
    for crop in (crop for folder in folders for crop in read_labels(folder)):
        photos.setdefault((crop.path.parent, HoldOut(0, photo_pattern).photo(crop)), []).append(crop)
    groups = list(photos.values())
    random.Random(0).shuffle(groups)
    folds: list[list[LabelledCrop]] = [[] for _ in range(count)]
    for group in sorted(groups, key=len, reverse=True):
        min(folds, key=len).extend(group)
    return folds


def fine_tune(arguments: argparse.Namespace, start: Path, crops: "Sequence[LabelledCrop]", folder: Path) -> Path:
    """Runs the trainer as a user would; returns its best checkpoint."""
    data, run = folder / "crops", folder / "run"
    parts = [copy_crops(source, data / str(number), crops) for number, source in enumerate(arguments.crops)]
    command: list[Any] = [sys.executable, ROOT / "training/train.py", arguments.config, "-o", run]
    command += ["--words", arguments.words, "--init-from", start, "--crops", *parts]
    command += [part for override in arguments.overrides for part in ("--set", override)]
    subprocess.run(list(map(str, command)), check=True)
    return run / "best.safetensors"


def copy_crops(source: Path, target: Path, crops: "Sequence[LabelledCrop]") -> Path:
    """A folder with those of a folder's crops that are asked for, under their own names."""
    lines = []
    for crop in crops:
        if crop.path.is_relative_to(source):
            name = crop.path.relative_to(source)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(crop.path, target / name)
            lines.append(f"{name}\t{crop.label}\n")
    (target / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return target


def read_with(checkpoint: Path, crops: "Sequence[LabelledCrop]") -> list[str]:
    """Texts of the crops, in order."""
    from training.checkpoint import load_checkpoint
    from training.evaluation.network_reader import read_crops

    model, _ = load_checkpoint(checkpoint)
    return read_crops(model, [crop.path for crop in crops])


if __name__ == "__main__":
    sys.exit(main())
