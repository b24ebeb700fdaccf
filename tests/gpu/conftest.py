"""Shared by the tests on a GPU: engines, built once with the real program, and pictures with what they say."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from convert.engine.trt.installed import load_library, local_gpu
from robustscanner.labels import LabelledCrop, read_labels

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
EDGE = ROOT / "runtime" / "robustscanner" / "models" / "edge.onnx"
MAX_BATCH = 16
CROPS = 200


def backends() -> list[str]:
    """The installed libraries that build for the GPU here."""
    here = local_gpu()
    found = ["tensorrt"] if find_spec("tensorrt") else []
    if here and find_spec("tensorrt_rtx") and here in load_library("tensorrt-rtx").features.targets:
        found.append("tensorrt-rtx")
    return found


Build = Callable[..., Path]


@pytest.fixture(scope="session", params=backends() or ["tensorrt"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each of them; none is a failure of the build, which says so."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def build(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds an engine, or gives the one that was built before."""
    folder = tmp_path_factory.mktemp(backend)

    def build_engine(model: Path, precision: str) -> Path:
        engine = folder / f"{model.stem}-{precision}.engine"
        if not engine.exists():
            program = [sys.executable, str(ROOT / "convert" / "build_engine.py"), str(model), f"--{precision}"]
            target = ["--backend", backend, "--max-batch", str(MAX_BATCH), "-o", str(engine)]
            done = subprocess.run([*program, *target], capture_output=True, encoding="utf-8", timeout=1200)
            assert done.returncode == 0, done.stderr
        return engine

    return build_engine


@pytest.fixture(scope="session")
def crops() -> list[LabelledCrop]:
    return read_labels(ROOT / "calib_data")[:CROPS]


@pytest.fixture
def canvases() -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Blotches of several widths, as a session takes them."""

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(count)
        images = rng.integers(0, 256, (count, 6, 20, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        return images, rng.choice(np.arange(48, 161, 4), count).astype(np.int32)

    return draw
