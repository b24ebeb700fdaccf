"""How well words were read: accuracy and edit distance."""

import string
from collections.abc import Iterable
from dataclasses import dataclass

_COUNTED = frozenset(string.digits + string.ascii_lowercase)


@dataclass(frozen=True)
class Accuracy:
    """Score of a set of words."""

    words: int  # that have a label to compare with
    correct: int  # read without any mistake
    edit_similarity: float  # mean of 1 - normalised edit distance, 0…1

    @property
    def rate(self) -> float:
        """Share of correct words, 0…1; 0 when there are none."""
        return self.correct / self.words if self.words else 0.0


def normalise(text: str) -> str:
    """The usual protocol of scene text benchmarks: case-insensitive, and only [0-9a-z] count."""
    return "".join(c for c in text.lower() if c in _COUNTED)


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions that turn one text into the other."""
    row = list(range(len(b) + 1))
    for i, char_a in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, char_b in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char_a != char_b))
    return row[-1]


def normalised_edit_distance(a: str, b: str) -> float:
    """Edit distance over the longer length: 0 when equal (two empty texts as well), 1 when nothing fits."""
    return edit_distance(a, b) / max(len(a), len(b), 1)


def score_words(readings: Iterable[str], labels: Iterable[str], *, exact: bool = False) -> Accuracy:
    """Compares readings with labels, pair by pair.

    Args:
        readings: what was read.
        labels: what is written there; a label that is empty in the compared form is left out.
        exact: compares the texts as they are (case, punctuation), instead of their `normalise`d forms.

    Raises:
        ValueError: not as many readings as labels.
    """
    pairs = [(r, w) if exact else (normalise(r), normalise(w)) for r, w in zip(readings, labels, strict=True)]
    pairs = [(reading, label) for reading, label in pairs if label]
    correct = sum(reading == label for reading, label in pairs)
    similarity = sum(1 - normalised_edit_distance(reading, label) for reading, label in pairs)
    return Accuracy(len(pairs), correct, similarity / len(pairs) if pairs else 0.0)
