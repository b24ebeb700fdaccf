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
FORBIDDEN = -1e4  # far below any sum of logarithms, and half precision can hold it
DOUBT = 1e-6  # the least that CTC says of a character: attention may say what CTC holds for impossible


class Columns(NamedTuple):
    """CTC's side of a picture, with T columns, the one before the picture included."""

    following: Tensor  # (N, T, K): Y[t + 1, c]; the last row says that the word ends
    sums: Tensor  # (N, K, T): sums of the logarithms of Y[0…t, c]
    stays: Tensor  # (N, T, T), [r, t]: probability of blanks alone in columns r + 1 … t; 1 where r = t, 0 where r > t
    order: Tensor  # (N, T, T), [r, t]: 0 where r < t, else FORBIDDEN; added to logarithms


class Prefix(NamedTuple):
    """What CTC knows of the text so far, scaled so that the largest is 1."""

    ends: Tensor  # (N, 2, T): a + b, and a
    signs: Tensor  # (N, 2, K): what both are multiplied by for each next character: 1, and -1 for the last one again


def align(posteriors: Tensor, end_id: int) -> Columns:
    """Posteriors (N, columns, K + 1), the blank last, to all that does not depend on the text."""
    batch, classes = posteriors.shape[0], posteriors.shape[2]
    none = torch.arange(classes, device=posteriors.device) == classes - 1
    before = none.to(posteriors).expand(batch, 1, -1)
    logs = torch.cat([before, posteriors], 1).clamp_min(FLOOR).log()  # (N, T, K + 1)
    place = torch.arange(logs.shape[1], device=posteriors.device)
    up_to = (place[:, None] <= place).to(logs)  # (T, T)
    order = FORBIDDEN * (place[:, None] >= place).to(logs)
    sums = logs.transpose(1, 2) @ up_to  # (N, K + 1, T)
    blanks = sums[:, -1:]
    stays = (blanks - blanks.transpose(1, 2)).clamp_max(0).exp() * up_to
    is_end = (torch.arange(classes - 1, device=posteriors.device) == end_id).to(posteriors)
    following = torch.cat([posteriors[..., :-1] * (1 - is_end), is_end.expand(batch, 1, -1)], 1)
    return Columns(following, sums[:, :-1], stays, order.expand(batch, -1, -1))


def begin(columns: Columns) -> Prefix:
    """Before the first character."""
    blank = columns.stays[:, :1]
    signs = blank.new_tensor([[1.0], [0.0]]).expand(len(blank), 2, columns.following.shape[2])
    return Prefix(torch.cat([blank, torch.zeros_like(blank)], 1), signs)


def choose(logits: Tensor, weight: float, columns: Columns, prefix: Prefix) -> Tensor:
    """Attention's logits (N, K) to joint logits (N, K)."""
    likely = (prefix.ends @ columns.following * prefix.signs).sum(1)  # (N, K)
    return (1 - weight) * logits + weight * likely.clamp_min(DOUBT).log()


def extend(columns: Columns, prefix: Prefix, last: Tensor, chosen: Tensor) -> Prefix:
    """The prefix, which ended in the class `last` (N), the start token at first, with one more class (N)."""
    said = F.one_hot(chosen, columns.sums.shape[1]).to(prefix.ends)[:, None]  # (N, 1, K)
    again = (chosen == last).to(prefix.ends)[:, None, None]
    before = prefix.ends[:, :1] - again * prefix.ends[:, 1:]  # (N, 1, T)
    sums = said @ columns.sums  # (N, 1, T)
    label = before @ (sums - sums.transpose(1, 2) + columns.order).exp()
    both = label @ columns.stays
    ends = torch.cat([both, label], 1) / both.amax(2, keepdim=True).clamp_min(TINY)
    return Prefix(ends, torch.cat([torch.ones_like(said), -said], 1))
