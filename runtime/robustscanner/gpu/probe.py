"""How likely each letter of a text is, and what else it might be, of a decoder that only tells what it reads."""

from collections.abc import Callable

import numpy as np

from robustscanner.constraint import FORBIDDEN
from robustscanner.session import Allowed, Probabilities, Scores, Tokens
from robustscanner.spec import ModelSpec

_OTHERS = 2  # that are told besides


def probe(run: Callable[[Allowed], tuple[Tokens, Scores]], forced: Allowed, spec: ModelSpec) -> Probabilities:
    """A run for the text itself, and two for each letter, in which what was found before may not stand there.

    Args:
        run: reads one picture under a mask.
        forced: a mask that allows one text, see `letters.forced`.
        spec: of the model.

    Returns:
        float64 [letters, classes]: probabilities of the text's letters and of the two that are likeliest besides.
    """
    ends = np.flatnonzero(forced[:, spec.charset.end_id] == 0)
    ids = forced[: ends[0] if len(ends) else None].argmax(1)
    chances = np.zeros((len(ids), forced.shape[1]))
    chances[range(len(ids)), ids] = run(forced)[1][0, : len(ids)]
    for step, own in enumerate(ids):
        mask = forced.copy()
        mask[step] = 0
        mask[step + 1 :] = FORBIDDEN
        mask[step + 1 :, spec.charset.end_id] = 0  # nothing later is wanted
        mask[step, own] = FORBIDDEN
        for _ in range(_OTHERS):
            tokens, scores = run(mask)
            other = tokens[0, step]
            chances[step, other], mask[step, other] = scores[0, step], FORBIDDEN
    return chances
