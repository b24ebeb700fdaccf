"""The usual ways in which trainers save the same weights, here of a few numbers each, under MMOCR's names."""

import argparse
import collections
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convert.foreign.layouts import COUNTER, LAYOUTS, check_names, find_state
from convert.foreign.weight_file import open_weight_file
from convert.import_checkpoint import _shapes
from robustscanner.errors import SpecError
from robustscanner.spec import ModelSpec

LAYOUT = next(layout for layout in LAYOUTS if layout.title == "MMOCR 0.x")
OURS = [*_shapes(ModelSpec("r31"))]
WEIGHTS = {
    LAYOUT.foreign_name(name): torch.arange(4.0) + 4 * number for number, name in enumerate(OURS)
}  # whole halves
WEIGHTS |= {f"backbone.bn1_1.{COUNTER}": torch.tensor(7)}

Tree = dict[str, Any]


def before(prefix: str, **beside: torch.Tensor) -> Tree:
    return {**beside, **{prefix + name: value for name, value in WEIGHTS.items()}}


WAYS: dict[str, Tree] = {
    "plain": WEIGHTS,
    "meta": {"meta": {"epoch": 5, "time": "x"}, "state_dict": WEIGHTS},
    "DataParallel": {"state_dict": before("module.")},
    "AveragedModel": {"state_dict": before("module.", n_averaged=torch.tensor(7))},
    "MMEngine's raw EMA": {"ema_state_dict": before("module.", steps=torch.tensor([7]))},
    "torch.compile": {"state_dict": before("_orig_mod.")},
    "DataParallel and torch.compile": before("module._orig_mod."),
    "half": {"state_dict": {name: value.half() for name, value in WEIGHTS.items()}},
    "bfloat16": {"state_dict": {name: value.bfloat16() for name, value in WEIGHTS.items()}},
    "a CTC head": {"state_dict": {**WEIGHTS, "ctc_head.weight": torch.zeros(9, 4), "ctc_head.bias": torch.zeros(9)}},
    "a command line": {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=1, data=pathlib.PurePosixPath("/x"))},
    "paths": {"state_dict": WEIGHTS, "config": {"dir": pathlib.Path("/x")}},
    "containers": {"state_dict": WEIGHTS, "seen": {1, 2}, "frozen": frozenset("a"), "d": collections.defaultdict(list)},
    "optimiser": {
        "state_dict": WEIGHTS,
        "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict(),
        "scaler": {"scale": 65536.0},
    },
    "types": {"state_dict": WEIGHTS, "dtype": torch.float32, "device": torch.device("cpu"), "size": torch.Size([1, 2])},
    "random numbers": {"state_dict": WEIGHTS, "rng": torch.get_rng_state(), "np": np.random.get_state()},
    "without counters": {name: value for name, value in WEIGHTS.items() if not name.endswith(COUNTER)},
    "net": {"net": WEIGHTS},
    "weights": {"weights": WEIGHTS, "epoch": 3},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same(tmp_path: Path, way: str, zipped: bool) -> None:
    torch.save(WAYS[way], tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with open_weight_file(tmp_path / "a.pth") as file:
        state, _ = find_state(file.tree)
        check_names(state, LAYOUT, OURS)
        for name in map(LAYOUT.foreign_name, OURS):
            rounded = WAYS[way].get("state_dict", WEIGHTS).get(name, WEIGHTS[name]).float()
            assert np.array_equal(file.array(state[name]), rounded.numpy())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: {**state, "decoder.extra.weight": torch.zeros(2)}, "1 left over: decoder.extra.weight"),
        (lambda state: dict(list(state.items())[1:]), "1 missing"),
        (lambda state: {f"x.{name}": value for name, value in state.items()}, "missing.*left over"),
    ],
)
def test_other_names_are_refused(change: Callable[[Tree], Tree], says: str) -> None:
    arrays = {name: value.numpy() for name, value in WEIGHTS.items()}
    with pytest.raises(SpecError, match=says):
        check_names(change(arrays), LAYOUT, OURS)


def test_what_is_left_out_is_named(caplog: pytest.LogCaptureFixture) -> None:
    check_names([*WEIGHTS, "ctc_head.weight"], LAYOUT, OURS)
    assert caplog.messages == ["left out: ctc_head.weight, which is no part of MMOCR 0.x's RobustScanner"]
