"""The folds of a cross-validation: every crop in one, crops of a photo together, and folders that training can read."""

from pathlib import Path

import pytest

from benchmarks.finetune import copy_crops, split_by_photo
from robustscanner.labels import read_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "signs" / "images"
    images.mkdir(parents=True)
    names = [f"{photo}_{number}.png" for photo in range(12) for number in range(1 + photo % 3)]
    for name in names:
        (images / name).write_bytes(name.encode())
    (tmp_path / "signs" / "labels.tsv").write_text("".join(f"images/{name}\tw{name}\n" for name in names))
    return tmp_path / "signs"


def test_every_crop_is_in_one_fold_and_photos_are_not_torn_apart(folder: Path) -> None:
    folds = split_by_photo([folder], 3, r"\d+(?=_)")
    assert sorted(c.path for fold in folds for c in fold) == sorted(c.path for c in read_labels(folder))
    assert max(map(len, folds)) - min(map(len, folds)) <= 2
    photos = [{crop.path.name.split("_")[0] for crop in fold} for fold in folds]
    assert sum(map(len, photos)) == 12


def test_copied_crops_keep_names_labels_and_bytes(folder: Path, tmp_path: Path) -> None:
    fold = split_by_photo([folder], 3, "")[0]
    copied = read_labels(copy_crops(folder, tmp_path / "copy", fold))
    assert [(c.path.name, c.label) for c in copied] == [(c.path.name, c.label) for c in fold]
    assert all(c.path.read_bytes() == c.path.name.encode() for c in copied)
