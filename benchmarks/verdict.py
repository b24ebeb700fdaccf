"""How one reader did on one set of words."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.significance import wilson_interval
from robustscanner.metrics import normalise, score_words


@dataclass(frozen=True)
class Verdict:
    """Readings compared with labels by the usual protocol; labels without [0-9a-z] do not count."""

    readings: Sequence[str]
    labels: Sequence[str]

    @property
    def right(self) -> list[bool]:
        """Of each word that counts, whether it was read without a mistake."""
        pairs = [(normalise(r), normalise(w)) for r, w in zip(self.readings, self.labels, strict=True)]
        return [reading == label for reading, label in pairs if label]

    def row(self) -> dict[str, float]:
        """Accuracy with its 95 % interval, JSON-ready."""
        score = score_words(self.readings, self.labels)
        low, high = wilson_interval(score.correct, score.words)
        rates = {"accuracy": score.rate, "low": low, "high": high, "edit_similarity": score.edit_similarity}
        return {"words": score.words, "correct": score.correct} | {name: round(rate, 4) for name, rate in rates.items()}


def describe_row(row: dict[str, float]) -> str:
    """For people, in percent."""
    return f"{100 * row['accuracy']:5.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f})"
