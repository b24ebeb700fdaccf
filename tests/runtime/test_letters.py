"""Letters: where they stand, how likely they are, what else they might be; and who cannot say."""

import csv
import json
import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw, ImageFont

from robustscanner import Recognizer
from robustscanner.errors import ConstraintError
from robustscanner.letters import COLUMN_PX, centres, forced
from robustscanner.recognize import main
from robustscanner.spec import CharsetSpec, ModelSpec

ROOT = Path(__file__).parents[2]

LSTM = ROOT / "tests/models/edge-lstm.onnx"  # without CTC, and exported before letters came


def drawn(text: str, size_px: int = 40, margin_px: int = 9) -> tuple[np.ndarray, list[float]]:
    """A word on a light ground, and the centres of its letters in pixels."""
    font = ImageFont.load_default(size_px)
    image = Image.new("RGB", (round(font.getlength(text)) + 2 * margin_px, round(1.5 * size_px)), (230, 232, 228))
    ImageDraw.Draw(image).text((margin_px, 4), text, (20, 30, 60), font)
    edges = [margin_px + font.getlength(text[:end]) for end in range(len(text) + 1)]
    return np.asarray(image), [(left + right) / 2 for left, right in pairwise(edges)]


def seen(*columns: int | None, classes: int = 4) -> np.ndarray:
    """What CTC sees where it is sure: a letter's id or a blank in each column, and the row that ends the word."""
    rows = np.zeros((len(columns) + 1, classes), np.float32)
    for row, id_ in zip(rows, columns, strict=False):
        if id_ is not None:
            row[id_] = 1
    return rows


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer()


def test_centres_are_where_ctc_sees_letters() -> None:
    found = centres(seen(None, 0, None, None, 1, 1, None), [0, 1])
    assert found == pytest.approx([1.5 * COLUMN_PX, 5 * COLUMN_PX], abs=0.01)


def test_a_doubled_letter_is_two_with_a_blank_between() -> None:
    assert centres(seen(2, None, 2), [2, 2]) == pytest.approx([0.5 * COLUMN_PX, 2.5 * COLUMN_PX], abs=0.01)


def test_a_letter_that_ctc_does_not_see_stands_between_its_neighbours() -> None:
    (before, unseen, after) = centres(seen(0, None, None, None, 1), [0, 3, 1])
    assert before < unseen < after


@pytest.mark.parametrize("text", ["Lamp", "1004", "EXIT", "moon", "Harbour27"])
def test_letters_stand_where_they_were_drawn(recognizer: Recognizer, text: str) -> None:
    picture, middles = drawn(text)
    letters = recognizer.letters(picture, text)
    assert "".join(letter.text for letter in letters) == text
    width = picture.shape[1] / len(text)
    assert [letter.centre for letter in letters] == pytest.approx(middles, abs=width / 2)
    edges = [letter.left for letter in letters] + [letters[-1].right]
    assert edges == sorted(edges)
    assert 0 <= edges[0] <= edges[-1] <= picture.shape[1]


def test_places_are_pixels_of_the_picture(recognizer: Recognizer) -> None:
    picture, _ = drawn("EXIT")
    twice = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    small, large = (np.array([x.centre for x in recognizer.letters(p, "EXIT")]) for p in (picture, twice))
    assert large == pytest.approx(2 * small, rel=0.03)


def test_a_text_that_just_fits_has_places(recognizer: Recognizer) -> None:
    letters = recognizer.letters(drawn("I")[0], "IIO")
    assert [letter.centre for letter in letters] == sorted(letter.centre for letter in letters)


def test_probabilities_are_the_score(recognizer: Recognizer) -> None:
    picture, _ = drawn("Lamp")
    reading = recognizer.read(picture)
    letters = recognizer.letters(picture, reading.text)
    assert reading.score <= math.prod(letter.probability for letter in letters) * 1.0001  # the end counts as well
    for letter in letters:
        assert len(letter.others) == 2
        assert letter.text not in dict(letter.others)
        assert letter.probability + sum(chance for _, chance in letter.others) <= 1.0001


def test_another_text_is_less_likely_and_says_what_it_should_be(recognizer: Recognizer) -> None:
    picture, _ = drawn("EXIT")
    wrong = recognizer.letters(picture, "EX1T")[2]
    assert wrong.probability < 0.5
    assert wrong.others[0][0] == "I"


