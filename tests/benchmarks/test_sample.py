"""Which pictures are measured."""

from pathlib import Path

import pytest

from benchmarks.sample import draw_crops, make_batches, readable_crops
from robustscanner.labels import DataError


def test_draws_from_begin_to_end(crops: Path) -> None:
    assert [crop.path.name for crop in draw_crops(crops, 4)] == ["00.png", "03.png", "06.png", "09.png"]
    assert len(draw_crops(crops)) == len(draw_crops(crops, 99)) == 12


def test_batches_are_full() -> None:
    assert make_batches([b"1", b"2", b"3"], 2) == [[b"1", b"2"], [b"3", b"1"]]
    assert make_batches([b"1"], 3) == [[b"1", b"1", b"1"]]


def test_unreadable_pictures_are_left_out(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.png").write_bytes((crops / "00.png").read_bytes())
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "labels.tsv").write_text("bad.png\tbad\ngood.png\tgood\n")
    assert [crop.label for crop in readable_crops(tmp_path)] == ["good"]
    assert capsys.readouterr().err.startswith("warning: 1 unreadable")
    (tmp_path / "labels.tsv").write_text("bad.png\tbad\n")
    with pytest.raises(DataError, match="none of its pictures"):
        readable_crops(tmp_path)
