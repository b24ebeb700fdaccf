"""Which characters are taken for which."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Confusion(NamedTuple):
    """A character of a label and what was read in its place."""

    label: str  # "" when something was read where nothing is
    read: str  # "" when it was missed


def align(reading: str, label: str) -> list[Confusion]:
    """Pairs the characters of two texts with the fewest changes, exchanges preferred."""
    costs = _costs(reading, label)
    pairs, i, j = [], len(reading), len(label)
    while i or j:
        if i and j and costs[i][j] == costs[i - 1][j - 1] + (reading[i - 1] != label[j - 1]):
            i, j = i - 1, j - 1
            pairs.append(Confusion(label[j], reading[i]))
        elif i and costs[i][j] == costs[i - 1][j] + 1:
            i -= 1
            pairs.append(Confusion("", reading[i]))
        else:
            j -= 1
            pairs.append(Confusion(label[j], ""))
    return pairs[::-1]


def _costs(a: str, b: str) -> list[list[int]]:
    """Edit distances of all beginnings: [len(a) + 1][len(b) + 1]."""
    rows = [list(range(len(b) + 1))]
    for i, char_a in enumerate(a, 1):
        above, row = rows[-1], [i]
        for j, char_b in enumerate(b, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (char_a != char_b)))
        rows.append(row)
    return rows


def count_confusions(readings: Iterable[str], labels: Iterable[str]) -> Counter[Confusion]:
    """How often each wrong pair occurs, over all pairs of texts."""
    return Counter(
        pair
        for reading, label in zip(readings, labels, strict=True)
        if reading != label
        for pair in align(reading, label)
        if pair.label != pair.read
    )