def test_a_word_that_is_longer_is_told_by_its_end(recognizer: Recognizer) -> None:
    picture, _ = drawn("EXIT")
    assert recognizer.letters(picture, "EXITS")[4].others[0][0] == ""


def test_no_text_has_no_letters(recognizer: Recognizer) -> None:
    assert recognizer.letters(drawn("EXIT")[0], "") == ()


@pytest.mark.parametrize("text", ["IO" * 15, "I" * 30, "IIOOIIOO"])
def test_letters_without_a_column_of_their_own_have_no_place(recognizer: Recognizer, text: str) -> None:
    """Two equal ones need another column between them."""
    letters = recognizer.letters(drawn("I")[0], text)
    assert {(letter.left, letter.centre, letter.right) for letter in letters} == {(None, None, None)}


@pytest.mark.parametrize(("text", "cause"), [("Ж", "does not read"), ("a" * 41, "longer than the 40 characters")])
def test_a_text_that_cannot_be_written_is_refused(recognizer: Recognizer, text: str, cause: str) -> None:
    with pytest.raises(ConstraintError, match=cause):
        recognizer.letters(drawn("EXIT")[0], text)


@pytest.mark.parametrize("characters", ["0123456789", "0123456789<UKN>"])
def test_a_character_that_the_model_lacks_is_one_letter(characters: str) -> None:
    """As readings write it, also where the model could write the token's own letters."""
    spec = ModelSpec("digits", charset=CharsetSpec.of(characters))
    unknown = spec.charset.unknown_id
    ids, mask = forced("1<UKN>2<UKN>", spec)
    assert ids == [1, unknown, 2, unknown]
    assert [int(row.argmax()) for row in mask[:5]] == [*ids, spec.charset.end_id]
    with pytest.raises(ConstraintError, match="'1a' holds 'a'"):
        forced("<UKN>1a", spec)


def test_older_exports_say_what_to_do() -> None:
    with Recognizer(LSTM) as old, pytest.raises(ConstraintError, match="older than letters; export"):
        old.letters(drawn("EXIT")[0], "EXIT")


def test_engines_for_the_cpu_keep_them(recognizer: Recognizer, tmp_path: Path) -> None:
    from convert.engine.cpu.graph import for_cpu
    from convert.graph.model_file import load_model

    model, spec = load_model(ROOT / "runtime/robustscanner/models/edge.onnx")[:2]
    onnx.save(for_cpu(model, spec), tmp_path / "edge.onnx")
    picture, middles = drawn("EXIT")
    with Recognizer(tmp_path / "edge.onnx") as edge:
        assert [x.centre for x in edge.letters(picture, "EXIT")] == pytest.approx(middles, abs=picture.shape[1] / 8)


# --- The program


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "sign.png"
    cv2.imwrite(str(path), drawn("EXIT")[0][..., ::-1])
    return str(path)


def test_program_writes_json(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--letters", "--json", picture]) == 0
    record = json.loads(capsys.readouterr().out)
    assert "".join(letter["text"] for letter in record["letters"]) == record["text"] == "EXIT"
    assert set(record["letters"][0]) == {"text", "probability", "others", "left", "centre", "right"}


def test_program_writes_csv(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--letters", "--csv", picture]) == 0
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["path", "text", "score", "letters"]
    assert [letter["text"] for letter in json.loads(row[3])] == list("EXIT")


def test_program_draws_them(picture: str, tmp_path: Path) -> None:
    plain, with_letters = tmp_path / "plain.png", tmp_path / "letters.png"
    assert main(["--sheet", str(plain), picture]) == 0
    assert main(["--letters", "--sheet", str(with_letters), picture]) == 0
    before, after = (cv2.imread(str(path)).astype(int) for path in (plain, with_letters))
    changed = np.flatnonzero(np.abs(before - after).sum(-1).any(0))
    assert len(changed) > 50  # columns: most of the word's


@pytest.mark.parametrize("arguments", [["--letters"], ["--letters", "--detect"]])
def test_program_says_what_they_need(arguments: list[str], picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, picture])
    assert "--letters" in capsys.readouterr().err
