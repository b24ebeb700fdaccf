"""Labelled crops in a folder, and which of them are kept for validation."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustscanner.labels import LabelledCrop, read_labels
from training.data.record import BadRecord


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


@dataclass(frozen=True)
class HoldOut:
    """Which crops belong to the validation part: decided by their names, so the same in every run."""

    share: float  # of the crops, 0…1
    # Regular expression for the beginning of a file's name that names the photo: crops of one photo stay together.
    # What was learnt from its other words makes a word easier (training/NOTES.md).
    photo_pattern: str = ""

    def keeps(self, crop: LabelledCrop) -> bool:
        """Whether a crop is kept from training."""
        digest = hashlib.sha256("/".join([*crop.path.parts[-3:-1], self.photo(crop)]).encode()).digest()
        return int.from_bytes(digest[:4], "big") < self.share * 2**32

    def photo(self, crop: LabelledCrop) -> str:
        """Name of the photo, within the crop's folder; the crop's own where the pattern does not fit."""
        match = re.match(self.photo_pattern, crop.path.name) if self.photo_pattern else None
        return match[0] if match else crop.path.name
