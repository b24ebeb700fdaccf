"""Where each letter of a label stands, as CTC sees it; and a loss that pulls attention there."""

from typing import NamedTuple

import torch
from torch import Tensor

_IMPOSSIBLE = -1e30
_SPREAD = 1.5  # columns of the feature map: how far from a letter's centre attention still counts, a standard deviation


class Letters(NamedTuple):
    """Letters of a batch of labels on the columns that CTC reads."""

    centres: Tensor  # (N, L), columns, from 0
    found: Tensor  # (N, L) bool; all False for a label that the columns cannot hold


@torch.no_grad()
def align_letters(posteriors: Tensor, labels: Tensor, lengths: Tensor) -> Letters:
    """The most likely alignment of each label with its columns (Viterbi over CTC's states, Graves 2006).

    Args:
        posteriors: (N, U, K + 1) logarithms, the blank last.
        labels: (N, L) classes; what follows a label's end is not looked at.
        lengths: (N) of the labels.
    """
    batch, columns, classes = posteriors.shape
    letters = labels.shape[1]
    states = labels.new_full((batch, 2 * letters + 1), classes - 1)  # blank, letter, blank, …
    states[:, 1::2] = labels.clamp_max(classes - 2)
    emitted = posteriors.gather(2, states[:, None].expand(-1, columns, -1))  # (N, U, S)
    may_skip = torch.zeros_like(states, dtype=torch.bool)  # the blank between two different letters
    may_skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    score = torch.full_like(emitted[:, 0], _IMPOSSIBLE)
    score[:, :2] = emitted[:, 0, :2]
    steps = []
    for column in range(1, columns):
        one = _moved(score, 1)
        two = _moved(score, 2).masked_fill(~may_skip, _IMPOSSIBLE)
        score, step = torch.stack([score, one, two]).max(0)
        score = score + emitted[:, column]
        steps.append(step)
    ends = torch.stack([2 * lengths, 2 * lengths - 1], 1)  # (N, 2): in a blank, or in the last letter
    final, which = score.gather(1, ends).max(1, keepdim=True)
    state = ends.gather(1, which)  # (N, 1)
    sums, counts = posteriors.new_zeros(batch, 2 * letters + 1), posteriors.new_zeros(batch, 2 * letters + 1)
    for column in reversed(range(columns)):
        sums.scatter_add_(1, state, torch.full_like(state, column, dtype=sums.dtype))
        counts.scatter_add_(1, state, torch.ones_like(state, dtype=sums.dtype))
        if column:
            state = state - steps[column - 1].gather(1, state)
    found = (counts[:, 1::2] > 0) & (final > _IMPOSSIBLE / 2)
    return Letters(sums[:, 1::2] / counts[:, 1::2].clamp_min(1), found)


def _moved(score: Tensor, by: int) -> Tensor:
    """What the states `by` places before hold."""
    moved = torch.full_like(score, _IMPOSSIBLE)
    moved[:, by:] = score[:, :-by]
    return moved


def guidance(weights: Tensor, letters: Letters, height: int, scale: int) -> Tensor:
    """How little of the attention lies around its letter: mean of -log of the weighted share; a scalar.

    Args:
        weights: (N, T, P) of attention, positions in rows of a feature map `height` rows high.
        letters: with L <= T.
        height: rows of the feature map.
        scale: columns of the feature map to each of CTC's.
    """
    count = letters.centres.shape[1]
    by_column = weights[:, :count].unflatten(2, (height, -1)).sum(2).float()  # (N, L, W)
    places = torch.arange(by_column.shape[2], device=weights.device, dtype=torch.float32)
    centres = (letters.centres + 0.5) * scale - 0.5
    near = torch.exp(-((places - centres[..., None]) ** 2) / (2 * _SPREAD**2))
    share = (by_column * near).sum(2).clamp_min(1e-6)
    return -(share.log() * letters.found).sum() / letters.found.sum().clamp_min(1)
