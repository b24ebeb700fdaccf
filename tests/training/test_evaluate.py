"""Protocols, confusions, means and the worst words, on pairs made by hand; and the program on a real model."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from robustscanner.metrics import Accuracy, edit_distance, normalise
from robustscanner.preprocess import Image, load_image
from robustscanner.recognizer import Reading
from tests.training.crop_sets import make_folder
from training.data.crop_set import open_crop_set
from training.data.folder import FolderSet
from training.data.lmdb_set import write_lmdb
from training.evaluate import main
from training.evaluation.confusion import Confusion, align, count_confusions
from training.evaluation.protocols import CASE_INSENSITIVE, CASE_SENSITIVE, EXACT, WITH_SYMBOLS
from training.evaluation.scores import ReadCrop, Reader, SetResult, confusion_rows, mean_row, read_set, worst_words

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "runtime" / "robustscanner" / "models"
DEMO = ROOT / "calib_data" / "demo"


def reader(*texts: str) -> Reader:
    """Reads these texts, told apart by the grey levels of `make_folder`; the score grows with the number."""

    def read(images: Sequence[Image]) -> list[Reading]:
        return [Reading(texts[int(image[0, 0, 0])], int(image[0, 0, 0]) / 100) for image in images]

    return read


@pytest.mark.parametrize(
    ("reading", "label", "right"),
    [
        ("Sale", "Sale", "36 62 90"),
        ("SALE", "Sale", "36"),
        ("Sale", "Sale!", "36 62"),
        ("SALE!", "sale", "36"),
        ("caf", "café", "36 62 90"),  # é is in none of the sets
        ("two words", "twowords", "36 62 90"),
        ("Sole", "Sale", ""),
    ],
)
def test_protocols(reading: str, label: str, right: str) -> None:
    protocols = (CASE_INSENSITIVE, CASE_SENSITIVE, WITH_SYMBOLS)
    assert [p.name for p in protocols if p.score([reading], [label]).correct] == right.split()


def test_labels_without_a_character_that_counts_are_left_out() -> None:
    assert CASE_SENSITIVE.score(["x", "A"], ["?!", "A"]) == Accuracy(1, 1, 1.0)
    assert WITH_SYMBOLS.score(["x", "A"], ["?!", "A"]).words == 2


def test_usual_protocol_is_the_library_s() -> None:
    for text in ("Joe's CAFÉ, 24h!", "İstanbul", "ſ", "a b"):
        assert CASE_INSENSITIVE.reduce(text) == normalise(text)


@pytest.mark.parametrize(
    ("reading", "label", "changes"),
    [
        ("abc", "abc", []),
        ("a0c", "aoc", [("o", "0")]),
        ("ac", "abc", [("b", "")]),
        ("abbc", "abc", [("", "b")]),
        ("rn", "m", [("", "r"), ("m", "n")]),
        ("", "ab", [("a", ""), ("b", "")]),
    ],
)
def test_alignment(reading: str, label: str, changes: list[tuple[str, str]]) -> None:
    pairs = align(reading, label)
    assert [pair for pair in pairs if pair.label != pair.read] == changes
    assert len(changes) == edit_distance(reading, label)
    assert "".join(pair.label for pair in pairs) == label
    assert "".join(pair.read for pair in pairs) == reading


def test_confusions_are_counted() -> None:
    counts = count_confusions(["c0de", "t0p", "cod", "x"], ["code", "top", "code", "x"])
    assert counts == Counter({Confusion("o", "0"): 2, Confusion("e", ""): 1})


def test_set_is_read_in_batches_and_scored(tmp_path: Path) -> None:
    crops = FolderSet(make_folder(tmp_path / "f", ["One", "Two", "!?", "Four", "Five"]))
    (tmp_path / "f" / "images" / "4.png").write_bytes(b"no picture")
    result = read_set(crops, reader("one", "twx", "", "Four"), batch_size=3)
    row = result.row()
    assert [row["words"], row["accuracy"]] == [3, 2 / 3]
    assert row["edit_similarity"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert [row["protocols"][name]["correct"] for name in ("36", "62", "90")] == [2, 1, 1]
    assert row["protocols"]["90"]["words"] == 4
    assert list(row["skipped"].values()) == [1]
    assert confusion_rows([result], 5) == [{"label": "o", "read": "x", "count": 1}]


def test_means_weigh_sets_or_words(tmp_path: Path) -> None:
    rows = [
        read_set(FolderSet(make_folder(tmp_path / str(n), ["a"] * n + ["b"])), reader(*"aaaa"), batch_size=8).row()
        for n in (3, 1)
    ]
    rows.append(read_set(FolderSet(make_folder(tmp_path / "none", ["?"])), reader("a"), batch_size=8).row())
    assert mean_row(rows)["accuracy"]["36"] == (3 / 4 + 1 / 2) / 2
    assert mean_row(rows, weighted=True)["accuracy"]["36"] == (3 + 1) / (4 + 2)
    assert mean_row(rows)["accuracy"]["90"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)


def test_worst_words_come_first(tmp_path: Path) -> None:
    crops = FolderSet(make_folder(tmp_path / "f", ["right", "near", "far", "far", "?!"]))
    result = read_set(crops, reader("Right!", "neat", "xyz", "xyz", "x"), batch_size=8)
    assert [word.number for _, word in worst_words([result], 9)] == [3, 2, 1]
    assert len(worst_words([result], 2)) == 2


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The program, in this process: status, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        status = main()
        return status, *capsys.readouterr()

    return call


def test_folder_and_lmdb_of_it_score_the_same(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    crops = open_crop_set(DEMO)
    write_lmdb(tmp_path / "demo.lmdb", [(crops.data(i), crops.label(i)) for i in range(len(crops))])
    reports = []
    for model in ("edge.onnx", "edge.safetensors"):
        status, out, _ = run(MODELS / model, DEMO, tmp_path / "demo.lmdb", "--json", "--confusions", 3)
        assert status == 0
        reports.append(json.loads(out))
        folder, packed = reports[-1]["sets"].values()
        assert folder == packed
        assert folder["words"] == 12
        assert reports[-1]["mean"] == reports[-1]["weighted_mean"]
    assert reports[0]["sets"] == reports[1]["sets"]
    assert reports[0]["confusions"] == reports[1]["confusions"]


def test_tables_and_sheet(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["label/of\\one", "x", "..", "o"])
    (folder / "images" / "1.png").unlink()
    sheet = tmp_path / "sheet.png"
    status, out, error = run(MODELS / "edge.onnx", folder, DEMO, "--sheet", sheet, "--confusions", 2)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["set", str(folder), str(DEMO)]
    assert out.splitlines()[3].startswith("mean of sets")
    assert "written" in out
    assert error == f"{folder}: 1 left out: picture: no such file or directory\n"
    assert np.ptp(load_image(sheet)) > 0
    again = run(MODELS / "edge.onnx", folder, "--sheet", sheet)
    assert again[0] == 1
    assert "--force" in again[2]


def test_all_right_draws_no_sheet(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    shutil.copy(ROOT / "calib_data" / "demo" / "01.jpg", folder)
    (folder / "labels.tsv").write_text("01.jpg\tEXIT\n")
    status, _, error = run(MODELS / "edge.onnx", folder, "--sheet", tmp_path / "sheet.png")
    assert status == 0
    assert "every word is right" in error
    assert not (tmp_path / "sheet.png").exists()


def test_sets_without_alphanumeric_labels_are_scored_as_they_are() -> None:
    words = [ReadCrop(0, "где", Reading("где", 1.0)), ReadCrop(1, "€", Reading("$", 1.0))]
    result = SetResult(FolderSet(Path("f"), []), words, Counter())
    row = result.row()
    assert (result.usual, row["words"], row["accuracy"]) == (EXACT, 2, 0.5)
    assert row["protocols"]["36"]["words"] == 0
