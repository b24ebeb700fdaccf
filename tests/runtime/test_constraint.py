"""What a text may be: no other one is read, whatever the picture."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from robustscanner import Constraint, ConstraintError, Recognizer
from robustscanner.charset import Charset
from robustscanner.recognize import main
from robustscanner.spec import CharsetSpec, ModelSpec, NetworkSpec
from tests.convert.conftest import TINY

SPEC = ModelSpec("m", CharsetSpec.of("ab1."), network=NetworkSpec("edge", max_length=6))
PATTERNS = [
    r"a",
    r"[ab]{2}1",
    r"\d{1,3}",
    r"(ab|a1|b)?\.",
    r"a*b+",
    r"[^a]{2,}",
    r"(a|b1){2,4}",
    r"a?a?a?",
    r"^ab$",
    "",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [None, 2, (1, 3)])
def test_takes_what_the_pattern_takes(pattern: str, length: int | tuple[int, int] | None) -> None:
    charset, constraint = Charset(SPEC.charset), Constraint(pattern=pattern, length=length)
    texts = ["".join(text) for size in range(6) for text in product("ab1.", repeat=size)]
    fits = [t for t in texts if re.fullmatch(pattern, t) and constraint.lengths[0] <= len(t) <= constraint.lengths[1]]
    if not fits:
        with pytest.raises(ConstraintError, match="no text of at most 5"):
            constraint.automaton(SPEC)
        return
    automaton = constraint.automaton(SPEC)
    assert [text for text in texts if automaton.accepts(charset.encode(text))] == fits
    for text in fits:  # each of its beginnings is one that can go on, and no other is
        assert automaton.known(charset.encode(text)) == len(text)
    beginnings = {text[:size] for text in fits for size in range(len(text) + 1)}
    assert {t for t in texts if automaton.known(charset.encode(t)) == len(t)} == beginnings


def test_after_a_beginning_the_next_step_is_exact() -> None:
    charset, automaton = Charset(SPEC.charset), Constraint(pattern="ab|1.").automaton(SPEC)
    end = SPEC.charset.end_id
    first, second = automaton.mask()[:2]
    assert set(np.flatnonzero(first == 0)) == set(charset.encode("a1"))
    assert set(np.flatnonzero(second == 0)) == set(charset.encode("ab1."))  # after any beginning
    assert np.flatnonzero(automaton.mask(charset.encode("a"))[1] == 0).tolist() == charset.encode("b")
    assert np.flatnonzero(automaton.mask(charset.encode("ab"))[2] == 0).tolist() == [end]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pattern": "("}, "is no pattern"),
        ({"pattern": r"(a)\1"}, "cannot hold groupref"),
        ({"pattern": "a(?=b)"}, "cannot hold assert"),
        ({"characters": "z-a"}, "is no pattern"),
        ({"characters": "a](b)"}, "has to stand first"),
        ({"length": (5, 3)}, "length is"),
        ({"length": -1}, "length is"),
        ({"pattern": "(a{100}){300}"}, "too large"),
    ],
)
def test_nonsense_is_refused_in_one_line(given: dict, message: str) -> None:
    with pytest.raises(ConstraintError, match=message) as caught:
        Constraint(**given)
    assert "\n" not in str(caught.value)


def test_characters_that_no_model_has_are_refused() -> None:
    with pytest.raises(ConstraintError, match="reads none of them"):
        Constraint("éè").automaton(SPEC)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(TINY)


def noise(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 30, count)
    return [rng.integers(0, 256, (6, size, 3), np.uint8).repeat(8, 0).repeat(8, 1) for size in sizes]


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("0-9"),
        Constraint(pattern=r"[A-Z]{2}\d{2}[A-Z]{3}"),
        Constraint(pattern=r"(cat|doge|sam)s?"),
        Constraint(pattern=r"\d{1,5}([.,]\d\d)?"),
        Constraint("A-Za-z", length=(5, 8)),
        Constraint(pattern="(ab|ba)+", length=6),
    ],
    ids=str,
)
def test_noise_never_gives_another_text(recognizer: Recognizer, constraint: Constraint) -> None:
    characters, (fewest, most) = re.compile(f"[{constraint.characters or '!-~'}]*"), constraint.lengths
    for reading in recognizer.read_batch(noise(60, 1), constraint=constraint):
        assert re.fullmatch(constraint.pattern or ".*", reading.text)
        assert characters.fullmatch(reading.text)
        assert fewest <= len(reading.text) <= most


def test_what_is_read_anyway_stays_and_keeps_its_score(recognizer: Recognizer) -> None:
    longest = recognizer.spec.network.max_length - 1  # what has an end
    pairs = [(picture, recognizer.read(picture)) for picture in noise(20, 2)]
    pictures, free = zip(*(pair for pair in pairs if len(pair[1].text) <= longest), strict=True)
    assert recognizer.read_batch(pictures, constraint=Constraint(pattern=".*")) == list(free)
    for picture, reading in zip(pictures, free, strict=True):
        exactly = Constraint(pattern=re.escape(reading.text))
        assert recognizer.read(picture, constraint=exactly).score == pytest.approx(reading.score, abs=1e-6)


def test_the_score_says_how_much_was_forced(recognizer: Recognizer) -> None:
    """Probabilities are among all tokens, so what nobody would have read scores low."""
    pictures = noise(20, 3)
    free, forced = (recognizer.read_batch(pictures, constraint=c) for c in (None, Constraint(pattern="[xyz]{7}")))
    assert all(f.score < 0.01 * g.score for f, g in zip(forced, free, strict=True))


def test_a_recogniser_can_keep_one(tmp_path: Path) -> None:
    with Recognizer(TINY, constraint=Constraint("0-9", length=3)) as digits:
        picture = noise(1, 4)[0]
        assert re.fullmatch(r"\d{3}", digits.read(picture).text)
        assert re.fullmatch(r"[a-f]{2}", digits.read(picture, constraint=Constraint("a-f", length=2)).text)


def test_an_engine_without_says_how_to_get_one(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognizer._session, "can_constrain", False)
    with pytest.raises(ConstraintError, match="build it again"):
        recognizer.read(noise(1, 5)[0], constraint=Constraint("0-9"))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(noise(1, 6)[0]).save(tmp_path / "a.png")
    picture = str(tmp_path / "a.png")
    assert main([picture, "--engine", str(TINY), "--pattern", r"[A-Z]\d", "--characters", "A-C0-3"]) == 0
    assert re.search(r"\t[A-C][0-3]\t", capsys.readouterr().out)
    assert main([picture, "--engine", str(TINY), "--length", "2-3", "--characters", "z"]) == 0
    assert re.search(r"\tzzz?\t", capsys.readouterr().out)
    assert main([picture, "--engine", str(TINY), "--pattern", "("]) == 1
    assert capsys.readouterr().err.startswith("error: '(' is no pattern")
    with pytest.raises(SystemExit):
        main([picture, "--length", "a"])
