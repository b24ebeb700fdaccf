"""One training run's settings: a YAML file with strict keys, single keys replaced on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from robustscanner.errors import RobustScannerError
from robustscanner.spec import DICT90, CharsetSpec, InputSpec, ModelSpec, NetworkSpec


class ConfigError(RobustScannerError):
    """Settings that cannot be used."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes; where it reads and writes is on the command line."""

    name: str  # of the model, written into its spec
    backbone: str = "edge"  # "edge" or "r31"
    resize: str = "area"  # how crops are shrunk, see InputSpec
    max_length: int = 40  # decoding steps, the end token included
    characters: str = DICT90  # what the model can read, in id order
    batch_size: int = 32  # words a step
    bucket_batches: int = 8  # drawn at once and sorted by width, so that narrow words share a narrow canvas
    steps: int = 17000  # optimiser steps in all, a resumed run's earlier ones included
    learning_rate: float = 1.2e-3  # peak, behind the warm-up; decays to 1 % along a cosine
    warmup_steps: int = 400  # linear from 0
    weight_decay: float = 0.02  # AdamW's, on matrices and convolutions only
    clip_norm: float = 2.0  # of the whole gradient
    ctc_weight: float = 0.3  # of an auxiliary CTC loss on the feature map: aligns it early; its head is thrown away
    real_share: float = 0.3  # of the words, from the crops given; the others are rendered
    held_out_share: float = 0.1  # of the crops, for validation only
    precision: str = "bf16"  # "bf16" autocast or "fp32"
    validate_every: int = 2000  # steps
    checkpoint_every: int = 500  # steps
    seed: int = 1

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kind = getattr(self, f.name), f.type
            if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
                raise ConfigError(f"{f.name}: {value!r} is not a {kind.__name__}")
        if self.precision not in ("bf16", "fp32"):
            raise ConfigError(f"precision: {self.precision!r} is neither bf16 nor fp32")

    @property
    def spec(self) -> ModelSpec:
        """The model these settings describe."""
        network = NetworkSpec(self.backbone, max_length=self.max_length)
        return ModelSpec(self.name, CharsetSpec.of(self.characters), InputSpec(resize=self.resize), network)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads the file and applies overrides of the form `key=value`.

    Raises:
        ConfigError: unreadable, unknown key, or a value of the wrong type.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: not a mapping of settings")
    for item in overrides:
        key, _, value = item.partition("=")
        data[key] = yaml.safe_load(value)
    known = [f.name for f in fields(TrainConfig)]
    unknown = [key for key in data if key not in known]
    if unknown or "name" not in data:
        raise ConfigError(
            f"{path}: unknown setting {unknown[0]!r}; known: {', '.join(known)}" if unknown else f"{path}: no name"
        )
    return TrainConfig(**data)
