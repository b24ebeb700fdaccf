"""Labelled pictures one by one, wherever they lie, and an account of those that cannot be used."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from robustscanner.errors import ImageError
from robustscanner.labels import DataError
from robustscanner.preprocess import Image, decode_image

LMDB_NAME = "data.mdb"  # in an LMDB's folder

Skipped = Counter[tuple[str, str]]  # set and reason -> records left out


class BadRecord(DataError):
    """A record that is left out; the message is the reason it is counted under."""


class CropSet(Protocol):
    """A set of labelled pictures, numbered from 0."""

    path: Path

    def __len__(self) -> int: ...

    def label(self, index: int) -> str:
        """Raises `BadRecord`."""

    def data(self, index: int) -> bytes:
        """The encoded picture; raises `BadRecord`."""


def decode_record(data: bytes) -> Image:
    """A picture, uint8 RGB [H, W, 3]; raises `BadRecord`."""
    try:
        return decode_image(data)
    except ImageError as error:
        raise BadRecord(f"picture: {str(error).split(';')[0]}") from None  # the cure would be told once a record


def good_records(crops: CropSet, skipped: Skipped) -> Iterator[tuple[int, str, bytes, Image]]:
    """Number, label, file and pixels of every record that has them, in order; the others are counted."""
    for index in range(len(crops)):
        try:
            label, data = crops.label(index), crops.data(index)
            if not label.strip():
                raise BadRecord("label is empty")
            yield index, label, data, decode_record(data)
        except BadRecord as error:
            skipped[str(crops.path), str(error)] += 1


def describe_skipped(skipped: Mapping[tuple[str, str], int]) -> list[str]:
    """One line for each set and reason."""
    return [f"{name}: {count} left out: {reason}" for (name, reason), count in sorted(skipped.items())]
