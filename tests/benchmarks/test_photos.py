"""Words of photos: drawn scenes, and figures that can be computed by hand."""

import sys

import numpy as np
import pytest

from benchmarks.photos import iou, judge, main
from benchmarks.scenes import HEIGHT_PX, WIDTH_PX, Scene, draw_scenes

from .conftest import TINY

WORDS = [f"word{number}" for number in range(20)]


def box(left: float, top: float, width: float, height: float) -> np.ndarray:
    right, bottom = left + width, top + height
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def test_scenes_are_the_same_each_time_and_hold_their_words() -> None:
    (first, second), (again, _) = draw_scenes(2, WORDS, 1), draw_scenes(2, WORDS, 1)
    assert (first.picture == again.picture).all()
    assert first.words == again.words != second.words
    assert 5 <= len(set(first.words)) == len(first.quads) <= 12
    for quad in first.quads:
        assert (quad >= 0).all()
        assert (quad < (WIDTH_PX, HEIGHT_PX)).all()
        left, top = quad.min(0).astype(int)
        right, bottom = quad.max(0).astype(int)
        assert first.picture[top:bottom, left:right].std() > 5  # something is drawn there


def test_words_do_not_overlap() -> None:
    for scene in draw_scenes(3, WORDS, 2):
        quads = scene.quads
        assert max(iou(a, b) for i, a in enumerate(quads) for b in quads[:i]) < 0.1


def test_intersection_over_union() -> None:
    assert iou(box(0, 0, 10, 10), box(0, 0, 10, 10)) == pytest.approx(1)
    assert iou(box(0, 0, 10, 10), box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert iou(box(0, 0, 10, 10), box(20, 0, 10, 10)) == 0


def test_a_word_counts_where_it_stands() -> None:
    places = box(0, 0, 40, 10), box(0, 50, 40, 10), box(0, 90, 40, 10)
    scene = Scene(np.zeros((100, 100, 3), np.uint8), ("Cat", "dog", "owl"), places)
    found = [(box(0, 52, 40, 10), "dog"), (box(1, 0, 40, 10), "CAT"), (box(60, 0, 30, 10), "owl")]
    row = judge([scene, scene], [found, []])
    assert (row["found"], row["read"]["correct"], row["read"]["words"]) == (0.3333, 2, 6)
    assert (row["exact"], row["elsewhere"]) == (round(1 / 6, 4), 1)


def test_without_rapidocr_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    assert main([str(TINY)]) == 1
    assert "pip install" in capsys.readouterr().err
