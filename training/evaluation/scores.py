"""Reads sets of labelled crops and scores what was read."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

from robustscanner.metrics import normalised_edit_distance
from robustscanner.preprocess import Image
from robustscanner.recognizer import Reading
from training.data.record import CropSet, Skipped, good_records
from training.evaluation.confusion import count_confusions
from training.evaluation.protocols import CASE_INSENSITIVE, EXACT, PROTOCOLS, Protocol

Reader = Callable[[Sequence[Image]], list[Reading]]  # pictures to readings, whatever the model
Row = dict[str, Any]  # figures, JSON-ready


class ReadCrop(NamedTuple):
    """One crop and what was read in it."""

    number: int  # in its set
    label: str
    reading: Reading


@dataclass(frozen=True)
class SetResult:
    """How one set was read."""

    crops: CropSet
    words: list[ReadCrop]
    skipped: Skipped  # records that could not be used

    @property
    def usual(self) -> Protocol:
        """The protocol of published tables, or all characters where its own occur in no label (Cyrillic, prices)."""
        counted = any(map(CASE_INSENSITIVE.reduce, (word.label for word in self.words)))
        return CASE_INSENSITIVE if counted or not self.words else EXACT

    def row(self) -> Row:
        """The set's figures; those outside `protocols` are of the usual one."""
        readings, labels = [word.reading.text for word in self.words], [word.label for word in self.words]
        accuracies = {protocol.name: protocol.score(readings, labels) for protocol in PROTOCOLS}
        usual = accuracies[self.usual.name]
        return {
            "words": usual.words,
            "accuracy": usual.rate,
            "edit_similarity": usual.edit_similarity,
            "protocols": {name: {**asdict(a), "accuracy": a.rate} for name, a in accuracies.items()},
            "skipped": {reason: count for (_, reason), count in self.skipped.items()},
        }


def read_set(crops: CropSet, read: Reader, *, batch_size: int) -> SetResult:
    """Reads a set, a batch of pictures at a time."""
    result = SetResult(crops, [], Counter())
    records = good_records(crops, result.skipped)
    while chunk := list(islice(records, batch_size)):
        readings = read([image for *_, image in chunk])
        result.words.extend(ReadCrop(i, label, r) for (i, label, *_), r in zip(chunk, readings, strict=True))
    return result


def mean_row(rows: Sequence[Row], *, weighted: bool = False) -> Row:
    """Accuracy under each protocol and edit similarity over sets, which weigh the same or as much as their words.

    Sets without a word that counts have no say.
    """

    def mean(figures: Sequence[Row], key: str) -> float:
        weights = [row["words"] if weighted else int(row["words"] > 0) for row in figures]
        total: float = sum(weight * row[key] for weight, row in zip(weights, figures, strict=True))
        return total / max(1, sum(weights))

    accuracy = {p.name: mean([row["protocols"][p.name] for row in rows], "accuracy") for p in PROTOCOLS}
    return {"accuracy": accuracy, "edit_similarity": mean(rows, "edit_similarity")}


def confusion_rows(results: Sequence[SetResult], count: int) -> list[Row]:
    """The most frequent confusions of all sets, under the usual protocol."""
    pairs = [(read, label) for result in results for _, read, label in _reduced(result) if label]
    counts = count_confusions([read for read, _ in pairs], [label for _, label in pairs])
    return [{**confusion._asdict(), "count": times} for confusion, times in counts.most_common(count)]


def worst_words(results: Sequence[SetResult], count: int) -> list[tuple[CropSet, ReadCrop]]:
    """The wrongly read crops, the most different texts first, and of equally different ones the surest first."""
    wrong = [
        (-normalised_edit_distance(read, label), -word.reading.score, result.crops, word)
        for result in results
        for word, read, label in _reduced(result)
        if label and read != label
    ]
    return [(crops, word) for _, _, crops, word in sorted(wrong, key=lambda entry: entry[:2])[:count]]


def _reduced(result: SetResult) -> list[tuple[ReadCrop, str, str]]:
    """Words with reading and label as the usual protocol compares them."""
    reduce = result.usual.reduce
    return [(word, reduce(word.reading.text), reduce(word.label)) for word in result.words]
