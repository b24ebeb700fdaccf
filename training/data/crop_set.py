"""Opens a set of labelled crops, whichever way it is stored."""

from pathlib import Path

from robustscanner.labels import LABELS_NAME, DataError
from training.data.folder import FolderSet
from training.data.record import LMDB_NAME, CropSet


def crop_set_kind(path: Path) -> str | None:
    """What lies there: "lmdb" (a folder with data.mdb, NAME.mdb or NAME.lmdb), "folder" (with labels.tsv), or None."""
    if (path / LMDB_NAME).exists() or (path.is_file() and path.suffix in (".mdb", ".lmdb")):
        return "lmdb"
    return "folder" if (path / LABELS_NAME).exists() else None


def open_crop_set(path: Path) -> CropSet:
    """The crops of a folder or an LMDB.

    Raises:
        DataError: neither of them, or unusable.
    """
    if crop_set_kind(path) != "lmdb":
        return FolderSet(path)  # tells what is missing
    try:
        from training.data.lmdb_set import LmdbSet
    except ImportError:
        raise DataError(f"{path}: is an LMDB; reading it needs a package: pip install lmdb") from None
    return LmdbSet(path)
