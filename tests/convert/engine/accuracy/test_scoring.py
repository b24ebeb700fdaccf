"""What counts when words are scored, and what is said where nothing does."""

import pytest

from convert.engine.accuracy.gate import GateOptions
from robustscanner.engine import EngineAccuracy
from robustscanner.errors import EngineError
from robustscanner.scoring import AUTO, PROTOCOLS, Scorer, choose_protocol
from robustscanner.spec import CharsetSpec, ModelSpec

LATIN = ModelSpec("latin")
CYRILLIC = ModelSpec("cyrillic", CharsetSpec.of("абвгдеАБВГДЕ.,€"))


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (["Exit", "OPEN"], "exact"),
        (["EXIT", "OPEN"], "ignore-case"),
        (["exit", "open"], "ignore-case"),
        (["12.34", "5"], "ignore-case"),
        (["Где", "вбд"], "exact"),
    ],
)
def test_auto_follows_the_labels(labels: list[str], name: str) -> None:
    assert choose_protocol(AUTO, labels).name == name
    assert all(choose_protocol(given, labels).name == given for given in PROTOCOLS)


@pytest.mark.parametrize(
    ("spec", "reading", "label", "right"),
    [
        (CYRILLIC, "где", "где", True),
        (CYRILLIC, "вде", "где", False),
        (LATIN, "12.34", "12.34", True),
        (LATIN, "12.34", "1234", False),  # a decimal point counts
        (LATIN, "$5", "5", False),
        (LATIN, "Joe's", "Joe’s", True),  # a model without the typographic quote cannot say it otherwise
        (LATIN, "Exit", "exit", False),
    ],
)
def test_every_character_counts(spec: ModelSpec, reading: str, label: str, right: bool) -> None:
    accuracy = Scorer.of(spec, [label, "Aa"]).score([reading, "Aa"])
    assert (accuracy.words, accuracy.correct) == (2, 1 + right)


def test_the_published_protocol_is_one_of_them() -> None:
    accuracy = Scorer.of(LATIN, ["Exit!", "1234", "€€"], "alphanumeric").score(["exit", "12.34", "x"])
    assert (accuracy.words, accuracy.correct) == (2, 2)


@pytest.mark.parametrize(
    ("spec", "labels", "protocol", "words", "says"),
    [
        (
            CYRILLIC,
            ["где", "да"],
            "alphanumeric",
            0,
            "none of 2 labels has a character that counts by --protocol alpha",
        ),
        (
            LATIN,
            ["где", "exit"],
            "exact",
            2,
            r"1 labels hold characters that the model lacks: 'г' \(U\+0433\), as in 'где'",
        ),
        (LATIN, ["1234"], "exact", 1, "reads none of 1 words as the labels have them; the first is '1234'"),
    ],
)
def test_a_gate_with_nothing_to_measure_fails(
    spec: ModelSpec, labels: list[str], protocol: str, words: int, says: str
) -> None:
    gate, scorer = GateOptions(0.0), Scorer.of(spec, labels, protocol)
    with pytest.raises(EngineError, match=f"--max-drop 0: nothing to measure: .*{says}"):
        gate.check_measured(EngineAccuracy(words, 0.0, 0.0, 1.0), scorer)
    gate.check_measured(EngineAccuracy(2, 0.5, 0.5, 1.0), scorer)


def test_a_saturating_cpu_is_named() -> None:
    with pytest.raises(EngineError, match=r"saturate with 8-bit weights: take --reduce-range"):
        GateOptions(0.3).check(EngineAccuracy(1000, 0.762, 0.734, 0.9), "int8", saturates=True)
