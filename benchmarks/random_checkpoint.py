"""Makes a checkpoint with random weights: it reads nothing, but costs what a trained one costs. Needs PyTorch."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

SHARPER = 80  # logits then spread as those of a trained model do, so that one sees how far rounding moves them


def main() -> int:
    """Writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone", choices=["r31", "edge"])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.safetensors")
    parser.add_argument(
        "--steps",
        type=int,
        default=8,
        metavar="N",
        help="decoding steps: random weights never end a word, so all are run (default: %(default)s)",
    )
    arguments = parser.parse_args()
    import torch

    from robustscanner.spec import ModelSpec, NetworkSpec
    from training.checkpoint import save_checkpoint
    from training.model.robustscanner import RobustScanner

    torch.manual_seed(0)
    network = NetworkSpec(arguments.backbone, max_length=arguments.steps)
    model = RobustScanner(ModelSpec(f"{arguments.backbone}-random", network=network))
    with torch.no_grad():
        model.decoder.prediction.weight *= SHARPER
        # The end token would end it; without it the number of steps is known.
        model.decoder.prediction.bias[model.spec.charset.end_id] = -1e4
    save_checkpoint(arguments.output, model, [{"step": "random", "tool": "benchmarks/random_checkpoint.py"}])
    return 0


if __name__ == "__main__":
    sys.exit(main())
