"""What ptxas says of the CUDA kernels: the table is of these very sources, and within what a GPU has."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kernels import (
    MOST_REGISTERS,
    REGISTERS,
    SHARED_KIB,
    SOURCE,
    TARGETS,
    compile_for,
    nvcc_version,
    shared_memory,
)
from robustscanner.gpu.kernels import THREADS, sources_sha256

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "kernels.json"
NAMES = {"decode_float", "decode_half", "rows_float", "rows_half"}


def check(found: dict[str, Any]) -> None:
    """No spill, and a block fits a multiprocessor."""
    assert set(found["kernels"]) == NAMES
    for figures in found["kernels"].values():
        assert figures["stack"] == figures["stores"] == figures["loads"] == 0
        assert figures["registers"] <= MOST_REGISTERS
        assert -(-figures["registers"] // 8) * 8 * THREADS <= REGISTERS


def test_the_table_is_of_these_sources() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["sources_sha256"] == sources_sha256(SOURCE.parent), "run benchmarks/kernels.py as its --help says"
    assert list(result["targets"]) == [f"sm_{target}" for target in TARGETS]
    for found in result["targets"].values():
        check(found)
        assert found["cubin_bytes"] < 2e6 / 4  # an engine has it for its GPUs alone, the wheel for none


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not here")
def test_compiles_here() -> None:
    """For one GPU without clusters; all others take a minute."""
    found, result = compile_for(87), json.loads(RESULT.read_text(encoding="utf-8"))
    check(found)
    if nvcc_version() == result["nvcc"]:
        assert found["kernels"] == result["targets"]["sm_87"]["kernels"]


@pytest.mark.parametrize("target", TARGETS)
def test_launches_fit(target: int) -> None:
    for launch in shared_memory(target).values():
        assert launch.shared_bytes <= SHARED_KIB[target] * 1024
        assert launch.groups in (1, 2)
