"""A borrowed NVIDIA GPU: its context, memory, stream and recorded launches. The only file that uses PyCUDA."""

import ctypes
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from robustscanner.errors import EngineError
from robustscanner.session import SessionOptions

ON_CPU = "use an engine for ONNX Runtime: build_engine.py --backend onnxruntime"
ALIGNMENT_BYTES = 256  # of every device allocation, and what TensorRT asks of every address
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: work of others on the legacy stream would break a recording

Bytes = npt.NDArray[np.uint8]
Launch = Callable[[], None]  # queues work on a stream
_Key = TypeVar("_Key")

_contexts: dict[tuple[Any, int], Any] = {}  # of PyCUDA and a GPU's number

logger = logging.getLogger(__name__)


class RecordingError(EngineError):
    """A CUDA graph that could not be recorded or replayed."""


def load_lazily() -> None:
    """Before anything starts CUDA: kernels are loaded when they are first used, unless the user said otherwise.

    TensorRT before 10 loads thousands of them at its start; NVIDIA's own advice, and the default since CUDA 12.2.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")


def import_pycuda(product: str) -> Any:
    """The module pycuda.driver, for a product that needs it.

    Raises:
        EngineError: it is not installed, or finds no driver.
    """
    load_lazily()
    try:
        import pycuda.driver as drv  # type: ignore[import-not-found,import-untyped,unused-ignore]

        return drv
    except (ImportError, OSError) as error:
        if "libcuda" in str(error):  # PyCUDA is there, the driver is not
            raise EngineError(f"no NVIDIA GPU or driver here ({first_line(error)}); {ON_CPU}") from None
        cure = "pip install pycuda, which compiles it: nvcc has to be on PATH (on a Jetson /usr/local/cuda/bin)"
        raise EngineError(f"{product} needs PyCUDA, which cannot be imported ({first_line(error)}); {cure}") from None


def find_device(drv: Any, number: int) -> Any:
    """The GPU of that number.

    Raises:
        EngineError: there is none.
    """
    try:
        drv.init()
        count = drv.Device.count()
    except drv.Error as error:
        raise EngineError(f"no NVIDIA GPU or driver here ({first_line(error)}); {ON_CPU}") from None
    if not count:
        raise EngineError(f"no NVIDIA GPU or driver here (none is visible); {ON_CPU}")
    if number >= count:
        raise EngineError(f"there is no GPU {number}; give a number from 0 to {count - 1}")
    return drv.Device(number)


def compute_capability(device: Any) -> str:
    """Of a PyCUDA device, e.g. "sm_87"."""
    major, minor = device.compute_capability()
    return f"sm_{major}{minor}"


class Gpu:
    """A borrowed GPU: its context, one stream, and all that has to be given back."""

    def __init__(self, drv: Any, options: SessionOptions) -> None:
        self.drv = drv
        device = find_device(drv, options.gpu.device)
        self.compute_capability = compute_capability(device)
        self.integrated = bool(device.get_attribute(self.drv.device_attribute.INTEGRATED))
        self._event_flags = int(self.drv.event_flags.DISABLE_TIMING)
        if not options.spinning:
            self._event_flags |= int(self.drv.event_flags.BLOCKING_SYNC)
        self._context = primary_context(self.drv, options.gpu.device, spinning=options.spinning)
        self._owned, self._memory = ExitStack(), ExitStack()
        with self.current():
            self.stream = self.drv.Stream(_NON_BLOCKING)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes its context current in this thread, whatever was before."""
        self._context.push()
        try:
            yield
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they hold TensorRT's objects, which may not die later
            raise
        finally:
            self.drv.Context.pop()

    def compile(self, source: str) -> Any:
        """CUDA C++ for this GPU, as a module; PyCUDA keeps what it compiled before.

        Raises:
            EngineError: there is no nvcc, or it refuses.
        """
        try:
            from pycuda import compiler  # type: ignore[import-not-found,import-untyped,unused-ignore]

            return self.drv.module_from_buffer(compiler.compile(source, arch=self.compute_capability, no_extern_c=True))
        except (ImportError, OSError, self.drv.CompileError) as error:
            cure = "nvcc has to be on PATH (on a Jetson /usr/local/cuda/bin)"
            raise EngineError(f"cannot compile a kernel for this GPU ({first_line(error)}); {cure}") from None

    def wait_for(self, stream: int) -> None:
        """Lets what is queued from now on wait for what another stream, by its handle, holds at this moment."""
        try:
            from cuda.bindings import driver as cuda  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except (ImportError, OSError, RuntimeError):
            self.drv.Context.synchronize()  # waits for more, and at once
            return
        for_it = cuda.CUstream(stream)
        status, event = cuda.cuEventCreate(int(cuda.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        statuses = [status]
        if not int(status):
            statuses += cuda.cuEventRecord(event, for_it)
            statuses += cuda.cuStreamWaitEvent(cuda.CUstream(self.stream.handle), event, 0)
            cuda.cuEventDestroy(event)
        if failed := next((status for status in statuses if int(status)), None):
            raise EngineError(f"cannot wait for stream {stream:#x} ({failed.name}); give the handle of a CUDA stream")

    def own(self, give_back: Callable[[], object]) -> None:
        """Notes how to give back something that uses memory, and so goes before it; the latest goes first."""
        self._owned.callback(give_back)

    def close(self) -> None:
        """Gives everything back, with the context current, when nothing runs any more."""
        with self.current():
            with suppress(self.drv.Error):  # a GPU that failed has nothing left to wait for
                self.stream.synchronize()
            with self._memory, self._owned:
                pass
            self.stream = None

    def device_memory(self, size_bytes: int) -> int:
        """Device memory that lives as long as the session: its address."""
        allocation = self.drv.mem_alloc(max(size_bytes, ALIGNMENT_BYTES))
        self._memory.callback(allocation.free)
        return int(allocation)

    def filled_memory(self, contents: Mapping[_Key, Bytes]) -> dict[_Key, int]:
        """Device memory that begins with these bytes, which are there when this returns: the addresses."""
        addresses = {key: self.device_memory(array.nbytes) for key, array in contents.items()}
        for key, array in contents.items():
            self.drv.memcpy_htod(addresses[key], array)
        self.drv.Context.synchronize()  # pageable bytes go through stream 0, which ours does not wait for
        return addresses

    def host_memory(self, size_bytes: int) -> Bytes:
        """Page-locked memory, without which a copy is not asynchronous."""
        array: Bytes = self.drv.pagelocked_empty(max(size_bytes, 1), np.uint8)
        self._memory.callback(array.base.free)  # type: ignore[union-attr]
        return array

    def shared_memory(self, size_bytes: int) -> tuple[Bytes, int]:
        """Page-locked memory that the device reads and writes in place, and its device address."""
        array = self.drv.pagelocked_empty(max(size_bytes, 1), np.uint8, mem_flags=self.drv.host_alloc_flags.DEVICEMAP)
        self._memory.callback(array.base.free)
        return array, int(array.base.get_device_pointer())

    def events(self, count: int) -> list[Any]:
        """Markers for the stream."""
        events = [self.drv.Event(self._event_flags) for _ in range(count)]
        self._memory.callback(events.clear)
        return events


class Recorder:
    """CUDA graphs: work that was queued once, replayed as one launch. Every status is checked."""

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, cuda.CUstream(stream.handle)

    @classmethod
    def open(cls, stream: Any) -> "Recorder | None":
        """A recorder for this stream; None without cuda.bindings: PyCUDA has no graphs."""
        try:
            from cuda.bindings import driver as cuda  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except (ImportError, OSError, RuntimeError) as error:
            logger.info("no CUDA graphs: cuda.bindings cannot be imported (%s); pip install cuda-bindings", error)
            return None
        return cls(cuda, stream)

    def record(self, queue: Launch) -> Any:
        """Records what `queue` queues, which does not run now; raises `RecordingError`, or what `queue` does."""
        # Thread-local: other threads of this process may allocate and wait meanwhile.
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            queue()
        except BaseException:
            with suppress(RecordingError):  # ends the recording in any case, and a broken one with an error
                self._call("cuGraphDestroy", self._call("cuStreamEndCapture", self._stream))
            raise
        graph = self._call("cuStreamEndCapture", self._stream)
        try:
            recorded = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        with suppress(RecordingError):  # or the first replay does it
            self._call("cuGraphUpload", recorded, self._stream)
        return recorded

    def replay(self, recorded: Any) -> None:
        """Queues what was recorded."""
        self._call("cuGraphLaunch", recorded, self._stream)

    def free(self, recorded: Any) -> None:
        """Gives a recording back."""
        with suppress(RecordingError):  # of a GPU that failed
            self._call("cuGraphExecDestroy", recorded)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return call_driver(self._cuda, name, *arguments)
        except EngineError as error:
            raise RecordingError(f"{error}; set GpuOptions(cuda_graphs=False)") from None


def call_driver(cuda: Any, name: str, *arguments: Any) -> Any:
    """What a function of cuda.bindings gives besides its status.

    Raises:
        EngineError: another status than success, or there is no such function here.
    """
    try:
        status, *values = getattr(cuda, name)(*arguments)
    except (AttributeError, RuntimeError) as error:  # older bindings, or a driver that is older than they are
        raise EngineError(f"{name}: {first_line(error)}") from None
    if int(status):
        raise EngineError(f"{name}: {getattr(status, 'name', status)}")
    return values[0] if values else None


def primary_context(drv: Any, number: int, *, spinning: bool = True) -> Any:
    """The context that CUDA's runtime, torch and CuPy use too: retained once, until the process ends.

    Args:
        drv: the module pycuda.driver, initialised.
        number: of the GPU.
        spinning: how threads wait, if nobody in this process has opened the context before.
    """
    if (drv, number) not in _contexts:
        _choose_waiting(number, spinning=spinning)
        context = drv.Device(number).retain_primary_context()
        # Never destroyed: PyCUDA's destructor detaches from a context, which is no way to release a primary one. The
        # driver would refuse it, keep it retained, and leave it current in this thread.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
        _contexts[drv, number] = context
    return _contexts[drv, number]


def is_lost(drv: Any, number: int) -> bool:
    """Whether a fault broke the GPU's primary context, which stays so until the process ends."""
    if (drv, number) not in _contexts:
        return False
    _contexts[drv, number].push()
    try:
        drv.Context.synchronize()
    except drv.Error:
        return True
    finally:
        drv.Context.pop()
    return False


def _choose_waiting(number: int, *, spinning: bool) -> None:
    """A new context's waits are to be quick, or cheap; PyCUDA cannot say it."""
    with suppress(ImportError, OSError, RuntimeError):  # without cuda.bindings the driver chooses
        from cuda.bindings import driver as cuda

        status, device = cuda.cuDeviceGet(number)
        _, _, active = cuda.cuDevicePrimaryCtxGetState(device)
        if not int(status) and not active:
            flags = cuda.CUctx_flags
            chosen = flags.CU_CTX_SCHED_SPIN if spinning else flags.CU_CTX_SCHED_BLOCKING_SYNC
            cuda.cuDevicePrimaryCtxSetFlags(device, int(chosen))


def first_line(error: Exception) -> str:
    """What others' exceptions say, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
