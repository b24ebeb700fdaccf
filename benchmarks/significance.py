"""What a difference of accuracies is worth: intervals, and a test of two readers on the same words."""

from collections.abc import Sequence
from math import comb, sqrt

_Z95 = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


def wilson_interval(correct: int, words: int) -> tuple[float, float]:
    """The 95 % interval of a rate. Unlike the textbook's plus-minus it also holds near 0 and 1.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if not words:
        return 0.0, 1.0
    rate, z2 = correct / words, _Z95**2
    centre = (rate + z2 / (2 * words)) / (1 + z2 / words)
    spread = _Z95 / (1 + z2 / words) * sqrt(rate * (1 - rate) / words + z2 / (4 * words**2))
    return max(0.0, centre - spread), min(1.0, centre + spread)


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact, two-sided test: were both readers equally good, how likely is a split at least this uneven?

    The split is that of the words that only one of the two has right. Near 1 there is no sign of a difference; below
    0.05 is commonly taken for one.
    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions, 1947.
    """
    split = only_first + only_second
    tail: float = sum(comb(split, k) for k in range(min(only_first, only_second) + 1)) / 2**split
    return min(1.0, 2 * tail)


def compare_words(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """Two readers on the same words, JSON-ready: what one alone has right, the difference in points, and the test."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    points = 100 * (only_second - only_first) / max(1, len(first))
    test = mcnemar(only_first, only_second)
    return {"only_first": only_first, "only_second": only_second, "points": round(points, 2), "p": round(test, 4)}
