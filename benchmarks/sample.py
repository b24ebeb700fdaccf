"""The pictures that are read: drawn evenly from labelled folders, as bytes in memory."""

import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from robustscanner.errors import ImageError
from robustscanner.labels import DataError, LabelledCrop, read_labels
from robustscanner.preprocess import load_image


def draw_crops(folder: Path, count: int | None = None) -> list[LabelledCrop]:
    """All crops of a folder, or `count` of them spread evenly, the same each time; raises as `read_labels`."""
    return thin(read_labels(folder), count)


def thin(crops: Sequence[LabelledCrop], count: int | None) -> list[LabelledCrop]:
    """`count` of them, spread evenly from first to last; all if there are fewer, or without a count."""
    count = len(crops) if count is None else min(count, len(crops))
    return [crops[index * len(crops) // count] for index in range(count)]


def readable_crops(folder: Path, count: int | None = None) -> list[LabelledCrop]:
    """Those of `draw_crops` that can be read, after a line on stderr about others.

    Raises:
        DataError: none can.
    """
    readable, bad = [], []
    for crop in draw_crops(folder, count):
        try:
            load_image(crop.path)
            readable.append(crop)
        except ImageError as error:
            bad.append(str(error))
    if not readable:
        raise DataError(f"{folder}: none of its pictures can be read; the first: {bad[0]}")
    if bad:
        print(f"warning: {len(bad)} unreadable pictures left out; the first: {bad[0]}", file=sys.stderr)
    return readable


def load_bytes(crops: Sequence[LabelledCrop]) -> list[bytes]:
    """Their files."""
    return [crop.path.read_bytes() for crop in crops]


def make_batches(pictures: Sequence[bytes], size: int) -> list[list[bytes]]:
    """Full batches only, begun again with the first pictures where they run out."""
    count = -(-len(pictures) // size)
    endless = cycle(pictures)
    return [list(islice(endless, size)) for _ in range(count)]
