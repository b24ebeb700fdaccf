"""The best word of a list: as if every word were tried, and what is no list."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustscanner import Constraint, Recognizer
from robustscanner.errors import ConstraintError
from robustscanner.recognize import main
from robustscanner.recognizer import WordReading
from robustscanner.words import MOST_RUNS, MOST_WORDS, WordList
from tests.runtime.test_constraint import TINY, noise

EDGE = Path(__file__).parents[2] / "runtime/robustscanner/models/edge.onnx"


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(TINY)


@pytest.fixture(params=["tells", "does not tell"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recognizer:
    """With an engine that tells all probabilities, and as if it did not."""
    found = Recognizer(EDGE)
    if request.param == "does not tell":
        monkeypatch.setattr(found._session, "tell", lambda *_: None)
    return found


def words(recognizer: Recognizer, count: int, seed: int) -> list[str]:
    """Short ones, which share beginnings and are beginnings of one another."""
    rng = np.random.default_rng(seed)
    letters = list("abe1")
    return sorted({"".join(rng.choice(letters, rng.integers(1, 5))) for _ in range(count)})


def probability(recognizer: Recognizer, picture: np.ndarray, word: str) -> float:
    return recognizer.read(picture, constraint=Constraint(pattern=word)).score


@pytest.mark.parametrize("seed", range(4))
def test_is_the_best_of_all_words(recognizer: Recognizer, seed: int) -> None:
    listed = words(recognizer, 40, seed)
    for picture in noise(4, seed):
        found = recognizer.read(picture, constraint=WordList(listed))
        assert isinstance(found, WordReading)
        assert found.free == recognizer.read(picture)
        scores = sorted(((probability(recognizer, picture, word), word) for word in listed), reverse=True)
        assert found.score == pytest.approx(scores[0][0], rel=1e-4)
        assert found.text == scores[0][1]
        assert found.others >= scores[1][0] * (1 - 1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_is_the_best_of_all_words_under_ctc(either: Recognizer, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some words end where others go on, and one is read freely; with as many runs as it takes."""
    monkeypatch.setattr("robustscanner.words.MOST_RUNS", 1000)
    picture = noise(1, seed)[0]
    free = either.read(picture).text[:6]
    listed = sorted({*words(either, 20, seed), free + "x", free[:-1], "x" + free} - {""})
    found = either.read(picture, constraint=WordList(listed))
    assert isinstance(found, WordReading)
    scores = sorted(((probability(either, picture, re.escape(word)), word) for word in listed), reverse=True)
    assert (found.text, found.score) == (scores[0][1], pytest.approx(scores[0][0], rel=2e-3))
    assert found.others >= scores[1][0] * (1 - 2e-3)


def test_where_nothing_can_be_read_the_search_ends(either: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    for name in ("run", "tell"):
        monkeypatch.setattr(either._session, name, counted(getattr(either._session, name), runs))
    listed = words(either, 400, 3)
    found = either.read(noise(1, 3)[0], constraint=WordList(listed))
    assert isinstance(found, WordReading)
    assert found.text in listed
    assert len(runs) <= 2 * (MOST_RUNS + 2)  # an engine that does not tell is asked for that, too


def counted(call: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def counting(*given: Any) -> Any:
        calls.append(1)
        return call(*given)

    return counting


def test_what_is_read_freely_needs_no_further_run(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ((picture, recognizer.read(picture)) for picture in noise(60, 5))
    picture, free = next(pair for pair in read if 0 < len(pair[1].text) < recognizer.spec.network.max_length)
    run, runs = recognizer._session.run, []
    monkeypatch.setattr(recognizer._session, "run", lambda *given: runs.append(given) or run(*given))
    found = recognizer.read(picture, constraint=WordList([free.text]))
    assert (found.text, found.score) == (free.text, pytest.approx(free.score))
    assert len(runs) == 1


def test_batches_are_read_as_their_pictures_are(recognizer: Recognizer) -> None:
    listed = WordList(words(recognizer, 30, 9))
    pictures = noise(5, 9)
    together = recognizer.read_batch(pictures, constraint=listed)
    assert [reading.text for reading in together] == [recognizer.read(p, constraint=listed).text for p in pictures]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "0 words"),
        (["", ""], "0 words"),
        ([str(n) for n in range(MOST_WORDS + 1)], "100001 words; give from 1 to 100,000"),
        (["a", "straße"], "'straße' holds 'ß', which this model does not read"),
        (["a" * 40], "is longer than the"),
    ],
)
def test_what_is_no_list_is_told(recognizer: Recognizer, given: list[str], message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        recognizer.read(noise(1, 1)[0], constraint=WordList(given))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(noise(1, 6)[0]).save(tmp_path / "a.png")
    (tmp_path / "words.txt").write_text("\ufeffcab\r\n\nbad\nace\n", encoding="utf-8")
    command = [str(tmp_path / "a.png"), "--engine", str(TINY), "--words", str(tmp_path / "words.txt")]
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["text"] in ("cab", "bad", "ace")
    assert {"score", "others", "free", "free_score"} < set(record)
    assert main([*command[:-1], str(tmp_path / "none.txt")]) == 1
    assert "none.txt: No such file or directory; give one word a line" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--length", "3"])
