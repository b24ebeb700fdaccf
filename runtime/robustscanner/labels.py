"""Labelled word crops in a folder: `labels.tsv` with `path<TAB>label` a line."""

from dataclasses import dataclass
from pathlib import Path

from robustscanner.errors import RobustScannerError

LABELS_NAME = "labels.tsv"


class DataError(RobustScannerError):
    """A data set that cannot be used."""


@dataclass(frozen=True)
class LabelledCrop:
    """One picture file and what is written in it."""

    path: Path
    label: str


def read_labels(folder: Path) -> list[LabelledCrop]:
    """All crops of a folder, in file order.

    Raises:
        DataError: no labels.tsv, none in it, or a picture without a label.
    """
    table = folder / LABELS_NAME
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{table}: not UTF-8; save it again as UTF-8") from None
    except OSError as error:
        what = (
            "no such folder"
            if not folder.is_dir()
            else f"no {LABELS_NAME}"
            if not table.exists()
            else str(error.strerror)
        )
        raise DataError(f"{folder}: {what}; it needs a {LABELS_NAME} with one line per crop: path<TAB>label") from None
    # Not splitlines(): a label may hold one of the rarer characters that it takes for a line end.
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]
    crops = [_parse(table, number, line) for number, line in lines if line.strip()]
    if not crops:
        raise DataError(f"{table}: is empty; write one line per crop: path<TAB>label")
    return crops


def _parse(table: Path, number: int, line: str) -> LabelledCrop:
    path, _, label = line.partition("\t")
    if not path or not label:
        raise DataError(f"{table}: line {number} has no label; write path<TAB>label, or remove it")
    return LabelledCrop(table.parent / path, label)
