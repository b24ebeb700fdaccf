"""Reads crops with a PyTorch model, exactly as the engines do."""

from collections.abc import Sequence
from pathlib import Path

import torch

from robustscanner.charset import Charset
from robustscanner.preprocess import load_image, make_batch
from training.model.robustscanner import RobustScanner


@torch.no_grad()
def read_crops(
    model: RobustScanner, paths: Sequence[Path], *, batch_size: int = 64, steps: int | None = None
) -> list[str]:
    """Texts of picture files, in order; float32, greedy."""
    charset, texts = Charset(model.spec.charset), []
    device = model.encoder.weight.device
    for first in range(0, len(paths), batch_size):
        canvases, widths = make_batch([load_image(p) for p in paths[first : first + batch_size]], model.spec.input)
        pixels, valid = torch.from_numpy(canvases).to(device), torch.from_numpy(widths).to(device)
        logits, tokens = model.greedy(pixels, valid, steps)
        rows, scores = tokens.cpu().numpy(), logits.softmax(-1).amax(-1).cpu().numpy()
        texts += [charset.decode(row, score)[0] for row, score in zip(rows, scores, strict=True)]
    return texts
