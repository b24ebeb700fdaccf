"""Hybrid branch and dynamic fusion: one character after the other, the LSTM state carried from step to step."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustscanner.spec import ModelSpec
from training.model import joint
from training.model.position import PositionBranch, attend


class Memory(NamedTuple):
    """What the encoder hands to every decoding step."""

    keys: Tensor  # (N, D, P)
    values: Tensor  # (N, P, C)
    mask: Tensor  # (N, 1, P), added to attention scores
    position: Tensor  # (N, T, 2C), the position branch's share of the fusion layer, bias included
    columns: Tensor  # (N, W, D), what CTC reads where the backbone has no columns of its own
    ctc: joint.Columns | None = None  # where CTC has a say
    weights: Tensor | None = None  # (N, T, P) of the position branch's attention, for whoever trains it


class State(NamedTuple):
    """The token LSTM between two steps, both (2 layers, N, D)."""

    hidden: Tensor
    cell: Tensor


class Step(NamedTuple):
    """What one or more steps of the decoder give."""

    logits: Tensor  # (N, T, classes)
    state: State  # after the last token
    weights: Tensor  # (N, T, P) of the hybrid branch's attention


class Decoder(nn.Module):
    """RobustScanner's decoder (arXiv:2007.07542): both branches and the gated fusion of their glimpses."""

    def __init__(self, spec: ModelSpec, channels: int) -> None:
        super().__init__()
        charset, hidden = spec.charset, spec.network.hidden_size
        self.embedding = nn.Embedding(len(charset.tokens), hidden, padding_idx=charset.pad_id)
        self.rnn = nn.LSTM(hidden, hidden, num_layers=2, batch_first=True)
        columns = spec.input.width_px // 4
        self.position = PositionBranch(hidden, spec.network.max_length, spec.network.row_mixer, columns)
        self.fusion = nn.Linear(2 * channels, 2 * channels)  # of [hybrid, position]
        self.prediction = nn.Linear(channels, charset.class_count)

    def remember(self, features: Tensor, encoded: Tensor, mask: Tensor, length: int) -> Memory:
        """Everything that does not depend on the text: features (N, C, H, W), encoded (N, D, H, W)."""
        places = features.shape[2] * features.shape[3]
        values = features.reshape(-1, features.shape[1], places).transpose(1, 2)  # (N, P, C)
        glimpses, weights, columns = self.position(encoded, values, mask, length)  # (N, T, C)
        share = F.linear(glimpses, self.fusion.weight[:, values.shape[2] :], self.fusion.bias)  # (N, T, 2C)
        return Memory(encoded.reshape(-1, encoded.shape[1], places), values, mask, share, columns, weights=weights)

    def start(self, batch: int) -> State:
        """The state before the first character."""
        zeros = self.fusion.weight.new_zeros(2, batch, self.rnn.hidden_size)
        return State(zeros, zeros)

    def forward(self, tokens: Tensor, memory: Memory, state: State | None = None) -> Step:
        """Teacher-forced logits for all of tokens (N, T), or the next ones when a state is given."""
        query, (hidden, cell) = self.rnn(self.embedding(tokens), state)  # (N, T, D)
        glimpses, weights = attend(query, memory.keys, memory.values, memory.mask)  # (N, T, C)
        return Step(self.predict(glimpses, memory.position), State(hidden, cell), weights)

    def predict(self, glimpses: Tensor, position: Tensor) -> Tensor:
        """Dynamic fusion: glimpses (N, T, C) and the position branch's share (N, T, 2C) to logits."""
        fused = F.glu(F.linear(glimpses, self.fusion.weight[:, : glimpses.shape[2]]) + position, dim=-1)  # (N, T, C)
        logits: Tensor = self.prediction(fused)
        return logits

    @torch.no_grad()
    def greedy(self, memory: Memory, start_id: int, steps: int, *, ctc_weight: float = 0.0) -> tuple[Tensor, Tensor]:
        """All `steps` steps, no early stop: logits (N, steps, classes) and tokens (N, steps)."""
        batch = memory.keys.shape[0]
        state = self.start(batch)
        token = torch.full((batch, 1), start_id, dtype=torch.long, device=memory.keys.device)
        prefix = joint.begin(memory.ctc) if memory.ctc and ctc_weight else None
        logits = []
        for t in range(steps):
            step, state, _ = self(token, memory._replace(position=memory.position[:, t : t + 1]), state)
            last = token[:, 0]
            if memory.ctc and prefix:
                step = joint.choose(step[:, 0], ctc_weight, memory.ctc, prefix)[:, None]
            token = step.argmax(-1)
            if memory.ctc and prefix:
                prefix = joint.extend(memory.ctc, prefix, last, token[:, 0])
            logits.append(step)
        everything = torch.cat(logits, 1)
        return everything, everything.argmax(-1)
