"""The accuracy program, and readers compared word by word."""

import json
from pathlib import Path

import pytest

from benchmarks.accuracy import changed_words, draw_changed, judge, main
from benchmarks.sample import draw_crops
from robustscanner.engine import file_sha256
from robustscanner.labels import LabelledCrop
from robustscanner.recognizer import Reading

from .conftest import TINY

LABELS = ["one", "two", "three", "four"]


def readings(*texts: str) -> dict[str, list[Reading]]:
    return {"set": [Reading(text, 0.5) for text in texts]}


@pytest.fixture
def sets(crops: Path) -> dict[str, list[LabelledCrop]]:
    return {"set": [LabelledCrop(c.path, label) for c, label in zip(draw_crops(crops), LABELS, strict=False)]}


def test_words_won_and_lost(sets: dict[str, list[LabelledCrop]]) -> None:
    found = {"before": readings("one", "two", "thee", "for"), "after": readings("One", "tow", "three", "four!")}
    rows = judge(found, sets, "before")
    assert rows["before"]["sets"]["set"]["accuracy"] == 0.5
    assert rows["after"]["against_reference"] == {"only_first": 1, "only_second": 2, "points": 25.0, "p": 1.0}
    assert "against_reference" not in rows["before"]


def test_changed_words_are_those_the_protocol_sees(sets: dict[str, list[LabelledCrop]], tmp_path: Path) -> None:
    found = {"before": readings("one", "two", "thee", "for"), "after": readings("ONE", "tow", "thee", "for")}
    changed = changed_words(found, sets, "before")
    assert [(row["by"], row["reference"], row["engine"]) for row in changed] == [("after", "two", "tow")]
    draw_changed(tmp_path / "sheet.png", changed, sets)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_program(crops: Path, int8_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "accuracy.json"
    arguments = [str(int8_engine), "--reference", str(TINY), "--data", str(crops), "-o", str(output)]
    assert main(arguments) == 0
    result = json.loads(output.read_text())
    assert (result["kind"], result["reference"]) == ("accuracy", "tiny.onnx")
    assert result["engines"]["tiny.onnx"]["sets"][crops.name]["accuracy"] == 1  # the labels are what it reads
    right = [row["sets"][crops.name]["correct"] for row in result["engines"].values()]
    assert result["engines"]["int8.engine"]["against_reference"]["only_first"] == right[0] - right[1]
    assert result["engines"]["int8.engine"]["sha256"] == file_sha256(int8_engine / "engine.json")
    assert "against tiny.onnx" in capsys.readouterr().out
