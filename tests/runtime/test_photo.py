"""`recognize --boxes`: the words of a photo, as a user reads them."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pytest
from fake_model import encode, picture_of

from robustscanner.errors import MissingPackageError
from robustscanner.photo import detect_quads
from robustscanner.preprocess import load_image
from robustscanner.recognize import main

Program = Callable[..., CompletedProcess[str]]


@pytest.fixture
def boxes(tmp_path: Path) -> list[object]:
    """Of photo.png: "cat" upright, "dog" turned by 90 degrees with the clock; written to boxes.json."""
    cat, dog = picture_of("cat"), np.rot90(picture_of("dog"), -1)
    height, width = cat.shape[:2]
    photo = np.full((height + width + 60, height + width + 60, 3), 90, np.uint8)
    photo[10 : 10 + height, 20 : 20 + width] = cat
    top, left = height + 30, 30
    photo[top : top + width, left : left + height] = dog
    right, bottom = left + height - 1, top + width - 1
    quads: list[object] = [[[right, top], [right, bottom], [left, bottom], [left, top]], [20, 10, width, height]]
    (tmp_path / "photo.png").write_bytes(encode(photo, ".png"))
    (tmp_path / "boxes.json").write_text(json.dumps(quads))
    return quads


def test_words_with_quads_in_the_order_of_the_file(recognize: Program, boxes: list[object]) -> None:
    result = recognize("photo.png", "--boxes", "boxes.json", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["path"], first["text"], second["text"]) == ("photo.png", "dog", "cat")
    assert first["quad"] == boxes[0]
    assert second["quad"][0] == [20, 10]


@pytest.mark.usefixtures("boxes")
def test_sheet_is_the_photo_with_frames(recognize: Program, tmp_path: Path) -> None:
    assert recognize("photo.png", "--boxes", "boxes.json", "--sheet", "out.png").returncode == 0
    photo, drawn = load_image(tmp_path / "photo.png"), load_image(tmp_path / "out.png")
    assert drawn.shape == photo.shape
    assert (drawn[10, 60] != photo[10, 60]).any()  # upper edge of "cat"


@pytest.mark.usefixtures("boxes")
def test_min_score(recognize: Program) -> None:
    result = recognize("photo.png", "--boxes", "boxes.json", "--min-score", "0.9")
    assert (result.returncode, result.stdout) == (0, "")
    assert "2 of 2 readings are left out" in result.stderr


@pytest.mark.usefixtures("boxes")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "not a list"),
        ("[[1, 2, 3]]", "region 0 is neither"),
        ('[["a", 1, 2, 3]]', "region 0 is neither"),
        ("[[1, 2, NaN, 4]]", "region 0 is neither"),
        ("[[1, 2, 0, 4]]", "is empty"),
        ("[[1, 2, 1e9, 4]]", "not within the photo"),
        ("[[[5, 5], [5, 5], [5, 5], [5, 5]]]", "span no area"),
    ],
)
def test_boxes_that_make_no_sense_are_one_line(recognize: Program, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "boxes.json").write_text(content)
    result = recognize("photo.png", "--boxes", "boxes.json")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert message in result.stderr


@pytest.mark.usefixtures("boxes")
def test_boxes_are_of_one_photo(recognize: Program) -> None:
    result = recognize("photo.png", "photo.png", "--boxes", "boxes.json")
    assert (result.returncode, result.stdout) == (1, "")
    assert "one photo" in result.stderr


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_letters_stand_where_they_are_in_the_photo(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that is turned by 90 degrees, and again upright."""
    word = np.full((60, 190, 3), 235, np.uint8)
    cv2.putText(word, "EXIT", (12, 46), cv2.FONT_HERSHEY_DUPLEX, 1.8, (30, 20, 20), 3, cv2.LINE_AA)
    photo = np.full((400, 400, 3), 120, np.uint8)
    photo[20:80, 100:290], photo[150:340, 40:100] = word, np.rot90(word, -1)
    quads = [[100, 20, 190, 60], [[99, 150], [99, 339], [40, 339], [40, 150]]]
    place, boxes = tmp_path / "photo.png", tmp_path / "boxes.json"
    place.write_bytes(encode(photo, ".png"))
    boxes.write_text(json.dumps(quads))
    assert main([str(place), "--boxes", str(boxes), "--letters", form, "--sheet", str(tmp_path / "out.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = (
        [json.loads(line)["letters"] for line in lines]
        if form == "--json"
        else [json.loads(row[3]) for row in list(csv.reader(lines))[1:]]
    )
    upright, turned = rows
    assert [letter["text"] for letter in upright] == [letter["text"] for letter in turned] == list("EXIT")
    assert set(upright[0]) == {"text", "probability", "others", "quad"}
    middles = np.array([np.mean(letter["quad"], 0) for letter in upright])  # (4, 2)
    assert middles[:, 1] == pytest.approx([49.5] * 4, abs=0.2)
    assert (np.diff(middles[:, 0]) > 20).all()
    assert 100 <= middles[0, 0] <= middles[-1, 0] <= 290
    # Turned with the clock: x of the word runs down from 150, y to the left from 99.
    back = np.array([np.mean(letter["quad"], 0) for letter in turned])
    assert back[:, 1] - 150 == pytest.approx(middles[:, 0] - 100, abs=3)
    assert back[:, 0] == pytest.approx([69.5] * 4, abs=0.5)


def test_detector_finds_words_in_reading_order() -> None:
    pytest.importorskip("rapidocr.main", reason="RapidOCR cannot be imported", exc_type=ImportError)
    photo = np.full((300, 500, 3), 255, np.uint8)
    for text, place in (("WORLD", (60, 220)), ("HELLO", (40, 100))):
        cv2.putText(photo, text, place, cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 4)
    first, second = detect_quads(photo)
    assert abs(first - [(34, 49), (230, 49), (230, 109), (34, 109)]).max() < 12
    assert second[0, 1] > first[2, 1]
    assert detect_quads(np.full((300, 500, 3), 255, np.uint8)) == []


def test_a_missing_detector_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        detect_quads(np.zeros((40, 40, 3), np.uint8))
