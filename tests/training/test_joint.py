"""CTC's side of the joint choice against the sum over all alignments, written out."""

from itertools import product

import pytest
import torch
from torch import Tensor

from training.model import joint

CLASSES, END, BLANK = 3, 2, 3  # two characters, the end, and CTC's blank after them


def columns_of(seed: int, count: int = 5) -> Tensor:
    """Posteriors (1, U, K + 1); the end is no letter of CTC's."""
    logits = torch.randn(1, count, CLASSES + 1, generator=torch.Generator().manual_seed(seed)) * 2
    logits[..., END] = -50
    return logits.softmax(-1)


def spelled(path: tuple[int, ...]) -> tuple[int, ...]:
    collapsed = [c for i, c in enumerate(path) if i == 0 or path[i - 1] != c]
    return tuple(c for c in collapsed if c != BLANK)


def probability(posteriors: Tensor, text: tuple[int, ...], *, whole: bool) -> float:
    """Of all alignments that spell the text, or begin with it."""
    total = 0.0
    for path in product((0, 1, BLANK), repeat=posteriors.shape[1]):
        words = spelled(path)
        if words == text if whole else words[: len(text)] == text:
            total += float(torch.stack([posteriors[0, t, c] for t, c in enumerate(path)]).prod())
    return total


def share(posteriors: Tensor, text: tuple[int, ...]) -> Tensor:
    """What `choose` makes of CTC alone after a text, (K)."""
    columns = joint.align(posteriors, END)
    prefix, last = joint.begin(columns), torch.tensor([END])
    for chosen in text:
        prefix = joint.extend(columns, prefix, last, torch.tensor([chosen]))
        last = torch.tensor([chosen])
    return joint.choose(torch.zeros(1, CLASSES), 1.0, columns, prefix).softmax(-1)[0]


@pytest.mark.parametrize("text", [(), (0,), (0, 0), (0, 1), (1, 1, 0), (0, 1, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_next_character_is_the_sum_over_all_alignments(text: tuple[int, ...], seed: int) -> None:
    posteriors = columns_of(seed)
    expected = [probability(posteriors, (*text, c), whole=False) for c in (0, 1)]
    expected.append(probability(posteriors, text, whole=True))
    wanted = torch.tensor(expected) / sum(expected)
    assert torch.allclose(share(posteriors, text), wanted, atol=1e-4)


def test_long_and_unlikely_texts_stay_finite() -> None:
    posteriors = torch.full((1, 40, CLASSES + 1), 1e-6)
    posteriors[..., 0] = 1.0
    assert torch.isfinite(share(posteriors, (1, 0) * 19)).all()


def test_attention_alone_has_its_way_without_ctc() -> None:
    columns = joint.align(columns_of(1), END)
    logits = torch.tensor([[0.1, 3.0, -1.0]])
    chosen = joint.choose(logits, 0.0, columns, joint.begin(columns))
    assert torch.allclose(chosen.softmax(-1), logits.softmax(-1))
