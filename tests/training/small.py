"""A run that takes a second: a tiny network, made-up pictures. As a program it trains until it is killed."""

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from robustscanner.charset import Charset
from robustscanner.labels import LabelledCrop
from robustscanner.spec import CharsetSpec, InputSpec, ModelSpec, NetworkSpec
from training.config import TrainConfig
from training.data.stream import Batch
from training.progress import Report
from training.trainer import Trainer

BASE = {"name": "small", "characters": "0123456789ab", "precision": "fp32", "batch_size": 4, "max_length": 8}
SCHEDULE = {"steps": 4, "warmup_steps": 2, "validate_every": 2, "checkpoint_every": 2}


class SmallConfig(TrainConfig):
    """Settings of a network with few channels."""

    @property
    def spec(self) -> ModelSpec:
        network = NetworkSpec(self.backbone, 16, self.max_length, (8, 8, 16, 16))
        return ModelSpec(self.name, CharsetSpec.of(self.characters), InputSpec(), network)


def small_config(**changes: Any) -> SmallConfig:
    return SmallConfig(**{**BASE, **SCHEDULE, **changes})


def make_batch(config: TrainConfig, seed: int) -> Batch:
    """Noise of one width, with labels of several lengths."""
    rng, charset = np.random.default_rng(seed), Charset(config.spec.charset)
    images = [rng.integers(0, 256, (30, 60, 3), np.uint8) for _ in range(config.batch_size)]
    lengths = rng.integers(1, 6, config.batch_size)
    labels = [charset.encode("".join(rng.choice(list(config.characters), length))) for length in lengths]
    return Batch.of(images, labels, config.spec)


def batches(config: TrainConfig, first: int = 0) -> Iterator[Batch]:
    """Those of each step, from one on."""
    return (make_batch(config, step) for step in range(first, config.steps))


def make_crops(folder: Path) -> list[LabelledCrop]:
    cv2.imwrite(str(folder / "word.png"), np.full((20, 50, 3), 200, np.uint8))
    return [LabelledCrop(folder / "word.png", "12")] * 3


class SilentBar:
    def update(self) -> None: ...
    def set_postfix(self, **values: str) -> None: ...


def run(trainer: Trainer, given: Iterator[Batch] | None = None) -> None:
    """From where it stands to the end."""
    trainer.folder.path.mkdir(exist_ok=True)
    report = Report(trainer.folder.log, SilentBar(), steps=trainer.config.steps, words=4, every=1)
    trainer.run(given or batches(trainer.config, trainer.step), report)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return list(trainer.learner.state_dict().values())


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    torch.set_num_threads(1)
    trainer = Trainer(small_config(steps=int(arguments[1])), folder / "run", make_crops(folder))
    run(trainer, chain(islice(batches(trainer.config), trainer.config.steps - 1), waiting()))


def waiting() -> Iterator[Batch]:
    """No batch: who is to kill this process may be slow on a busy machine."""
    time.sleep(600)
    yield from ()


if __name__ == "__main__":
    main(sys.argv[1:])
