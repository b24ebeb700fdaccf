"""What of a text counts when readings are compared with labels, by protocol; and what is wrong where nothing does."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from robustscanner.charset import Charset
from robustscanner.metrics import Accuracy, normalise, score_words
from robustscanner.spec import ModelSpec


@dataclass(frozen=True)
class Protocol:
    """What of a text counts when words are scored."""

    name: str
    reduce: Callable[[str], str]

    def score(self, readings: Iterable[str], labels: Iterable[str]) -> Accuracy:
        """Compares what counts, pair by pair; a label of which nothing counts is left out."""
        return score_words(map(self.reduce, readings), map(self.reduce, labels), exact=True)


EXACT = Protocol("exact", str)
IGNORE_CASE = Protocol("ignore-case", str.lower)
ALPHANUMERIC = Protocol("alphanumeric", normalise)  # the published tables'
PROTOCOLS = {protocol.name: protocol for protocol in (EXACT, IGNORE_CASE, ALPHANUMERIC)}
AUTO = "auto"


def choose_protocol(name: str, labels: Sequence[str]) -> Protocol:
    """The protocol of a name; "auto" counts every character, and case where the labels mix it.

    Labels all in capitals, or all in small letters, are those of sets that do not say how a word is written.
    """
    if name != AUTO:
        return PROTOCOLS[name]
    text = "".join(labels)
    return EXACT if text not in (text.lower(), text.upper()) else IGNORE_CASE


@dataclass(frozen=True)
class Scorer:
    """What is written on the crops, in the characters of the model that reads them, and what of it counts."""

    labels: tuple[str, ...]
    protocol: Protocol
    missing: tuple[str, ...]  # of each label: characters that the model cannot read

    @classmethod
    def of(cls, spec: ModelSpec, labels: Sequence[str], protocol: str = AUTO) -> "Scorer":
        """For a model and labels as they were written."""
        charset = Charset(spec.charset)
        fitted = tuple(map(charset.fit, labels))
        return cls(fitted, choose_protocol(protocol, fitted), tuple(map(charset.missing, fitted)))

    def score(self, readings: Sequence[str]) -> Accuracy:
        """Holds readings against the labels, in their order."""
        return self.protocol.score(readings, self.labels)

    def problem(self, words: int) -> str:
        """Why FP32 reads no word right, as far as the labels tell; `words`: how many were scored."""
        if not words:
            return f"none of {len(self.labels)} labels has a character that counts by --protocol {self.protocol.name}"
        if foreign := [(label, missing) for label, missing in zip(self.labels, self.missing, strict=True) if missing]:
            label, character = foreign[0][0], foreign[0][1][0]
            what = f"{character!r} (U+{ord(character):04X}), as in {label!r}"
            return (
                f"FP32 reads none of {words} words; {len(foreign)} labels hold characters that the model lacks: {what}"
            )
        return f"FP32 reads none of {words} words as the labels have them; the first is {self.labels[0]!r}"


def add_protocol_argument(parser: argparse.ArgumentParser) -> None:
    """The option of programs that score."""
    parser.add_argument(
        "--protocol",
        choices=(AUTO, *PROTOCOLS),
        default=AUTO,
        help="what counts when words are scored; auto: every character, and case where the labels mix it; "
        "alphanumeric: as published tables do, [0-9a-z] without case (default: %(default)s)",
    )
