"""Shared by the tests of conversion: the tiny model, and a folder of labelled pictures for it."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "runtime"), str(ROOT)]

from robustscanner.cpu import int8_saturates

TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
CROPS = 12

whole_sums = pytest.mark.skipif(int8_saturates(), reason="8-bit products saturate here, where --int8 takes 7 bits")


@pytest.fixture
def tiny() -> onnx.ModelProto:
    return onnx.load(TINY)


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blotches of several sizes, labelled with what the tiny model reads: so its own accuracy is 100 %."""
    from robustscanner.recognizer import Recognizer

    folder = tmp_path_factory.mktemp("crops")
    rng = np.random.default_rng(5)
    names = [f"{index:02}.png" for index in range(CROPS)]
    for index, name in enumerate(names):
        picture = rng.integers(0, 256, (6, 4 + 2 * index, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    with Recognizer(TINY) as recognizer:
        texts = [reading.text for reading in recognizer.read_batch([folder / name for name in names])]
    (folder / "labels.tsv").write_text(
        "".join(f"{n}\t{t}\n" for n, t in zip(names, texts, strict=True)), encoding="utf-8"
    )
    return folder


@pytest.fixture
def edited(tiny: onnx.ModelProto, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], object]], Path]:
    """Saves the tiny model after something was done to it."""

    def save(edit: Callable[[onnx.ModelProto], object]) -> Path:
        edit(tiny)
        onnx.save(tiny, tmp_path / "edited.onnx")
        return tmp_path / "edited.onnx"

    return save
