"""Characters to token ids and back."""

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from robustscanner.spec import CharsetSpec

# What typesetting makes of plain characters.
_PLAIN = {
    **dict.fromkeys("‘’‛′ʼ", "'"),
    **dict.fromkeys("“”‟„″", '"'),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    **dict.fromkeys("‚", ","),
    **dict.fromkeys("⁄∕", "/"),
}
_SAME_LOOK = ("<compat>", "<wide>", "<narrow>", "<noBreak>")  # Unicode's kinds of decompositions that lose nothing


class Charset:
    """Encodes labels for training and decodes what the graph emits."""

    def __init__(self, spec: CharsetSpec) -> None:
        self.spec = spec
        self._ids = {token: id_ for id_, token in enumerate(spec.tokens) if id_ not in spec.special_ids}
        # What an id adds to a text: itself, nothing for start and pad, the literal token for unknown.
        self._texts = ["" if id_ in (spec.start_id, spec.pad_id) else token for id_, token in enumerate(spec.tokens)]

    @property
    def characters(self) -> str:
        """All characters the model can read, in id order."""
        return "".join(self._ids)

    def fit(self, text: str) -> str:
        """A label in the characters that this model has, as far as they say the same.

        What it lacks becomes: the other case of a letter, plain quotes and dashes, the letters of a ligature, narrow
        for full-width characters; spaces go. Whatever else it lacks stays, see `missing`.
        """
        return "".join(c if c in self._ids else self._alike(c) for c in text)

    def missing(self, text: str) -> str:
        """The characters of a text that this model lacks, each once."""
        return "".join(dict.fromkeys(c for c in text if c not in self._ids))

    def _alike(self, character: str) -> str:
        if character == " ":
            return ""
        look = unicodedata.decomposition(character).startswith(_SAME_LOOK)
        plain = unicodedata.normalize("NFKC", character) if look else _PLAIN.get(character, character)
        for text in (plain, plain.swapcase()):
            if all(c in self._ids for c in text):
                return text
        return character

    def encode(self, text: str) -> list[int]:
        """Ids of the characters, without start and end.

        Raises:
            KeyError: a character is outside the charset and the charset has no unknown token.
        """
        unknown = self.spec.unknown_id
        return [self._ids[c] if unknown is None else self._ids.get(c, unknown) for c in text]

    def decode(self, tokens: npt.NDArray[np.integer], scores: npt.NDArray[np.floating]) -> tuple[str, float]:
        """One word of the graph's output, tokens [T] and their probabilities [T], to text and score.

        The score is the product of the probabilities up to and including the end token.
        """
        ids = self.ids(tokens)
        return self.text(ids), math.prod(scores[: len(ids) + 1].tolist())

    def text(self, ids: Sequence[int]) -> str:
        """What ids before the end token say."""
        return "".join([self._texts[id_] for id_ in ids])

    def ids(self, tokens: npt.NDArray[np.integer]) -> list[int]:
        """Those before the end token, of tokens [T]."""
        ids: list[int] = tokens.tolist()  # some tens of them: plain lists are quicker than arrays
        return ids[: ids.index(self.spec.end_id)] if self.spec.end_id in ids else ids
