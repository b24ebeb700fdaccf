"""Checkpoints: safetensors that hold the weights and, in their metadata, the spec and history. No pickle either way."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from robustscanner.errors import SpecError
from robustscanner.output import replacing
from robustscanner.spec import HISTORY_KEY, SPEC_KEY, ModelSpec, to_metadata, trained_ranges
from training.model.robustscanner import RobustScanner

Ranges = Mapping[str, tuple[float, float]]


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a file complete or not at all, so that an interrupted run leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    with replacing(path, force=True) as temporary:
        temporary.write_bytes(data)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata.

    Raises:
        SpecError: missing or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SpecError(f"{path}: no readable safetensors file ({str(error).splitlines()[0]})") from None


def save_checkpoint(
    path: Path,
    model: RobustScanner,
    history: Sequence[dict[str, Any]],
    *,
    ranges: Ranges | None = None,
    half: bool = False,
) -> None:
    """A trained model: weights, spec, what was done to it, and the ranges it was trained to be rounded within.

    `half` stores float32 weights in half precision, as released models are; they are float32 again once loaded.
    """
    weights = model.state_dict()
    if half:
        weights = {name: w.half() if w.dtype == torch.float32 else w for name, w in weights.items()}
    save_tensors(path, weights, to_metadata(model.spec, history, ranges=ranges))


def load_ranges(path: Path) -> Ranges:
    """Activation ranges of a checkpoint that was trained with rounding, by tensor name; {} of others.

    Raises:
        SpecError: missing or not a safetensors file.
    """
    return trained_ranges(load_tensors(path)[1])


def load_checkpoint(path: Path) -> tuple[RobustScanner, list[dict[str, Any]]]:
    """The model, in evaluation mode, and its history.

    Raises:
        SpecError: not a checkpoint of ours, weights that do not fit its spec, or weights that are not finite.
    """
    tensors, metadata = load_tensors(path)
    if SPEC_KEY not in metadata:
        raise SpecError(f"{path}: holds no model spec; convert foreign weights with convert/import_checkpoint.py")
    model = RobustScanner(ModelSpec.from_json(metadata[SPEC_KEY]))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise SpecError(f"{path}: weights do not fit the spec: {' '.join(str(error).split())[:300]}") from None
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise SpecError(f"{path}: {broken[0]} holds NaN or infinity; take an earlier checkpoint of that training")
    return model.eval(), json.loads(metadata.get(HISTORY_KEY, "[]"))
