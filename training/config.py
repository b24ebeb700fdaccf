"""One training run's settings: a YAML file with strict keys, single keys replaced on the command line."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from robustscanner.errors import RobustScannerError
from robustscanner.scoring import AUTO, PROTOCOLS
from robustscanner.spec import DICT90, CharsetSpec, InputSpec, ModelSpec, NetworkSpec
from training.data.folder import HoldOut


class ConfigError(RobustScannerError):
    """Settings that cannot be used."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes; where it reads and writes is on the command line."""

    name: str  # of the model, written into its spec
    backbone: str = "edge"  # "edge", "r31" or "small"
    blocks: str = ""  # of "small": how many in its three stages, as in "2,3,1"; empty: all
    row_mixer: str = "lstm"  # of the position branch, see NetworkSpec
    joint_ctc: float = 0.0  # share of CTC when a character is chosen, see NetworkSpec.ctc_weight
    resize: str = "area"  # how crops are shrunk, see InputSpec
    width_px: int = 160  # of the widest canvas
    canvas_step_px: int = 0  # canvases as wide as their word needs, see InputSpec
    canvas_margin_px: int = 0  # and this much after it
    max_length: int = 40  # decoding steps, the end token included
    characters: str = DICT90  # what the model can read, in id order
    batch_size: int = 32  # words a step, of all processes together
    bucket_batches: int = 8  # drawn at once and sorted by width, so that narrow words share a narrow canvas
    steps: int = 17000  # optimiser steps in all, a resumed run's earlier ones included
    schedule: str = "cosine"  # to 1 % of the peak; or "steps", the paper's: a tenth from 3/5 on, a hundredth from 4/5
    learning_rate: float = 1.2e-3  # peak, after the warm-up
    encoder_rate: float = 1.0  # learning rate of the backbone, of small its borrowed part, times this; 0: frozen
    warmup_steps: int = 400  # linear from 0
    weight_decay: float = 0.02  # AdamW's, on matrices and convolutions only
    clip_norm: float = 2.0  # of the whole gradient; 0: not clipped
    ema_decay: float = 0.999  # of the running average of the weights, which is what is validated and shipped; 0: none
    ctc_weight: float = 0.3  # of an auxiliary CTC loss on the feature map: aligns it early; its head is thrown away
    guide_weight: float = 0.0  # of a loss that pulls both branches' attention to where CTC sees the letters
    distill_weight: float = 1.0  # of the divergence from the teacher, if one is given
    columns_weight: float = 0.0  # of the divergence from what the teacher's CTC says of each column
    features_weight: float = 0.0  # of the distance from the teacher's features
    distill_temperature: float = 2.0  # flattens both distributions, so that the teacher's second choices count
    qat: bool = False  # fine-tunes with the backbone's convolutions rounded to 8 bits
    real_share: float = 0.3  # of the words, from the crops given; the others are rendered
    held_out_share: float = 0.1  # of the crops, for validation only
    protocol: str = "auto"  # what counts in validation, see robustscanner.metrics: "auto", "exact", "alphanumeric", …
    photo_pattern: str = ""  # regular expression: what of a file's name says from which photo it is, see `HoldOut`
    # On a CPU that lacks it, float32 is taken instead, see training/precision.py.
    precision: str = "bf16"  # "bf16" autocast, "fp16" autocast with a scaled loss (GPUs only), or "fp32"
    compile: bool = False  # the backbone, with torch.compile
    sync_batch_norm: bool = True  # statistics over the words of all processes
    validate_every: int = 2000  # steps
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2  # the newest ones; best.safetensors stays besides
    seed: int = 1

    def __post_init__(self) -> None:
        for f in fields(self):
            _check_type(f.name, getattr(self, f.name), f.type)
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(f"{key}: {getattr(self, key)!r} is not one of {', '.join(choices)}")
        for key, (lowest, highest) in _LIMITS.items():
            if not lowest <= getattr(self, key) <= highest:
                raise ConfigError(f"{key}: {getattr(self, key)} is not between {lowest:g} and {highest:g}")
        _check_pattern("photo_pattern", self.photo_pattern)
        if not re.fullmatch(r"(\d+(,\d+)*)?", self.blocks):
            raise ConfigError(f"blocks: {self.blocks!r} is not a list of whole numbers; write them as in 2,3,1")
        if self.qat and self.precision != "fp32":
            raise ConfigError(f"qat: {self.precision} is too coarse to learn 8-bit steps; set precision=fp32")

    @property
    def spec(self) -> ModelSpec:
        """The model these settings describe."""
        network = NetworkSpec(
            self.backbone,
            max_length=self.max_length,
            blocks=tuple(int(count) for count in self.blocks.split(",") if count),
            row_mixer=self.row_mixer,
            ctc_weight=self.joint_ctc,
        )
        canvas = InputSpec(
            resize=self.resize,
            width_px=self.width_px,
            canvas_step_px=self.canvas_step_px,
            canvas_margin_px=self.canvas_margin_px,
        )
        return ModelSpec(self.name, CharsetSpec.of(self.characters), canvas, network)

    @property
    def held_out(self) -> HoldOut:
        """Which of the crops are for validation."""
        return HoldOut(self.held_out_share, self.photo_pattern)

    def to_dict(self) -> dict[str, Any]:
        """All settings, in the order above."""
        return asdict(self)


