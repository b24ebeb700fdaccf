"""Labelled word crops in a folder: `labels.tsv` with `path<TAB>label` a line."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from robustscanner.errors import RobustScannerError

LABELS_NAME = "labels.tsv"

# Zero-width space, word joiner, byte order mark and soft hyphen: no picture shows them, and no script needs them. (The
# zero-width joiners stay: Persian and Hindi are written with them.)
_INVISIBLE = str.maketrans("", "", "\u200b\u2060\ufeff\u00ad")
_SPACES = str.maketrans(dict.fromkeys("\u00a0\u2007\u202f", " "))  # that differ only in where a line may break
_NUMBER = re.compile(r"\s*[-+]?\d*\.?\d+(e[-+]?\d+)?\s*", re.IGNORECASE)  # a score or the like
_NOTHING_READ = re.compile(r"[^\t]+\t\t[01]\.\d{4}")  # a line of `recognize.py`, with an empty text


class DataError(RobustScannerError):
    """A data set that cannot be used."""


@dataclass(frozen=True)
class LabelledCrop:
    """One picture file and what is written in it."""

    path: Path
    label: str


def read_labels(folder: Path) -> list[LabelledCrop]:
    """All crops of a folder, in file order; labels are tidied, and a third column with numbers is left out.

    A label may turn out empty: what is drawn, packed or scored leaves such crops out.

    Raises:
        DataError: no labels.tsv, none in it, or a line that is not a path, a label and at most a number.
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
    lines = enumerate(re.split("\r\n|\n|\r", text), 1)
    crops = [_parse(table, number, line) for number, line in lines if line.strip()]
    if not crops:
        raise DataError(f"{table}: is empty; write one line per crop: path<TAB>label")
    return crops


def _parse(table: Path, number: int, line: str) -> LabelledCrop:
    columns = [column for column in line.split("\t") if column]
    if _NOTHING_READ.fullmatch(line):
        columns[1:] = [""]
    if len(columns) < 2:
        raise DataError(f"{table}: line {number} has no label; write path<TAB>label, or remove it")
    if len(columns) > 2 and not (len(columns) == 3 and _NUMBER.fullmatch(columns[2])):
        raise DataError(
            f"{table}: line {number} has {len(columns)} columns; write path<TAB>label, or remove the others"
        )
    path, label = columns[0], tidy_label(columns[1])
    if len(path) > 2 and path[0] == path[-1] == '"' == label[0] == label[-1]:  # both quoted, as a spreadsheet does
        path, label = path[1:-1], label[1:-1].replace('""', '"')
    return LabelledCrop(_find(table.parent, path), label)


def tidy_label(text: str) -> str:
    """A label without what no picture shows: composed (NFC), no invisible characters, no spaces around it."""
    return unicodedata.normalize("NFC", text.translate(_INVISIBLE).translate(_SPACES)).strip()


def _find(folder: Path, path: str) -> Path:
    """Where a picture lies, usually as seen from the table.

    A table from Windows has backslashes, which elsewhere may be part of a name; one that `recognize.py` wrote has paths
    as seen from where it ran.
    """
    slashed = path.replace("\\", "/")
    places = (folder / path, folder / slashed, Path(slashed))
    return next((place for place in places if place.exists()), folder / path)
