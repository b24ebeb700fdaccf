"""The same weights decoded as PaddleOCR's Python code does: each step runs the whole text again, and all steps run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoint import load_checkpoint
from training.model.position import attend
from training.model.robustscanner import RobustScanner


def open_eager(checkpoint: Path, threads: int) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Canvases and their valid widths to tokens and scores, (N, T) each."""
    torch.set_num_threads(threads)
    model, _ = load_checkpoint(checkpoint)

    def run(images: Any, widths: Any) -> tuple[Any, Any]:
        tokens, scores = decode(model, torch.from_numpy(images), torch.from_numpy(widths))
        return tokens.numpy(), scores.numpy()

    return run


@torch.inference_mode()
def decode(model: RobustScanner, images: Tensor, valid_width: Tensor) -> tuple[Tensor, Tensor]:
    """T steps, each with LSTM and attention over all T places of the text; only the newest place is used."""
    decoder, steps = model.decoder, model.spec.network.max_length
    memory = model.remember(model.see(images), valid_width, steps)
    said = torch.full((len(images), steps + 1), model.spec.charset.start_id, dtype=torch.long)
    scores = torch.ones(len(images), steps)
    for step in range(steps):
        query, _ = decoder.rnn(decoder.embedding(said[:, :steps]))  # (N, T, D)
        glimpses, _ = attend(query, memory.keys, memory.values, memory.mask)  # (N, T, C)
        here = slice(step, step + 1)
        logits = decoder.predict(glimpses[:, here], memory.position[:, here])[:, 0]  # (N, classes)
        scores[:, step], said[:, step + 1] = logits.softmax(-1).max(-1)
    return said[:, 1:], scores
