"""Position enhancement branch: where the t-th character is, without knowing what stands before it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Plain dot-product attention, not divided by sqrt(d), over all positions P of the feature map.

    Softmax in float32: unscaled scores reach 200, where half precision is too coarse.

    Args:
        query: (N, T, D), or (1, T, D) for the same queries on every picture.
        keys: (N, D, P).
        values: (N, P, C).
        mask: (N, 1, P), 0 where the word is and a large negative number to its right.

    Returns:
        glimpses (N, T, C), and the weights (N, T, P) of what they are the sums of.
    """
    scores = torch.matmul(query, keys).float() + mask  # (N, T, P)
    weights = scores.softmax(-1)
    return torch.matmul(weights.to(values.dtype), values), weights


class RowConvolutions(nn.Module):
    """In place of the LSTM along the rows: no column waits for the one before it, on any device.

    Every column gets a code of its own, since a convolution alone cannot count from the left edge; the dilations make
    the last layer see 60 columns to either side.
    """

    def __init__(self, hidden_size: int, columns: int, *, kernel: int = 5, dilations: tuple[int, ...] = (1, 2, 4, 8)):
        super().__init__()
        self.columns = nn.Parameter(0.1 * torch.randn(1, hidden_size, 1, columns))
        self.across = nn.ModuleList(
            nn.Conv2d(
                hidden_size, hidden_size, (1, kernel), padding=(0, kernel // 2 * d), dilation=(1, d), groups=hidden_size
            )
            for d in dilations
        )
        self.mix = nn.ModuleList(nn.Conv2d(hidden_size, hidden_size, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:  # (N, D, H, W)
        x = x + self.columns[..., : x.shape[3]]
        for across, mix in zip(self.across, self.mix, strict=True):
            y = _along(across, x) if self.training else across(x)
            x = x + mix(torch.relu(y))
        return x


def _along(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise 1×k convolution as a sum of shifted pictures: on CPUs, its gradients cost a tenth."""
    gap, width = layer.dilation[1], x.shape[3]
    padded = F.pad(x, (layer.padding[1], layer.padding[1]))  # type: ignore[arg-type]
    out = layer.bias[:, None, None].to(x.dtype)  # type: ignore[index]
    for tap in range(layer.kernel_size[1]):
        weight = layer.weight[:, 0, 0, tap, None, None].to(x.dtype)  # (D, 1, 1)
        out = out + weight * padded[..., tap * gap : tap * gap + width]
    return out


class PositionAware(nn.Module):
    """Makes keys that know their place: something that counts along each row of the feature map, then two convolutions.

    The paper's is an LSTM; `columns` is the most that a feature map has, for what takes its place.
    """

    def __init__(self, hidden_size: int, row_mixer: str = "lstm", columns: int = 0) -> None:
        super().__init__()
        self.rnn: nn.Module
        if row_mixer == "conv":
            self.rnn = RowConvolutions(hidden_size, columns)
        else:
            self.rnn = nn.LSTM(hidden_size, hidden_size, num_layers=2)
        self.mixer = nn.Sequential(
            nn.Conv2d(hidden_size, hidden_size, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden_size, hidden_size, 3, padding=1),
        )

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """encoded (N, D, H, W) -> keys (N, D, H, W), and columns (N, W, D) that know what stands before them."""
        if isinstance(self.rnn, RowConvolutions):
            return self._mixed(self.rnn(encoded))
        n, d, h, w = encoded.shape
        rows = encoded.permute(3, 0, 2, 1).reshape(w, n * h, d)  # every row of every picture is a sequence
        rows, _ = self.rnn(rows)  # (W, N * H, D)
        grid = rows.reshape(w, n, h, d).permute(1, 3, 2, 0)  # (N, D, H, W)
        return self._mixed(grid)

    def _mixed(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        mixed = self.mixer[1](self.mixer[0](grid))
        return self.mixer[2](mixed), mixed.mean(2).transpose(1, 2)


class PositionBranch(nn.Module):
    """One query per output position, the same for all pictures; independent of the text read so far."""

    def __init__(self, hidden_size: int, max_length: int, row_mixer: str = "lstm", columns: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(
            max_length + 1, hidden_size
        )  # the last row is unused, as in the published weights
        self.position_aware = PositionAware(hidden_size, row_mixer, columns)

    def forward(self, encoded: Tensor, values: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """encoded (N, D, H, W), values (N, P, C) -> glimpses (N, T, C), weights (N, T, P), columns (N, W, D)."""
        keys, columns = self.position_aware(encoded)
        keys = keys.reshape(-1, encoded.shape[1], values.shape[1])  # (N, D, P)
        query = self.embedding.weight[:length].unsqueeze(0)  # (1, T, D)
        return *attend(query, keys, values, mask), columns
