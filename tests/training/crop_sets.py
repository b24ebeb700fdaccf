"""Tiny sets of labelled crops for the tests."""

from pathlib import Path

import cv2
import lmdb
import numpy as np


def picture(value: int) -> bytes:
    """A plain PNG, 20 x 50 pixels, that can be told by its grey level."""
    return cv2.imencode(".png", np.full((20, 50, 3), value, np.uint8))[1].tobytes()


def make_folder(path: Path, labels: list[str]) -> Path:
    """A folder with labels.tsv; crop i has grey level i."""
    (path / "images").mkdir(parents=True)
    for index in range(len(labels)):
        (path / "images" / f"{index}.png").write_bytes(picture(index))
    rows = "".join(f"images/{index}.png\t{label}\n" for index, label in enumerate(labels))
    (path / "labels.tsv").write_text(rows, encoding="utf-8")
    return path


def make_lmdb(path: Path, entries: dict[bytes, bytes]) -> Path:
    """An LMDB folder with just these entries, as somebody else's program may have left it."""
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)
    return path
