"""Checkpoints as PaddleOCR, MMOCR and OpenOCR write them, with weights that follow from the parameters' names."""

import json
import pickle
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden.rule import fill

GOLDEN = Path(__file__).parents[1] / "golden"
PEERS = ("paddleocr", "mmocr_0x", "mmocr_1x", "openocr")


def meta_of(peer: str) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((GOLDEN / f"{peer}.json").read_text(encoding="utf-8"))
    return meta


def filled(peer: str) -> dict[str, np.ndarray]:
    """All of the peer's arrays, aliases included."""
    meta = meta_of(peer)
    return {
        name: fill(meta["aliases"].get(name, name), tuple(shape)).astype(dtype)
        for name, (shape, dtype) in meta["parameters"].items()
    }


def hollow(peer: str, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """All of the peer's names, each with a single zero, save those whose name ends as given ("__" for ".")."""
    state = {name: np.zeros(1, np.float32) for name in meta_of(peer)["parameters"]}
    for end, shape in shapes.items():
        (name,) = [name for name in state if name.endswith(end.replace("__", "."))]
        state[name] = np.zeros(shape, np.float32)
    return state


def write(peer: str, state: dict[str, np.ndarray], folder: Path) -> Path:
    """The file that the peer's trainer leaves behind."""
    path = folder / f"{peer}.{'pdparams' if peer == 'paddleocr' else 'pth'}"
    if peer == "paddleocr":
        with path.open("wb") as file:
            pickle.dump({**state, "StructuredToParameterName@@": dict.fromkeys(state, "x")}, file, protocol=4)
        return path
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    if peer == "mmocr_0x":  # its publish_model.py writes PyTorch's older format
        torch.save({"meta": {"CLASSES": 0}, "state_dict": tensors}, path, _use_new_zipfile_serialization=False)
    elif peer == "mmocr_1x":
        _save_as_mmengine(tensors, path)
    else:  # trained on several GPUs, to be resumed
        parallel = {f"module.{name}": tensor for name, tensor in tensors.items()}
        optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        torch.save(
            {"epoch": 3, "state_dict": parallel, "optimizer": optimizer, "metrics": {"acc": np.float64(1)}}, path
        )
    return path


def _save_as_mmengine(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """With its running averages, which are objects of its own, and an EMA copy."""
    module = ModuleType("mmengine.logging.history_buffer")

    def smallest() -> None: ...

    smallest.__module__, smallest.__qualname__ = module.__name__, "HistoryBuffer.min"
    history_type = type("HistoryBuffer", (), {"__module__": module.__name__, "min": smallest})
    module.HistoryBuffer = history_type  # type: ignore[attr-defined]
    history = history_type()
    history.__dict__.update(_log_history=np.arange(3.0), statistics_methods={"min": smallest})
    raw = {"steps": torch.tensor(5), "module.backbone.conv1_1.bias": torch.ones(64)}
    content = {
        "meta": {"epoch": 5, "cfg": "model = dict()"},
        "state_dict": tensors,
        "message_hub": {"log_scalars": {"train/loss": history}},
        "param_schedulers": [{"milestones": Counter([3, 4])}],
        "ema_state_dict": raw,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mmengine", "mmengine.logging"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save(content, path)
