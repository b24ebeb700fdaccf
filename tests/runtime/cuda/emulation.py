"""The CUDA kernels compiled as C++, where threads play the GPU, and called from Python."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustscanner.gpu.kernels import SCRATCH_HEADER_BYTES, SLOT_BYTES, DecodeCall, RowsCall, sources_sha256

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "runtime" / "cuda"
# Of emulation.cpp: how many threads play a block, and what they hold.
LIGHT, TINY, SHUFFLED, GPU = range(4)
BLOCKS = {LIGHT: 2, TINY: 2, SHUFFLED: 4, GPU: 8}
OLDEST_GCC = 12  # std::barrier and _Float16

Arrays = dict[str, np.ndarray]


@cache
def library() -> ctypes.CDLL:
    """Compiled once, kept in build/ under the digest of its sources; the test is skipped without a compiler."""
    if given := os.environ.get("ROBUSTSCANNER_EMULATION"):  # one that was made with a sanitizer
        return ctypes.CDLL(given)
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no g++ here")
    version = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=True).stdout
    if int(version.split(".")[0]) < OLDEST_GCC:
        pytest.skip(f"{compiler} is version {version.strip()}; the emulation needs {OLDEST_GCC}")
    digest = hashlib.sha256((SOURCES / "emulation.cpp").read_bytes() + sources_sha256(SOURCES).encode()).hexdigest()[
        :16
    ]
    path = ROOT / "build" / "cuda" / f"emulation-{digest}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        compile_emulation(compiler, path, ["-O2"])
    return ctypes.CDLL(str(path))


def compile_emulation(compiler: str, path: Path, options: list[str]) -> None:
    """Renamed into place, as other processes may be doing the same."""
    if platform.machine() in ("x86_64", "AMD64"):
        options = [*options, "-march=native"]  # halves are converted by one instruction
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fPIC", "-shared", "-pthread"]
    part = path.with_suffix(f".{os.getpid()}")
    subprocess.run([compiler, *flags, *options, str(SOURCES / "emulation.cpp"), "-o", str(part)], check=True)
    part.rename(path)


class Scratch:
    """What launches without clusters keep between them."""

    def __init__(self, slots: int = 1 << 18) -> None:
        self.bytes, self.slots = np.zeros(SCRATCH_HEADER_BYTES + SLOT_BYTES * slots, np.uint8), slots


def fill(call: DecodeCall | RowsCall, arrays: Arrays, scratch: Scratch) -> None:
    """Addresses into a call; the arrays have to outlive it."""
    for name, array in arrays.items():
        assert array.flags.c_contiguous, name
        setattr(call, name, array.ctypes.data)
    call.scratch, call.scratch_slots = scratch.bytes.ctypes.data, scratch.slots


def decode(
    memory: Arrays,
    weights: Arrays,
    sizes: dict[str, Any],
    *,
    config: int = LIGHT,
    clusters: bool = False,
    groups: int = 1,
    tile: int = 1,
    scratch: Scratch | None = None,
) -> Arrays:
    """Reads words: tokens, scores, lengths and logits of `memory`; half or float as `weights` are."""
    words, classes = len(memory["keys"]), len(weights["classifier_bias"])
    results = {
        "tokens": np.full((words, sizes["steps"]), -1, np.int32),
        "scores": np.full((words, sizes["steps"]), np.nan, np.float32),
        "lengths": np.zeros(words, np.int32),
        "logits": np.full((words, sizes["steps"], classes), np.nan, np.float32),
    }
    keys, values, channels = memory["keys"], memory["values"], len(weights["classifier"])
    transposed = values.shape[1] == 2 * channels  # as the engines of some versions give them
    call = DecodeCall(
        words=words,
        groups=groups,
        tile=tile,
        places=keys.shape[1 if transposed else 2],
        channels=channels,
        classes=classes,
        **sizes,
    )
    call.key_unit, call.key_place = (1, keys.shape[2]) if transposed else (keys.shape[2], 1)
    call.value_place, call.value_channel = (1, values.shape[2]) if transposed else (values.shape[2], 1)
    if (allowed := memory.get("allowed")) is not None:
        call.allowed_rows = len(allowed)
    if (labels := memory.get("labels")) is not None:
        call.columns, call.label_step, call.label_word = labels.shape[1], labels.shape[2], labels[0].size
        call.blank_step, call.blank_word = memory["blanks"].shape[2], memory["blanks"][0].size
    scratch = scratch or Scratch()  # lives until the launch has ended
    fill(call, {**memory, **weights, **results}, scratch)
    half = weights["classifier"].dtype == np.float16
    assert library().robustscanner_decode(ctypes.byref(call), config, int(half), int(clusters)) > 0
    return results | {"ctc_weight": np.array(call.ctc_weight)}


def rows(
    shares: np.ndarray,
    weights: Arrays,
    *,
    config: int = LIGHT,
    clusters: bool = False,
    groups: int = 1,
    tile: int = 1,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """States (sequences, S, D) of the upper layer, of shares (sequences, S, D, 4)."""
    states = np.full(shares.shape[:3], np.nan, shares.dtype)
    call = RowsCall(sequences=len(shares), groups=groups, tile=tile, columns=shares.shape[1])
    scratch = scratch or Scratch()
    fill(call, {"shares": shares, "states": states, **weights}, scratch)
    half = shares.dtype == np.float16
    assert library().robustscanner_rows(ctypes.byref(call), config, int(half), int(clusters)) > 0
    return states
