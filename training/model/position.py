"""Position enhancement branch: where the t-th character is, without knowing what stands before it."""

import torch
from torch import Tensor, nn


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Plain dot-product attention, not divided by sqrt(d), over all positions P of the feature map.

    Softmax in float32: unscaled scores reach 200, where half precision is too coarse.

    Args:
        query: (N, T, D), or (1, T, D) for the same queries on every picture.
        keys: (N, D, P).
        values: (N, P, C).
        mask: (N, 1, P), 0 where the word is and a large negative number to its right.

    Returns:
        glimpses (N, T, C).
    """
    scores = torch.matmul(query, keys).float() + mask  # (N, T, P)
    return torch.matmul(scores.softmax(-1).to(values.dtype), values)


class PositionAware(nn.Module):
    """Makes keys that know their place: an LSTM along each row of the feature map, then two convolutions."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(hidden_size, hidden_size, num_layers=2)
        self.mixer = nn.Sequential(
            nn.Conv2d(hidden_size, hidden_size, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden_size, hidden_size, 3, padding=1),
        )

    def forward(self, encoded: Tensor) -> Tensor:  # (N, D, H, W)
        n, d, h, w = encoded.shape
        rows = encoded.permute(3, 0, 2, 1).reshape(w, n * h, d)  # every row of every picture is a sequence
        rows, _ = self.rnn(rows)  # (W, N * H, D)
        grid = rows.reshape(w, n, h, d).permute(1, 3, 2, 0)  # (N, D, H, W)
        keys: Tensor = self.mixer(grid)
        return keys


class PositionBranch(nn.Module):
    """One query per output position, the same for all pictures; independent of the text read so far."""

    def __init__(self, hidden_size: int, max_length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(
            max_length + 1, hidden_size
        )  # the last row is unused, as in the published weights
        self.position_aware = PositionAware(hidden_size)

    def forward(self, encoded: Tensor, values: Tensor, mask: Tensor, length: int) -> Tensor:
        """encoded (N, D, H, W), values (N, P, C) -> glimpses (N, length, C)."""
        keys = self.position_aware(encoded).reshape(-1, encoded.shape[1], values.shape[1])  # (N, D, P)
        query = self.embedding.weight[:length].unsqueeze(0)  # (1, T, D)
        return attend(query, keys, values, mask)
