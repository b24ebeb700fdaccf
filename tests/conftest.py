"""Shared by all tests: those marked `gpu` need one."""

import ctypes
import os
import sys
from functools import cache

import pytest

import robustscanner  # noqa: F401  # before any ONNX Runtime, which looks at what it sets when it is imported


@cache
def missing_gpu() -> str | None:
    """Why there is no NVIDIA GPU here; asked of its driver, which needs no other library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({error})"
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver sees no GPU"
    return None


def pytest_sessionfinish() -> None:
    """Tensors that workers sent lie in a cache of PyTorch's, which complains of each when the interpreter ends."""
    if reductions := sys.modules.get("torch.multiprocessing.reductions"):
        reductions.shared_cache.clear()


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = missing_gpu() if item.get_closest_marker("gpu") else None
    if reason is None:
        return
    if os.environ.get("REQUIRE_GPU") == "1":
        pytest.fail(f"REQUIRE_GPU=1, but {reason}", pytrace=False)
    pytest.skip(reason)
