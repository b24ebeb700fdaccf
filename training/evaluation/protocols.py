"""How readings are compared with labels: the three protocols that published tables use, and all characters."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

from robustscanner.metrics import Accuracy, score_words
from robustscanner.spec import DICT90


@dataclass(frozen=True)
class Protocol:
    """A character set that both texts are reduced to; what is left must be equal."""

    name: str
    characters: str  # "": all

    def reduce(self, text: str) -> str:
        """Keeps the characters that count, in lower case when the set has no other."""
        if not self.characters:
            return text
        text = text if self.characters != self.characters.lower() else text.lower()
        return "".join(c for c in text if c in self.characters)

    def score(self, readings: Sequence[str], labels: Sequence[str]) -> Accuracy:
        """Pair by pair; labels that are empty when reduced are left out."""
        return score_words(map(self.reduce, readings), map(self.reduce, labels), exact=True)


CASE_INSENSITIVE = Protocol("36", string.digits + string.ascii_lowercase)  # the usual one
CASE_SENSITIVE = Protocol("62", string.digits + string.ascii_letters)
WITH_SYMBOLS = Protocol("90", DICT90)  # case counts too
EXACT = Protocol("exact", "")  # of any alphabet
PROTOCOLS = (CASE_INSENSITIVE, CASE_SENSITIVE, WITH_SYMBOLS, EXACT)
