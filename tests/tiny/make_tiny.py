"""Makes the tiny model of the tests again: seeded weights that were never trained, but read every picture differently.

python tests/tiny/make_tiny.py
"""

import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "runtime"), str(ROOT)]

from convert.graph.export import export
from robustscanner.spec import ModelSpec, NetworkSpec
from training.checkpoint import save_checkpoint
from training.model.robustscanner import RobustScanner

SEED, GAIN = 25, 5
SPEC = ModelSpec("tiny", network=NetworkSpec("edge", hidden_size=16, max_length=12, widths=(8, 8, 16, 16)))


def make_model() -> RobustScanner:
    """Weights for which texts depend on the picture, and end somewhere before the last step."""
    torch.manual_seed(SEED)
    model = RobustScanner(SPEC).eval()
    with torch.no_grad():
        # Untrained, every text would be one character over and over: sharper attention tells the places of a picture
        # apart, louder embeddings and states the steps, and evened out classes are all equally likely.
        model.encoder.weight.mul_(8)
        model.decoder.position.embedding.weight.mul_(4)
        model.decoder.embedding.weight.mul_(3)
        for name, weight in model.decoder.rnn.named_parameters():
            weight.mul_(4 if "weight" in name else 1)
        model.decoder.fusion.weight.mul_(4)
        images = (
            torch.randint(0, 256, (64, 6, 20, 3), dtype=torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
        )
        logits, _ = model.greedy(images, torch.randint(12, 41, (64,)) * 4)  # (N, T, classes)
        last = model.decoder.prediction
        mean, spread = logits.mean((0, 1)), logits.std((0, 1)) / GAIN
        last.weight /= spread[:, None]
        last.bias.copy_((last.bias - mean) / spread)
        last.bias[SPEC.charset.end_id] += 1.6 * GAIN  # words of a few characters
    return model


def main() -> None:
    """Writes tiny.safetensors and tiny.onnx beside this file."""
    save_checkpoint(HERE / "tiny.safetensors", make_model(), [{"step": "seed", "tool": "tests/tiny/make_tiny.py"}])
    export(HERE / "tiny.safetensors", HERE / "tiny.onnx", fold_values=False, force=True)


if __name__ == "__main__":
    main()
