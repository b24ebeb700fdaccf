"""The visual encoder of PP-OCRv6 small, rebuilt: it has read millions of pictures, so only a decoder is left to learn.

Layers and sizes are those of `PP-OCRv6_rec_small.onnx` (Apache-2.0, PaddlePaddle's authors), in which batch norms and
parallel branches are folded into plain convolutions already. `training/adopt_encoder.py` copies the weights.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = (3, 6, 2)  # of the three stages; between them, one more that halves the height
_WIDTHS = (96, 192, 384)  # channels of the stages
_NECK = 120  # channels of what its CTC classifier reads
_HEADS = 8


class Squeeze(nn.Module):
    """Squeeze and excitation (arXiv:1709.01507) with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    """Depthwise 3x3, squeeze-excite in some blocks, then two pointwise layers, beside a shortcut where sizes allow."""

    def __init__(self, channels: int, out_channels: int, *, squeeze: bool = False) -> None:
        super().__init__()
        self.halves = out_channels != channels
        stride = (2, 1) if self.halves else 1
        self.across = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels)
        self.squeeze = Squeeze(channels) if squeeze else nn.Identity()
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        x = self.squeeze(self.across(x))
        mixed: Tensor = self.narrow(F.gelu(self.widen(x)))
        return mixed if self.halves else x + mixed


class Stem(nn.Module):
    """(N, 3, H, W) to (N, 96, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, 2, padding=1)
        self.second = nn.Conv2d(48, 24, 2)
        self.third = nn.Conv2d(24, 48, 2)
        self.fourth = nn.Conv2d(96, 48, 3, 2, padding=1)
        self.fifth = nn.Conv2d(48, 96, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))  # (N, 48, H/2, W/2)
        y = F.relu(self.second(F.pad(x, (0, 1, 0, 1))))
        y = F.relu(self.third(F.pad(y, (0, 1, 0, 1))))
        x = torch.cat([F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1), y], 1)  # (N, 96, H/2, W/2)
        return F.relu(self.fifth(F.relu(self.fourth(x))))


class Attention(nn.Module):
    """Self-attention over the columns, as in SVTR (arXiv:2205.00159)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(_NECK, eps=1e-5)
        self.into, self.out = nn.Linear(_NECK, 3 * _NECK), nn.Linear(_NECK, _NECK)
        self.norm2 = nn.LayerNorm(_NECK, eps=1e-5)
        self.widen, self.narrow = nn.Linear(_NECK, 2 * _NECK), nn.Linear(2 * _NECK, _NECK)

    def forward(self, x: Tensor) -> Tensor:  # (N, U, C)
        parts = self.into(self.norm1(x)).unflatten(2, (3, _HEADS, _NECK // _HEADS)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # (N, heads, U, C / heads) each
        scores = (query * (_NECK // _HEADS) ** -0.5) @ key.transpose(2, 3)  # (N, heads, U, U)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)  # (N, U, C)
        x = x + self.out(mixed)
        x = x + self.narrow(F.silu(self.widen(self.norm2(x))))
        return x


class Neck(nn.Module):
    """A feature map (N, 384, 3, W) to columns (N, W/2, 120), each of which knows of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.direct = nn.Conv2d(_WIDTHS[-1], _NECK, 1)
        self.into = nn.Conv2d(_WIDTHS[-1], _NECK, 1)
        self.along = nn.Conv2d(_NECK, _NECK, (1, 7), padding=(0, 3), groups=_NECK)
        self.layers = nn.Sequential(Attention(), Attention())
        self.norm = nn.LayerNorm(_NECK, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, (3, 2))  # (N, 384, 1, W/2)
        y = F.silu(self.into(x))
        y = (y + F.silu(self.along(y))).squeeze(2).transpose(1, 2)  # (N, W/2, 120)
        columns: Tensor = self.norm(self.layers(y)) + F.silu(self.direct(x)).squeeze(2).transpose(1, 2)
        return columns


class Seen(NamedTuple):
    """What a backbone makes of a picture."""

    features: Tensor  # (N, C, H', W'), what the decoder looks at
    columns: Tensor | None = None  # (N, U, E), one vector a column, what CTC reads


class SmallNet(nn.Module):
    """PP-OCRv6 small's backbone and neck, and their sum on the grid of the decoder, (N, 160, H/16, W/4)."""

    shrink = (16, 4)  # height, width
    channels = 160  # of the features
    raw_channels = _WIDTHS[-1]  # of the borrowed feature map
    column_channels = _NECK
    own = ("project.", "spread.")  # names of the weights that are not borrowed

    def __init__(self, blocks: tuple[int, ...] = BLOCKS) -> None:
        super().__init__()
        self.stem = Stem()
        self.stages = nn.ModuleList(_stage(index, count) for index, count in enumerate(blocks or BLOCKS))
        self.neck = Neck()
        self.project = nn.Conv2d(_WIDTHS[-1], self.channels, 1)
        self.spread = nn.Conv2d(_NECK, self.channels, 1, bias=False)

    def forward(self, x: Tensor) -> Seen:
        return self.merge(*self.see(x))

    def see(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The borrowed part: feature map (N, 384, H/16, W/4) and columns (N, W/8, 120)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x, self.neck(x)

    def merge(self, raw: Tensor, columns: Tensor) -> Seen:
        """The part of our own: every column's vector is added to both columns of the map that it stands for."""
        spread = self.spread(columns.transpose(1, 2).unsqueeze(2))  # (N, C, 1, W/8)
        spread = spread.unsqueeze(4).expand(-1, -1, -1, -1, 2).flatten(3)  # (N, C, 1, W/4)
        return Seen(self.project(raw) + spread, columns)


def _stage(index: int, count: int) -> nn.Sequential:
    """Blocks by name, so that a network with fewer of them takes the weights of those it keeps."""
    width = _WIDTHS[index]
    squeezed = (0,) if index == 0 else range(0, count, 2)
    stage = nn.Sequential(OrderedDict((f"{i}", Block(width, width, squeeze=i in squeezed)) for i in range(count)))
    if index + 1 < len(_WIDTHS):
        stage.add_module("halve", Block(width, _WIDTHS[index + 1]))
    return stage
