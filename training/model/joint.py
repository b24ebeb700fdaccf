"""Joint CTC and attention scoring (arXiv:1609.06773): CTC keeps the place, so that attention neither skips nor repeats.

CTC gives the probability of every next character after a prefix, summed over all alignments of the prefix with the
columns of the picture; it is multiplied with attention's, each to the power of its weight. Let Y[t, c] be the
posteriors, column 0 one before the picture that holds nothing but the blank. Let a[t] and b[t] be the probabilities
that columns 0…t spell the prefix and end in its last character or in a blank, and let
g[t] = b[t] + (0 if c is the prefix's last character else a[t]). Then

    p(c) ∝ Σ_t g[t] · Y[t + 1, c]        p(end) ∝ a[T - 1] + b[T - 1]

and once c is chosen

    a'[t] = Y[t, c] · (a'[t - 1] + g[t - 1])        b'[t] = Y[t, blank] · (b'[t - 1] + a'[t - 1])

Unrolled, both are products with a triangular matrix whose entries are exponentials of differences of sums of
logarithms of Y. So a graph needs no loop over the columns.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-7  # of posteriors, so that sums of their logarithms stay exact enough in float32
TINY = 1e-30
DOUBT = 1e-6  # added to CTC's distribution: attention may say what CTC holds for impossible


class Columns(NamedTuple):
    """CTC's side of a picture, with T columns, the one before the picture included."""

    following: Tensor  # (N, T, K): Y[t + 1, c]; the last row says that the word ends
    sums: Tensor  # (N, K, T): sums of the logarithms of Y[0…t, c]
    waits: Tensor  # (N, T, T), [r, t]: probability of blanks alone in columns r + 1 … t; [0, 0] is 1
    order: Tensor  # (N, T, T), [r, t]: 1 where r < t, else 0


class Prefix(NamedTuple):
    """What CTC knows of the text so far, scaled so that the largest is 1."""

    in_label: Tensor  # (N, 1, T): a
    in_blank: Tensor  # (N, 1, T): b


def align(posteriors: Tensor, end_id: int) -> Columns:
    """Posteriors (N, columns, K + 1), the blank last, to all that does not depend on the text."""
    batch, classes = posteriors.shape[0], posteriors.shape[2]
    none = torch.arange(classes, device=posteriors.device) == classes - 1
    before = none.to(posteriors).expand(batch, 1, -1)
    logs = torch.cat([before, posteriors], 1).clamp_min(FLOOR).log()  # (N, T, K + 1)
    place = torch.arange(logs.shape[1], device=posteriors.device)
    order = (place[:, None] < place).to(logs)  # (T, T)
    same = (place[:, None] == place).to(logs)
    sums = logs.transpose(1, 2) @ (order + same)  # (N, K + 1, T)
    blanks = sums[:, -1:]
    first = same[:1]
    waits = _products(blanks) * order + first.T * first
    is_end = (torch.arange(classes - 1, device=posteriors.device) == end_id).to(posteriors)
    following = torch.cat([posteriors[..., :-1] * (1 - is_end), is_end.expand(batch, 1, -1)], 1)
    return Columns(following, sums[:, :-1], waits, order.expand(batch, -1, -1))


def begin(columns: Columns) -> Prefix:
    """Before the first character."""
    in_blank = columns.waits[:, :1]
    return Prefix(torch.zeros_like(in_blank), in_blank)


def choose(logits: Tensor, weight: float, columns: Columns, prefix: Prefix, last: Tensor) -> Tensor:
    """Attention's logits (N, K) and the last class (N), the start token at first, to joint logits (N, K)."""
    both = torch.cat([prefix.in_label + prefix.in_blank, prefix.in_label], 1) @ columns.following  # (N, 2, K)
    repeats = F.one_hot(last, logits.shape[1]).to(logits)
    likely = (both[:, 0] - repeats * both[:, 1]).clamp_min(TINY)
    likely = likely / likely.sum(1, keepdim=True)
    return (1 - weight) * logits.log_softmax(-1) + weight * (likely + DOUBT).log()


def extend(columns: Columns, prefix: Prefix, last: Tensor, chosen: Tensor) -> Prefix:
    """The prefix with one more class (N)."""
    repeats = (chosen == last).to(prefix.in_label)[:, None, None]
    before = prefix.in_blank + (1 - repeats) * prefix.in_label  # (N, 1, T)
    sums = F.one_hot(chosen, columns.sums.shape[1]).to(before)[:, None] @ columns.sums  # (N, 1, T)
    in_label = before @ (_products(sums) * columns.order)
    in_blank = in_label @ columns.waits
    most = torch.maximum(in_label, in_blank).amax(2, keepdim=True).clamp_min(TINY)
    return Prefix(in_label / most, in_blank / most)


def _products(sums: Tensor) -> Tensor:
    """Sums (N, 1, T) of logarithms to the products of columns r + 1 … t, which matter where r < t; (N, T, T)."""
    return (sums - sums.transpose(1, 2)).clamp_max(0).exp()
