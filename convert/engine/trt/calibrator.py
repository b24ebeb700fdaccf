"""TensorRT's own INT8 calibration, for versions before 11: it decides by itself where the 8 bits go.

Where Q/DQ nodes can be written into the graph they are the better way; this one is for comparing, and for TensorRT 8.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import EngineError, RobustScannerError
from robustscanner.gpu.device import find_device, import_pycuda, primary_context
from robustscanner.output import replacing

from ...int8.calibration import CalibrationSet
from .installed import TensorRT

_HEADER = b"# robustscanner calibration of "

Arrays = dict[str, npt.NDArray[Any]]

logger = logging.getLogger(__name__)


@contextmanager
def calibrating(
    library: TensorRT, model: bytes, calibration: CalibrationSet, *, batch: int, cache: Path | None = None
) -> Iterator[Any]:
    """Gives what `build_plan` takes as its calibrator, an `IInt8EntropyCalibrator2`.

    Args:
        library: with `features.calibrator`.
        model: the ONNX file that is to be built; its inputs are `images` and `valid_width`.
        calibration: crops as the graph gets them.
        batch: pictures at a time; TensorRT wants the optimum of the profile.
        cache: a file with scales, read if it was made from just this, and written otherwise.

    Raises:
        EngineError: this TensorRT has no calibrator; no PyCUDA or GPU; or a failure while TensorRT was asking.
    """
    if not library.features.calibrator:
        raise EngineError(f"{library.title} has no INT8 calibrator; use --int8, which writes Q/DQ nodes")
    store = _Store(cache, cache_key(library, model, calibration, batch=batch))
    feed = _Feed(calibration, batch)
    try:
        yield _subclass(library.module)(feed, store)
    except EngineError:
        _raise_first([*feed.errors, *store.errors])  # which TensorRT knows nothing about
        raise
    finally:
        feed.close()
    _raise_first([*feed.errors, *store.errors])


def cache_key(library: TensorRT, model: bytes, calibration: CalibrationSet, *, batch: int) -> str:
    """SHA-256 of all that scales depend on, hexadecimal."""
    digest = hashlib.sha256(f"{library.title}\n{batch}\n{calibration.canvases.shape}\n".encode())
    for data in (model, calibration.canvases.tobytes(), calibration.widths.tobytes()):
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def _subclass(module: Any) -> Any:
    """Made late: the base class is missing from TensorRT 11."""

    class Calibrator(module.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self, feed: "_Feed", store: "_Store") -> None:
            module.IInt8EntropyCalibrator2.__init__(self)  # pybind11 wants its own constructor called, not super()'s
            self._feed, self._store = feed, store

        def get_batch_size(self) -> int:
            return self._feed.batch

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            return self._feed.next(names)

        def read_calibration_cache(self) -> bytes | None:
            return self._store.read()

        def write_calibration_cache(self, cache: Any) -> None:
            self._store.write(bytes(cache))

    return Calibrator


class _Feed:
    """Batches in buffers on the GPU, in the primary context, which TensorRT's runtime calls use too."""

    def __init__(self, calibration: CalibrationSet, batch: int) -> None:
        self.batch = batch
        self.errors: list[Exception] = []
        self._batches = _full_batches(calibration, batch)
        self._driver = import_pycuda("--int8-calibrator")
        find_device(self._driver, 0)
        self._context = primary_context(self._driver, 0)
        self._buffers: dict[str, Any] = {}

    def next(self, names: Sequence[str]) -> list[int] | None:
        """Addresses of the next batch, in the order of names; None after the last."""
        arrays = next(self._batches, None)
        if arrays is None or self.errors:
            return None
        self._context.push()  # TensorRT asks from the thread that builds
        try:
            return [self._upload(name, arrays[name]) for name in names]
        except Exception as error:
            self.errors.append(error)
            return None
        finally:
            self._context.pop()

    def close(self) -> None:
        """Frees the buffers in the context they belong to."""
        self._batches = iter(())
        self._context.push()
        for buffer in self._buffers.values():
            buffer.free()
        self._context.pop()

    def _upload(self, name: str, array: npt.NDArray[Any]) -> int:
        if name not in self._buffers:
            self._buffers[name] = self._driver.mem_alloc(array.nbytes)
        self._driver.memcpy_htod(self._buffers[name], np.ascontiguousarray(array))
        self._driver.Context.synchronize()  # pageable bytes go through stream 0, which TensorRT's does not wait for
        return int(self._buffers[name])


class _Store:
    """A file with scales, and what they were made from in its first line."""

    def __init__(self, path: Path | None, key: str) -> None:
        self.errors: list[Exception] = []
        self._path, self._header = path, _HEADER + key.encode() + b"\n"

    def read(self) -> bytes | None:
        """The scales; None if there are none for just this model and these crops."""
        data = b""
        with suppress(OSError):
            data = self._path.read_bytes() if self._path else b""
        if data and not data.startswith(self._header):
            logger.warning("%s: made from another model, crops or TensorRT; calibrating again", self._path)
        return data.removeprefix(self._header) if data.startswith(self._header) else None

    def write(self, scales: bytes) -> None:
        """Keeps the scales."""
        if self._path is None:
            return
        try:
            with replacing(self._path, force=True) as temporary:
                temporary.write_bytes(self._header + scales)
        except RobustScannerError as error:
            self.errors.append(error)


def _raise_first(errors: Sequence[Exception]) -> None:
    """Raises what had to wait: nothing may be thrown into the C++ code that asks."""
    for error in errors:
        raise EngineError(f"INT8 calibration failed ({error}); fix that, or use --int8") from error


def _full_batches(calibration: CalibrationSet, batch: int) -> Iterator[Arrays]:
    """Every crop once; the last batch is filled up from the start, as TensorRT takes no smaller one."""
    count = len(calibration.widths)
    for start in range(0, count, batch):
        rows = np.arange(start, start + batch) % count
        yield {"images": calibration.canvases[rows], "valid_width": calibration.widths[rows]}
