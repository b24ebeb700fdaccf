"""TensorRT's own calibrator, on the stand-in driver."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.engine.trt.calibrator import calibrating
from convert.int8.calibration import CalibrationSet
from robustscanner.errors import EngineError
from tests.convert.engine.trt import fake_tensorrt
from tests.cuda_driver.driver import LEFT, Driver, missing

BATCH = 2
INPUTS = ["valid_width", "images"]  # not in our order


@pytest.fixture
def gpu() -> Iterator[Driver]:
    """The stand-in driver; nothing may be left on it."""
    if reason := missing():
        pytest.skip(reason)
    driver = Driver()
    driver.plug_in()
    yield driver
    left = {what: driver.left(what) for what in LEFT}
    problems = driver.problems()
    driver.unplug()
    assert not any(left.values()), left
    assert not problems


@pytest.fixture
def crops() -> CalibrationSet:
    canvases = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 48, 160, 3), np.uint8)
    return CalibrationSet(Path("crops"), (), canvases, np.arange(5, dtype=np.int32) + 100, ())


def feed_all(calibrator: Any, gpu: Driver) -> list[list[int]]:
    """What TensorRT would see: first pixel of every picture, batch after batch."""
    seen = []
    while (addresses := calibrator.get_batch(INPUTS)) is not None:
        width_bytes, pixel_bytes = BATCH * 4, BATCH * 48 * 160 * 3
        widths = np.frombuffer(gpu.memory(addresses[0], width_bytes).raw, np.int32)
        images = np.frombuffer(gpu.memory(addresses[1], pixel_bytes).raw, np.uint8).reshape(BATCH, 48, 160, 3)
        assert widths.tolist() == (images[:, 0, 0, 0].astype(np.int32) + 100).tolist()
        seen.append(images[:, 0, 0, 0].tolist())
    return seen


@pytest.mark.parametrize("name", ["8.6.1", "10.3.0"])
def test_feeds_every_crop_in_full_batches(name: str, gpu: Driver, crops: CalibrationSet) -> None:
    library, _notes = fake_tensorrt.load(name)
    with calibrating(library, b"model", crops, batch=BATCH) as calibrator:
        assert isinstance(calibrator, library.module.IInt8EntropyCalibrator2)
        assert calibrator.get_batch_size() == 2
        assert calibrator.read_calibration_cache() is None
        assert feed_all(calibrator, gpu) == [[0, 1], [2, 3], [4, 0]]
        assert gpu.left("device allocations") == 2  # one buffer an input, used again and again


def test_scales_are_kept_for_just_this_model_and_these_crops(
    gpu: Driver, crops: CalibrationSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    cache = tmp_path / "scales.cache"
    with calibrating(library, b"model", crops, batch=BATCH, cache=cache) as calibrator:
        calibrator.write_calibration_cache(memoryview(b"x: 3f800000\n"))
    with calibrating(library, b"model", crops, batch=BATCH, cache=cache) as calibrator:
        assert calibrator.read_calibration_cache() == b"x: 3f800000\n"
    assert not caplog.records
    crops.widths[0] += 1
    with calibrating(library, b"model", crops, batch=BATCH, cache=cache) as calibrator:
        assert calibrator.read_calibration_cache() is None
    assert "scales.cache: made from another model, crops or TensorRT" in caplog.text


def test_an_error_waits_until_tensorrt_is_done(gpu: Driver, crops: CalibrationSet) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    gpu.fail("cuMemcpyHtoD")
    with (
        pytest.raises(EngineError, match=r"calibration failed \(cuMemcpyHtoD failed"),
        calibrating(library, b"model", crops, batch=BATCH) as calibrator,
    ):
        assert calibrator.get_batch(INPUTS) is None


def test_a_cache_that_cannot_be_written(gpu: Driver, crops: CalibrationSet, tmp_path: Path) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    with (
        pytest.raises(EngineError, match="its folder does not exist"),
        calibrating(library, b"model", crops, batch=BATCH, cache=tmp_path / "no" / "scales.cache") as calibrator,
    ):
        calibrator.write_calibration_cache(b"x")


def test_gone_from_tensorrt_11(gpu: Driver, crops: CalibrationSet) -> None:
    library, _notes = fake_tensorrt.load("11.4.0.106")
    with (
        pytest.raises(EngineError, match=r"TensorRT 11\.4\.0\.106 has no INT8 calibrator; use --int8"),
        calibrating(library, b"model", crops, batch=BATCH),
    ):
        pass


def test_needs_pycuda(crops: CalibrationSet, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with (
        pytest.raises(EngineError, match=r"needs PyCUDA, .*pip install pycuda"),
        calibrating(library, b"model", crops, batch=BATCH),
    ):
        pass
