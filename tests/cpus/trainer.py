"""Takes one training step in bfloat16, or in what the CPU it runs on has instead: `trainer.py`."""

import logging
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "runtime"), str(ROOT)]

from tests.training.small import batches, small_config
from training.trainer import Trainer


def main() -> None:
    """Prints the loss."""
    logging.basicConfig(format="%(message)s")
    config = small_config(precision="bf16")
    trainer = Trainer(config, Path("unused"), [])
    print(f"loss {trainer.train_step(next(batches(config)))['loss']:.4f}, computed in {trainer.half or 'float32'}")


if __name__ == "__main__":
    main()
