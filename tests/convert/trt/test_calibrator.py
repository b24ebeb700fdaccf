"""TensorRT's own calibrator, with a GPU of NumPy arrays."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from convert.int8.calibration import CalibrationSet
from convert.trt.calibrator import calibrating
from robustscanner.errors import EngineError
from tests.convert.trt import fake_tensorrt

INPUTS = ["valid_width", "images"]  # not in our order


class FakeGPU:
    """PyCUDA's driver, as far as it is used; knows which context is current."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.current = 0
        self.retained = 0
        self.full = False

    def module(self) -> ModuleType:
        gpu, module = self, ModuleType("pycuda.driver")

        class Buffer:
            def __init__(self, size: int) -> None:
                gpu.check()
                self.address = 1000 + len(gpu.memory)
                gpu.memory[self.address] = None

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                gpu.check()
                del gpu.memory[self.address]

        class Context:
            def push(self) -> None:
                gpu.current += 1

            def pop(self) -> None:
                gpu.current -= 1

            def detach(self) -> None:
                gpu.retained -= 1

        class Device:
            def __init__(self, index: int) -> None:
                pass

            def retain_primary_context(self) -> Context:
                gpu.retained += 1
                return Context()

        module.Error = type("Error", (Exception,), {})  # type: ignore[attr-defined]
        module.init = lambda: None  # type: ignore[attr-defined]
        module.Device, module.mem_alloc = Device, Buffer  # type: ignore[attr-defined]
        module.memcpy_htod = self.copy  # type: ignore[attr-defined]
        return module

    def copy(self, buffer: Any, array: Any) -> None:
        self.check()
        if self.full:
            raise RuntimeError("cuMemcpyHtoD failed: out of memory")
        self.memory[int(buffer)] = array.copy()

    def check(self) -> None:
        assert self.current == 1, "no context is current"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGPU:
    fake = FakeGPU()
    package = ModuleType("pycuda")
    package.driver = fake.module()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
    return fake


@pytest.fixture
def crops() -> CalibrationSet:
    canvases = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 48, 160, 3), np.uint8)
    return CalibrationSet(Path("crops"), (), canvases, np.arange(5, dtype=np.int32) + 100, ())


def feed_all(calibrator: Any, gpu: FakeGPU) -> list[list[int]]:
    """What TensorRT would see: first pixel of every picture, batch after batch."""
    seen = []
    while (addresses := calibrator.get_batch(INPUTS)) is not None:
        widths, images = (gpu.memory[address] for address in addresses)
        assert widths.tolist() == (images[:, 0, 0, 0].astype(np.int32) + 100).tolist()
        seen.append(images[:, 0, 0, 0].tolist())
    return seen


@pytest.mark.parametrize("name", ["8.6.1", "10.3.0"])
def test_feeds_every_crop_in_full_batches(name: str, gpu: FakeGPU, crops: CalibrationSet) -> None:
    library, _notes = fake_tensorrt.load(name)
    with calibrating(library, b"model", crops, batch=2) as calibrator:
        assert isinstance(calibrator, library.module.IInt8EntropyCalibrator2)
        assert calibrator.get_batch_size() == 2
        assert calibrator.read_calibration_cache() is None
        assert feed_all(calibrator, gpu) == [[0, 1], [2, 3], [4, 0]]
        assert len(gpu.memory) == 2  # one buffer an input, used again and again
    assert (gpu.memory, gpu.current, gpu.retained) == ({}, 0, 0)


def test_scales_are_kept_for_just_this_model_and_these_crops(
    gpu: FakeGPU, crops: CalibrationSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    cache = tmp_path / "scales.cache"
    with calibrating(library, b"model", crops, batch=2, cache=cache) as calibrator:
        calibrator.write_calibration_cache(memoryview(b"x: 3f800000\n"))
    with calibrating(library, b"model", crops, batch=2, cache=cache) as calibrator:
        assert calibrator.read_calibration_cache() == b"x: 3f800000\n"
    assert not caplog.records
    crops.widths[0] += 1
    with calibrating(library, b"model", crops, batch=2, cache=cache) as calibrator:
        assert calibrator.read_calibration_cache() is None
    assert "scales.cache: made from another model, crops or TensorRT" in caplog.text


def test_an_error_waits_until_tensorrt_is_done(gpu: FakeGPU, crops: CalibrationSet) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    gpu.full = True
    with (
        pytest.raises(EngineError, match=r"calibration failed \(cuMemcpyHtoD failed"),
        calibrating(library, b"model", crops, batch=2) as calibrator,
    ):
        assert calibrator.get_batch(INPUTS) is None
    assert (gpu.memory, gpu.current, gpu.retained) == ({}, 0, 0)


def test_a_cache_that_cannot_be_written(gpu: FakeGPU, crops: CalibrationSet, tmp_path: Path) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    with (
        pytest.raises(EngineError, match="its folder does not exist"),
        calibrating(library, b"model", crops, batch=2, cache=tmp_path / "no" / "scales.cache") as calibrator,
    ):
        calibrator.write_calibration_cache(b"x")


def test_gone_from_tensorrt_11(gpu: FakeGPU, crops: CalibrationSet) -> None:
    library, _notes = fake_tensorrt.load("11.4.0.106")
    with (
        pytest.raises(EngineError, match=r"TensorRT 11\.4\.0\.106 has no INT8 calibrator; use --int8"),
        calibrating(library, b"model", crops, batch=2),
    ):
        pass


def test_needs_pycuda(crops: CalibrationSet, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _notes = fake_tensorrt.load("8.6.1")
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with (
        pytest.raises(EngineError, match=r"needs PyCUDA .*pip install pycuda"),
        calibrating(library, b"model", crops, batch=2),
    ):
        pass
