"""Where each letter of a text stands in its picture, and what else it might be.

A run under a mask that leaves only this text gives the logits of every step, and what CTC sees in every column. The
letters' places follow from forward and backward sums over all alignments of the text with the columns (Graves et al.,
«Connectionist temporal classification», ICML 2006, equations 5 to 16).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from robustscanner.constraint import FORBIDDEN, readable, spell
from robustscanner.errors import ConstraintError
from robustscanner.session import Allowed, Probabilities, Trace
from robustscanner.spec import ModelSpec

COLUMN_PX = 8  # of the canvas: what CTC sees as one column
_FLOOR = 1e-7  # of probabilities, as in training/model/joint.py


@dataclass(frozen=True)
class Letter:
    """One letter of a text; places in pixels of the picture, from its left."""

    text: str
    # 0…1, after the letters before it, to the power of 1 / `score_temperature` as `Reading.score` is: that is the
    # product of all letters' and the end's.
    probability: float
    others: tuple[tuple[str, float], ...]  # the two next most likely; of what is left, what the model gives them
    # None: the model has no CTC, or sees too few columns for the letters. One ends half-way to the next one's centre.
    left: float | None
    centre: float | None
    right: float | None


def as_json(letter: Letter, quad: Sequence[Sequence[float]] | None = None) -> dict[str, object]:
    """For programs; `quad`: where it stands in a photo, instead of its place within the word's own picture."""
    places = {"left": letter.left, "centre": letter.centre, "right": letter.right}
    if quad is not None:
        places = {}
    return {
        "text": letter.text,
        "probability": round(letter.probability, 4),
        "others": [[text, round(probability, 4)] for text, probability in letter.others],
        **{name: round(px, 1) for name, px in places.items() if px is not None},
        **({} if quad is None else {"quad": [[round(x, 1), round(y, 1)] for x, y in quad]}),
    }


def forced(text: str, spec: ModelSpec) -> tuple[list[int], Allowed]:
    """The ids of a text, and a mask that allows nothing else.

    Raises:
        ConstraintError: the model cannot write it.
    """
    ids, steps = _spell(text, spec), spec.network.max_length
    if len(ids) > steps:
        raise ConstraintError(f"{text!r} is longer than the {steps} characters of this model")
    mask = np.full((steps, spec.charset.class_count), FORBIDDEN, np.float32)
    mask[range(len(ids)), ids] = 0
    mask[len(ids) :, spec.charset.end_id] = 0
    return ids, mask


def _spell(text: str, spec: ModelSpec) -> list[int]:
    """The ids of a text in which a character that the model lacks stands as readings write it: the unknown token."""
    known, unknown = readable(spec), spec.charset.unknown_id
    if unknown is None or unknown >= spec.charset.class_count:
        return spell(text, known)
    first, *rest = text.split(spec.charset.tokens[unknown])
    return spell(first, known) + [id_ for part in rest for id_ in (unknown, *spell(part, known))]


def describe(ids: Sequence[int], trace: Trace, spec: ModelSpec, picture_px: int, valid_px: int) -> tuple[Letter, ...]:
    """The letters of one text.

    Args:
        ids: of the text, without its end; at least one.
        trace: of a run over this one picture, in which the text was forced.
        spec: of the model.
        picture_px: width of the picture.
        valid_px: width that the picture has on the canvas.
    """
    texts = [*spec.charset.tokens[: spec.charset.class_count]]
    texts[spec.charset.end_id] = ""
    chances = _tempered(trace.chances[: len(ids)], ids, spec.network.score_temperature)
    places: list[tuple[float | None, ...]] = [(None,) * 3] * len(ids)
    repeats = sum(one == next_ for one, next_ in pairwise(ids))  # each takes a blank column between the two
    if trace.columns is not None and len(ids) + repeats < len(trace.columns):
        places = _extents(centres(trace.columns, ids) * picture_px / valid_px, picture_px)
    return tuple(
        Letter(texts[own], float(row[own]), _next_best(row, own, texts), *place)
        for own, row, place in zip(ids, chances, places, strict=True)
    )


def centres(columns: npt.NDArray[np.floating], ids: Sequence[int]) -> Probabilities:
    """Where each letter stands on the canvas, in pixels [T].

    Args:
        columns: what CTC sees [U, K], without the blank; the last row, which says that the word ends, is left out.
        ids: of the text; there are columns for all of them, and for a blank between two that are equal.
    """
    shares = _shares(columns[:-1].astype(np.float64), ids)
    place = (np.arange(len(shares)) + 0.5) * COLUMN_PX
    return np.asarray(place @ shares / shares.sum(0))


def _shares(seen: Probabilities, ids: Sequence[int]) -> Probabilities:
    """[U, T]: the probability that a column shows a letter, given the text, but for a factor of each column."""
    blank = 1 - seen.sum(1, keepdims=True)
    states = np.full(2 * len(ids) + 1, -1)  # blanks around the letters
    states[1::2] = ids
    emitted = np.maximum(np.append(seen, blank, 1)[:, states], _FLOOR)  # (U, S)
    before = _forward(emitted, states)
    after = _forward(emitted[::-1, ::-1], states[::-1])[::-1, ::-1]
    through = before * after / emitted
    return np.asarray((through / through.sum(1, keepdims=True))[:, 1::2])


def _forward(emitted: Probabilities, states: npt.NDArray[np.integer]) -> Probabilities:
    """Sums over all beginnings of alignments, scaled so that each column's are 1 together."""
    sums = np.zeros_like(emitted)
    sums[0, :2] = emitted[0, :2]
    skips = np.zeros(len(states))  # a blank may be left out between different letters
    skips[2:] = (states[2:] != states[:-2]) & (states[2:] >= 0)
    for column in range(len(emitted)):
        if column:
            last = sums[column - 1]
            reached = last.copy()
            reached[1:] += last[:-1]
            reached[2:] += last[:-2] * skips[2:]
            sums[column] = reached * emitted[column]
        sums[column] /= sums[column].sum()
    return sums


def _extents(middles: Probabilities, picture_px: int) -> list[tuple[float | None, ...]]:
    """Left, centre and right; the first and the last letter reach as far to either side, within the picture."""
    between = (middles[1:] + middles[:-1]) / 2
    first, last = (2 * middles[0] - between[0], 2 * middles[-1] - between[-1]) if len(between) else (0, picture_px)
    edges = np.concatenate([[first], between, [last]]).clip(0, picture_px)
    return [tuple(map(float, place)) for place in zip(edges[:-1], middles.clip(0, picture_px), edges[1:], strict=True)]


def _tempered(chances: Probabilities, ids: Sequence[int], temperature: float) -> Probabilities:
    """The letters' own probabilities [T, K] to the power of 1 / temperature; the others share what is left."""
    own = chances[range(len(ids)), ids][:, None]
    tempered = own ** (1 / temperature)
    shared = chances * (1 - tempered) / np.maximum(1 - own, _FLOOR)
    shared[range(len(ids)), ids] = tempered[:, 0]
    return np.asarray(shared)


def _next_best(row: Probabilities, own: int, texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    best = [index for index in np.argsort(-row)[:3].tolist() if index != own]
    return tuple((texts[index], float(row[index])) for index in best[:2])
