"""The example that puts our recogniser into RapidOCR, as a user runs it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rapidocr.main", reason="RapidOCR cannot be imported", exc_type=ImportError)

from rapidocr.ch_ppocr_rec import TextRecInput

from examples import rapidocr_recognizer
from robustscanner.recognizer import Reading


def test_reads_the_words_of_a_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = np.full((300, 500, 3), 255, np.uint8)
    for text, place in (("WORLD", (60, 220)), ("HELLO", (40, 100))):
        cv2.putText(photo, text, place, cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 4)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    monkeypatch.setattr("sys.argv", ["rapidocr_recognizer.py", str(tmp_path / "photo.png")])
    rapidocr_recognizer.main()
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [text for text, _ in lines] == ["HELLO", "WORLD"]
    assert all(0.5 < float(score) <= 1 for _, score in lines)


def test_a_photo_without_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((300, 500, 3), 255, np.uint8))
    monkeypatch.setattr("sys.argv", ["rapidocr_recognizer.py", str(tmp_path / "photo.png")])
    rapidocr_recognizer.main()
    assert capsys.readouterr().out == ""


def test_channels_are_turned_around() -> None:
    seen = []

    class Stub:
        def read_batch(self, crops: list[np.ndarray]) -> list[Reading]:
            seen.extend(crops)
            return [Reading("blue", 0.9) for _ in crops]

    blue = np.full((32, 100, 3), (200, 0, 0), np.uint8)  # as OpenCV has it
    found = rapidocr_recognizer.RapidOcrRecognizer(Stub())(TextRecInput(img=[blue]))
    assert seen[0][0, 0].tolist() == [0, 0, 200]
    assert (found.txts, found.scores, found.word_results) == (("blue",), (0.9,), (None,))
