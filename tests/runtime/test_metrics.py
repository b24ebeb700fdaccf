"""Accuracy and edit distance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner.metrics import Accuracy, edit_distance, normalise, normalised_edit_distance, score_words


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == distance


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert 0 <= normalised_edit_distance(a, b) <= 1


def test_protocol_ignores_case_and_punctuation() -> None:
    assert normalise("Joe's CAFÉ, 24h!") == "joescaf24h"


def test_score_words() -> None:
    accuracy = score_words(["Sale", "exlt", "x"], ["SALE!", "exit", "?!"])  # the last label is empty and left out
    assert accuracy == Accuracy(words=2, correct=1, edit_similarity=(1 + 0.75) / 2)
    assert accuracy.rate == 0.5


def test_exact_comparison() -> None:
    assert score_words(["Sale", "?!"], ["SALE", "?!"], exact=True).correct == 1


def test_no_words() -> None:
    assert score_words([], []).rate == 0.0


def test_counts_must_agree() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        score_words(["a"], [])
