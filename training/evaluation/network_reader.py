"""Reads crops with a PyTorch model, exactly as the engines do."""

from collections.abc import Sequence
from pathlib import Path

import torch

from robustscanner.charset import Charset
from robustscanner.preprocess import Image, load_image, make_batch, same_width
from robustscanner.recognizer import Reading
from training.model.robustscanner import RobustScanner


@torch.no_grad()
def read_pictures(model: RobustScanner, images: Sequence[Image], *, steps: int | None = None) -> list[Reading]:
    """What uint8 RGB pictures [H, W, 3] say, in order; float32, greedy."""
    charset, spec = Charset(model.spec.charset), model.spec.input
    device = model.encoder.weight.device
    canvases, widths = make_batch(list(images), spec)
    readings: dict[int, Reading] = {}
    for rows, wide in same_width(widths.tolist(), spec):
        pixels = torch.from_numpy(canvases[rows][:, :, :wide].copy()).to(device)
        logits, tokens = model.greedy(pixels, torch.from_numpy(widths[rows]).to(device), steps)
        scores = logits.softmax(-1).amax(-1).cpu().numpy()  # (N, T)
        said = (Reading(*charset.decode(*row)) for row in zip(tokens.cpu().numpy(), scores, strict=True))
        readings |= zip(rows.tolist(), said, strict=True)
    return [readings[row] for row in range(len(images))]


def read_crops(
    model: RobustScanner, paths: Sequence[Path], *, batch_size: int = 64, steps: int | None = None
) -> list[str]:
    """Texts of picture files, in order."""
    texts: list[str] = []
    for first in range(0, len(paths), batch_size):
        images = [load_image(path) for path in paths[first : first + batch_size]]
        texts += [reading.text for reading in read_pictures(model, images, steps=steps)]
    return texts