_CHOICES = {
    "schedule": ("cosine", "steps"),
    "precision": ("bf16", "fp16", "fp32"),
    "protocol": (AUTO, *PROTOCOLS),
}
_ANY = float("inf")
_LIMITS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("batch_size", "bucket_batches", "steps", "keep_checkpoints"), (1, _ANY)),
    **dict.fromkeys(("validate_every", "checkpoint_every"), (1, _ANY)),
    **dict.fromkeys(("warmup_steps", "seed", "learning_rate", "weight_decay", "clip_norm"), (0, _ANY)),
    **dict.fromkeys(
        ("ctc_weight", "guide_weight", "distill_weight", "columns_weight", "features_weight", "encoder_rate"), (0, _ANY)
    ),
    **dict.fromkeys(("real_share", "held_out_share", "joint_ctc"), (0, 1)),
    "ema_decay": (0, 0.999999),
    "distill_temperature": (0.1, 100),
}


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads the file and applies overrides of the form `key=value`.

    Raises:
        ConfigError: unreadable, unknown key, or a value of the wrong type or out of bounds.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: not a mapping of settings; write one «key: value» a line")
    _check_keys(data, str(path))
    data |= dict(map(_override, overrides))
    if "name" not in data:
        raise ConfigError(f"{path}: no name; add one, it becomes the model's")
    return TrainConfig(**{key: _as_number(value, _KINDS[key]) for key, value in data.items()})


def save_config(config: TrainConfig, path: Path, command: Sequence[str]) -> None:
    """Every setting of a run, defaults too, in a file that `load_config` reads; the command is a comment in it."""
    settings = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True, width=1000)
    path.write_text(f"# {shlex.join(command)}\n{settings}", encoding="utf-8")


_KINDS: dict[str, Any] = {f.name: f.type for f in fields(TrainConfig)}


def _override(item: str) -> tuple[str, Any]:
    key, equals, text = item.partition("=")
    if not equals:
        raise ConfigError(f"--set {item}: holds no value; write --set {item}=VALUE")
    _check_keys([key], f"--set {item}")
    kind = _KINDS[key]
    try:
        value = {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ConfigError(f"--set {item}: {text!r} is not {_called(kind)}") from None
    return key, value


def _check_keys(keys: Mapping[str, Any] | Sequence[str], where: str) -> None:
    for key in keys:
        if key not in _KINDS:
            raise ConfigError(f"{where}: unknown setting {key!r}; known: {', '.join(_KINDS)}")


def _check_type(key: str, value: object, kind: Any) -> None:
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or isinstance(value, bool) != (kind is bool):
        raise ConfigError(f"{key}: {value!r} is not {_called(kind)}")


def _check_pattern(key: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is not a regular expression: {error}") from None


def _as_number(value: Any, kind: Any) -> Any:
    """YAML takes 1e-3, without a point, for a text."""
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _called(kind: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names[kind]
