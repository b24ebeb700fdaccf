"""Intervals and tests against values from tables."""

import pytest

from benchmarks.significance import compare_words, mcnemar, wilson_interval


@pytest.mark.parametrize(
    ("correct", "words", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)]
)
def test_wilson_interval(correct: int, words: int, low: float, high: float) -> None:
    assert wilson_interval(correct, words) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_nothing_is_known_of_no_words() -> None:
    assert wilson_interval(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1), (5, 5, 1), (0, 6, 2 / 64), (6, 0, 2 / 64), (1, 9, 22 / 1024)]
)
def test_mcnemar(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)


def test_words_that_one_alone_has_right() -> None:
    row = compare_words([True, True, False, False], [True, False, True, True])
    assert row == {"only_first": 1, "only_second": 2, "points": 25.0, "p": 1.0}
