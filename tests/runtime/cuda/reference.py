"""What the kernels have to give: logits by PyTorch's decoder in double precision, and what follows from them."""

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from robustscanner.spec import CharsetSpec
from training.model.decoder import Decoder

Arrays = dict[str, np.ndarray]


MEMORY = ("keys", "values", "mask", "position")


@dataclass
class Joint:
    """CTC posteriors (U, K + 1) of one word, and how likely the prefix read so far is to end in each column."""

    posteriors: np.ndarray
    end_id: int
    last: int | None = None
    label: np.ndarray = field(init=False)
    blank: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.posteriors = self.posteriors.astype(np.float64)
        self.label, self.blank = np.zeros(len(self.posteriors)), np.cumprod(self.posteriors[:, -1])

    def _before(self, token: int) -> np.ndarray:
        """Probability that the prefix ended before each column, so that `token` may begin there."""
        label = np.zeros_like(self.label) if token == self.last else self.label
        return np.concatenate([[float(self.last is None)], (self.blank + label)[:-1]])

    def shares(self) -> np.ndarray:
        """Of all classes, how the prefix goes on."""
        classes = self.posteriors.shape[1] - 1
        found = np.array([self._before(token) @ self.posteriors[:, token] for token in range(classes)])
        found[self.end_id] = self.label[-1] + self.blank[-1]
        return found / max(found.sum(), 1e-30)

    def extend(self, token: int) -> None:
        before, label, blank = self._before(token), np.zeros_like(self.label), np.zeros_like(self.blank)
        for t, probabilities in enumerate(self.posteriors):
            label[t] = probabilities[token] * ((label[t - 1] if t else 0) + before[t])
            blank[t] = probabilities[-1] * (blank[t - 1] + label[t - 1] if t else 0)
        most = max(label.max(), blank.max()) or 1.0
        self.label, self.blank, self.last = label / most, blank / most, token


def logits_after(decoder: Decoder, memory: Arrays, tokens: np.ndarray, start_id: int) -> np.ndarray:
    """Logits (N, T, K) of each step after those that said `tokens` (N, T); memory as the kernels take it."""
    before = np.concatenate([np.full((len(tokens), 1), start_id), tokens[:, :-1]], 1)
    keys, values, mask, position = (torch.from_numpy(memory[name]).double() for name in MEMORY)
    exact = copy.deepcopy(decoder).double()
    with torch.no_grad():
        query, _ = exact.rnn(exact.embedding(torch.from_numpy(before)))
        attention = (query @ keys + mask.unsqueeze(1)).softmax(-1)
        fused = attention @ values + position  # the fusion layer is in the values
        logits: np.ndarray = exact.prediction(F.glu(fused, -1)).numpy()
    return logits


def rounded(decoder: Decoder) -> Decoder:
    """Its weights have been through half precision, where the kernels hold them so."""
    found = copy.deepcopy(decoder)
    with torch.no_grad():
        for weight in (found.rnn.weight_hh_l0, found.rnn.weight_ih_l1, found.rnn.weight_hh_l1, found.prediction.weight):
            weight.copy_(weight.half().float())
    return found


def choices(
    logits: np.ndarray,
    charset: CharsetSpec,
    *,
    allowed: np.ndarray | None = None,
    posteriors: np.ndarray | None = None,
    ctc_weight: float = 0.0,
) -> tuple[list[int], list[float]]:
    """What a word (T, K) says, its end token included, and its scores; attention's weight is in the logits."""
    joint = None if posteriors is None else Joint(posteriors, charset.end_id)
    tokens: list[int] = []
    sure: list[float] = []
    for step, row in enumerate(logits):
        scores = row.astype(np.float64)
        if joint is not None:
            scores = scores + ctc_weight * np.log(joint.shares() + 1e-6)
        choice = scores if allowed is None else scores + allowed[step if len(allowed) > 1 else 0]
        tokens.append(int(choice.argmax()))
        sure.append(float(np.exp(scores[tokens[-1]] - scores.max()) / np.exp(scores - scores.max()).sum()))
        if tokens[-1] == charset.end_id:
            break
        if joint is not None:
            joint.extend(tokens[-1])
    return tokens, sure
