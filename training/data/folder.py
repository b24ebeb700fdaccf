"""Labelled crops in a folder, and which of them are kept for validation."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from robustscanner.labels import LabelledCrop, read_labels
from training.data.record import BadRecord

__all__ = ["FolderSet", "LabelledCrop", "is_held_out", "read_labels"]


class FolderSet:
    """The crops of a folder, or any others that are files."""

    def __init__(self, path: Path, crops: Sequence[LabelledCrop] | None = None) -> None:
        """Takes all crops of the folder's table unless some are given; raises `DataError` as `read_labels` does."""
        self.path = path
        self.crops = read_labels(path) if crops is None else crops

    def __len__(self) -> int:
        return len(self.crops)

    def label(self, index: int) -> str:
        """What is written on a picture, as the table has it: case, spaces and all."""
        return self.crops[index].label

    def data(self, index: int) -> bytes:
        """The picture's file; raises `BadRecord`."""
        try:
            return self.crops[index].path.read_bytes()
        except OSError as error:
            raise BadRecord(f"picture: {(error.strerror or str(error)).lower()}") from None


def is_held_out(crop: LabelledCrop, share: float) -> bool:
    """Whether a crop belongs to the validation part: decided by its name, so the same in every run."""
    digest = hashlib.sha256("/".join(crop.path.parts[-3:]).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
