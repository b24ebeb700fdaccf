"""A GPU of Python: stand-ins for TensorRT, PyCUDA and cuda.bindings, strict where the real ones are merely undefined.

A plan is a line of JSON and an ONNX file, run by ONNX Runtime. Queued work runs only when somebody waits for it, and
only as far as they wait. Device memory begins as garbage, has addresses of its own, and every access is checked; so
are the current context of each call, the page-lock of each copy, and the order in which things are given back.
"""

import gc
import json
import sys
import threading
import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]

GARBAGE = 0xCD
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}
_GAP = 1 << 20  # between allocations, so that an overrun hits nothing
_sessions: dict[bytes, Any] = {}  # kept, as are the shapes that were inferred
_shapes: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}


class FakeError(Exception):
    """pycuda.driver.Error."""


class FakeMemoryError(FakeError):
    """pycuda.driver.MemoryError."""


class Wrong(AssertionError):
    """The session did what a real GPU would punish with garbage, a crash or a leak."""


def plan(model: onnx.ModelProto, smallest: int = 1, largest: int = 8, **papers: Any) -> bytes:
    """What a builder would have made of a model; `papers` overwrite what the plan says of itself."""
    header = json.dumps({"magic": "plan", "min": smallest, "max": largest, **papers})
    return header.encode() + b"\n" + model.SerializeToString()


class FakeGpu:
    """The machine, and what happened on it."""

    def __init__(
        self,
        *,
        compute_capability: tuple[int, int] = (8, 7),
        integrated: bool = False,
        devices: int = 1,
        recordable: bool = True,
        one_context_per_profile: bool = False,
        api: Mapping[str, Any] | None = None,
    ) -> None:
        self.compute_capability, self.integrated, self.devices = compute_capability, integrated, devices
        self.recordable, self.one_context_per_profile = recordable, one_context_per_profile
        self.api = api  # a file of tests/tensorrt_api: what this version has; None: everything
        self.runs: Counter[str] = Counter()  # of plans, by what they are
        self.calls: Counter[str] = Counter()
        self.fails_at: dict[str, int] = {}  # name of a call -> which one of them fails, from 1; 0: each
        self.problems: list[str] = []
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}  # by device address; page-locked, mapped or not
        self.graphs: set[int] = set()
        self.objects: weakref.WeakSet[Any] = weakref.WeakSet()
        self.streams: weakref.WeakSet[FakeStream] = weakref.WeakSet()
        self._next_address, self._next_graph = 1 << 40, 1
        self._thread = threading.local()

    def modules(self, backend: str = "tensorrt") -> dict[str, ModuleType]:
        """What to put into `sys.modules`."""
        name = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[backend]
        drv, cuda = _pycuda(self), _cuda(self)
        return {
            name: _tensorrt(self, name),
            "pycuda": _module("pycuda", driver=drv),
            "pycuda.driver": drv,
            "cuda": _module("cuda"),
            "cuda.bindings": _module("cuda.bindings", driver=cuda),
            "cuda.bindings.driver": cuda,
        }

    def leftovers(self) -> list[str]:
        """What nobody gave back, and what was done in the wrong order."""
        if len(self.objects) or len(self.streams):
            gc.collect()
        left = [f"{len(self.memory)} device allocations"] if self.memory else []
        left += [f"{len(self.pinned)} page-locked allocations"] if self.pinned else []
        left += [f"{len(self.graphs)} graphs"] if self.graphs else []
        left += [type(thing).__name__ for thing in (*self.objects, *self.streams)]
        return left + self.problems

    def fails(self, name: str) -> bool:
        """Counts a call; whether it is to fail."""
        self.calls[name] += 1
        return name in self.fails_at and self.fails_at[name] in (0, self.calls[name])

    @property
    def stack(self) -> list["FakeContext"]:
        """The contexts that this thread pushed."""
        if not hasattr(self._thread, "stack"):
            self._thread.stack = []
        stack: list[FakeContext] = self._thread.stack
        return stack

    def check_context(self) -> None:
        if not self.stack:
            raise Wrong("no context is current")

    def address(self, size_bytes: int) -> int:
        """Of a new allocation."""
        address = self._next_address
        self._next_address += (size_bytes // _GAP + 2) * _GAP
        return address

    def at(self, address: int, size_bytes: int) -> np.ndarray:
        """Memory that the device can reach."""
        mapped = {a: array for a, array in self.pinned.items() if array.base.mapped}
        for places in (self.memory, mapped):
            starts = sorted(places)
            start = starts[bisect_right(starts, address) - 1] if starts and address >= starts[0] else 0
            if start and address + size_bytes <= start + places[start].nbytes:
                return places[start][address - start : address - start + size_bytes]
        raise Wrong(f"{size_bytes} bytes at {address:#x} are nobody's, or were given back")

    def check_pinned(self, array: np.ndarray) -> None:
        if not any(np.shares_memory(array, place) for place in self.pinned.values()):
            raise Wrong("an asynchronous copy from or to memory that is not page-locked")

    def new_graph(self) -> int:
        self._next_graph += 1
        self.graphs.add(self._next_graph)
        return self._next_graph


@contextmanager
def installed(gpu: FakeGpu, backend: str = "tensorrt") -> Iterator[FakeGpu]:
    """The stand-ins take the places of the real modules; whatever was not given back at the end is an error."""
    names = ("tensorrt", "tensorrt_rtx", "pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver")
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None: not installed
    sys.modules.update(gpu.modules(backend))
    try:
        yield gpu
        if gpu.leftovers():
            raise Wrong(f"left behind: {gpu.leftovers()}")
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module


# PyCUDA ---------------------------------------------------------------------------------------------------------------


class FakeContext:
    """pycuda.driver.Context."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def push(self) -> None:
        self._gpu.stack.append(self)


class FakeStream:
    """pycuda.driver.Stream; work waits in it."""

    def __init__(self, gpu: FakeGpu, flags: int) -> None:
        gpu.check_context()
        self._gpu, self.handle = gpu, 1000 + id(self)
        if flags != 1:
            raise Wrong("a stream that waits for the legacy stream, and breaks recordings")
        self.work: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        gpu.streams.add(self)

    def put(self, work: Callable[[], None]) -> None:
        self._gpu.check_context()
        (self.work if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        self.run_until(None)

    def run_until(self, marker: Callable[[], None] | None) -> None:
        self._gpu.check_context()
        if self.recording is not None:
            raise FakeError("waited for a stream while it was recorded")
        if self._gpu.fails("synchronize"):
            raise FakeError("cuStreamSynchronize failed: an illegal memory access was encountered")
        while self.work and (marker is None or marker in self.work):
            self.work.pop(0)()


class FakeEvent:
    """pycuda.driver.Event."""

    def __init__(self, gpu: FakeGpu, flags: int) -> None:
        gpu.check_context()
        self._gpu = gpu
        self._stream: FakeStream | None = None
        gpu.objects.add(self)

    def record(self, stream: FakeStream) -> None:
        self._stream, self._marker = stream, lambda: None
        stream.put(self._marker)

    def synchronize(self) -> None:
        if self._stream is None:
            raise Wrong("waits for an event that nothing recorded")
        self._stream.run_until(self._marker)


class _Allocation:
    def __init__(self, gpu: FakeGpu, size_bytes: int, places: dict[int, np.ndarray], *, mapped: bool = False) -> None:
        gpu.check_context()
        if gpu.fails("mem_alloc"):
            raise FakeMemoryError("cuMemAlloc failed: out of memory")
        self._gpu, self._places, self.mapped = gpu, places, mapped
        self._storage = np.full(size_bytes, GARBAGE, np.uint8)
        self.__array_interface__ = self._storage.__array_interface__
        self._address = gpu.address(size_bytes)
        places[self._address] = np.asarray(self)

    def __int__(self) -> int:
        return self._address

    def get_device_pointer(self) -> int:
        if not self.mapped:
            raise FakeError("cuMemHostGetDevicePointer failed: invalid argument")
        return self._address

    def free(self) -> None:
        self._gpu.check_context()
        contexts = [thing for thing in self._gpu.objects if isinstance(thing, IExecutionContext)]
        used = {address for thing in contexts for address in (thing._scratch, *thing._addresses.values())}
        if any(0 <= address - self._address < self._storage.nbytes for address in used):
            self._gpu.problems.append("memory was freed before the contexts that use it")
        if any(stream.work for stream in self._gpu.streams):
            self._gpu.problems.append("memory was freed under queued work")
        del self._places[self._address]


def _pycuda(gpu: FakeGpu) -> ModuleType:
    return _module(
        "pycuda.driver",
        Error=FakeError,
        MemoryError=FakeMemoryError,
        Context=SimpleNamespace(pop=lambda: gpu.stack.pop()),
        Stream=lambda flags=0: FakeStream(gpu, flags),
        Event=lambda flags=0: FakeEvent(gpu, flags),
        device_attribute=SimpleNamespace(INTEGRATED="INTEGRATED"),
        event_flags=SimpleNamespace(DISABLE_TIMING=2, BLOCKING_SYNC=1),
        host_alloc_flags=SimpleNamespace(DEVICEMAP=2),
        **_devices(gpu),
        **_memory(gpu),
        **_copies(gpu),
    )


def _devices(gpu: FakeGpu) -> dict[str, Any]:
    primary: dict[int, FakeContext] = {}

    def init() -> None:
        if gpu.devices == 0:
            raise FakeError("cuInit failed: no CUDA-capable device is detected")

    class Device:
        def __init__(self, number: int) -> None:
            self._number = number

        @staticmethod
        def count() -> int:
            return gpu.devices

        def name(self) -> str:
            return "Fake"

        def compute_capability(self) -> tuple[int, int]:
            return gpu.compute_capability

        def get_attribute(self, attribute: str) -> int:
            return {"INTEGRATED": int(gpu.integrated)}[attribute]

        def retain_primary_context(self) -> FakeContext:
            return primary.setdefault(self._number, FakeContext(gpu))

    return {"init": init, "Device": Device}


def _memory(gpu: FakeGpu) -> dict[str, Any]:
    def pagelocked_empty(shape: int, dtype: Any, mem_flags: int = 0) -> np.ndarray:
        allocation = _Allocation(gpu, shape * np.dtype(dtype).itemsize, gpu.pinned, mapped=mem_flags == 2)
        return np.asarray(allocation).view(dtype) if dtype != np.uint8 else np.asarray(allocation)

    return {"mem_alloc": lambda size: _Allocation(gpu, size, gpu.memory), "pagelocked_empty": pagelocked_empty}


def _copies(gpu: FakeGpu) -> dict[str, Any]:
    def memcpy_htod(target: int, source: np.ndarray) -> None:
        gpu.check_context()
        gpu.at(target, source.nbytes)[:] = source.reshape(-1).view(np.uint8)

    def memcpy_htod_async(target: int, source: np.ndarray, stream: FakeStream) -> None:
        gpu.check_pinned(source)

        def copy() -> None:
            gpu.at(target, source.nbytes)[:] = source.view(np.uint8)

        stream.put(copy)

    def memcpy_dtoh_async(target: np.ndarray, source: int, stream: FakeStream) -> None:
        gpu.check_pinned(target)

        def copy() -> None:
            target.view(np.uint8)[:] = gpu.at(source, target.nbytes)

        stream.put(copy)

    def memcpy_dtod_async(target: int, source: int, size_bytes: int, stream: FakeStream) -> None:
        def copy() -> None:
            gpu.at(target, size_bytes)[:] = gpu.at(source, size_bytes)

        stream.put(copy)

    copies = (memcpy_htod, memcpy_htod_async, memcpy_dtoh_async, memcpy_dtod_async)
    return {copy.__name__: copy for copy in copies}


# cuda.bindings --------------------------------------------------------------------------------------------------------


def _cuda(gpu: FakeGpu) -> ModuleType:
    contents: dict[int, list[Callable[[], None]]] = {}

    def stream_of(handle: int) -> FakeStream:
        return next(stream for stream in gpu.streams if stream.handle == handle)

    def begin(handle: int, mode: str) -> None:
        if mode != "thread-local":
            raise Wrong("a recording that other threads can break")
        stream_of(handle).recording = []

    def end(handle: int) -> int:
        graph = gpu.new_graph()
        contents[graph] = stream_of(handle).recording or []
        return graph

    def instantiate(graph: int, flags: int) -> int:
        executable = gpu.new_graph()
        contents[executable] = contents[graph]
        return executable

    def launch(executable: int, handle: int) -> None:
        if executable not in gpu.graphs:
            raise Wrong("replays a recording that was freed")
        for work in contents[executable]:
            stream_of(handle).put(work)

    def destroy(graph: int) -> None:
        gpu.graphs.remove(graph)
        del contents[graph]

    def call(name: str, function: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
        """A status, and the result if there is one."""
        gpu.check_context()
        failed = gpu.fails(name)
        result = None if failed else function(*arguments)
        if name == "cuStreamEndCapture":
            stream_of(arguments[0]).recording = None  # in any case
        return (900 if failed else 0,) if result is None else (0, result)

    functions = {
        "cuStreamBeginCapture": begin,
        "cuStreamEndCapture": end,
        "cuGraphInstantiate": instantiate,
        "cuGraphLaunch": launch,
        "cuGraphDestroy": destroy,
        "cuGraphExecDestroy": destroy,
    }
    return _module(
        "cuda.bindings.driver",
        CUstream=lambda handle: handle,
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread-local"),
        **{name: partial(call, name, function) for name, function in functions.items()},
    )


# TensorRT -------------------------------------------------------------------------------------------------------------


class _Masked:
    """An object of TensorRT: has only the names that its version has, and is destroyed in its context."""

    def __init__(self, gpu: FakeGpu) -> None:
        gpu.check_context()
        self._gpu = gpu
        gpu.objects.add(self)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._check_name(name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._check_name(name)
        super().__setattr__(name, value)

    def __del__(self) -> None:
        if not self._gpu.stack:
            self._gpu.problems.append(f"{type(self).__name__} was destroyed without a context")

    def _check_name(self, name: str) -> None:
        api = self._gpu.api
        if api is not None and name not in api["classes"][type(self).__name__]:
            raise AttributeError(f"{type(self).__name__} has no {name} in {api['version']}")


class Runtime(_Masked):
    def __init__(self, gpu: FakeGpu, log: Callable[[int, str], None]) -> None:
        super().__init__(gpu)
        self._log, self._host_code = log, False

    @property
    def engine_host_code_allowed(self) -> bool:
        return self._host_code

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, allowed: bool) -> None:
        self._host_code = allowed

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        header, _, model = data.partition(b"\n")
        papers = json.loads(header) if header.startswith(b"{") else {}
        if papers.get("magic") != "plan" or self._gpu.fails("deserialize_cuda_engine"):
            self._log(1, "IRuntime::deserializeCudaEngine: Error Code 1:\n magicTagRead == kMAGIC_TAG failed")
            return None
        if papers.get("host_code") and not self._host_code:
            self._log(1, "host code is not allowed")
            return None
        return ICudaEngine(self._gpu, self._log, papers, model)


class ICudaEngine(_Masked):
    def __init__(self, gpu: FakeGpu, log: Callable[[int, str], None], papers: Mapping[str, Any], model: bytes) -> None:
        super().__init__(gpu)
        self._log, self._papers = log, papers
        if model not in _sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            _sessions[model] = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._session = _sessions[model]
        self._nodes = {node.name: node for node in (*self._session.get_inputs(), *self._session.get_outputs())}
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._kind = "encoder" if "images" in self._inputs else "decoder"
        self._contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()

    def __del__(self) -> None:
        super().__del__()
        if len(self._contexts):
            self._gpu.problems.append("an engine was destroyed before its contexts")

    @property
    def num_io_tensors(self) -> int:
        return len(self._nodes)

    @property
    def device_memory_size(self) -> int:
        return 5000

    @property
    def device_memory_size_v2(self) -> int:
        return 5000

    def get_tensor_name(self, index: int) -> str:
        return list(self._nodes)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name in self._inputs else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> Any:
        return DTYPES[self._nodes[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self._nodes[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        shape = self.get_tensor_shape(name)
        sizes = (self._papers["min"], self._papers["min"], self._papers["max"])
        return [tuple(size if axis == -1 else axis for axis in shape) for size in sizes]

    def create_runtime_config(self) -> Any:
        return IRuntimeConfig(self._gpu)

    def create_execution_context(self, how: Any = "STATIC") -> Any:
        return self._create(how._strategy if isinstance(how, IRuntimeConfig) else how)

    def create_execution_context_without_device_memory(self) -> Any:
        return self._create("USER_MANAGED")

    def _create(self, strategy: str) -> Any:
        if self._gpu.fails("create_execution_context"):
            self._log(1, "CUDA initialization failure")
            return None
        if strategy != "USER_MANAGED":
            raise Wrong("a context with scratch memory of its own")
        profile = -1 if self._gpu.one_context_per_profile and len(self._contexts) else 0
        context = IExecutionContext(self._gpu, self, profile)
        self._contexts.add(context)
        return context


class IRuntimeConfig(_Masked):
    _strategy, _kernels = "STATIC", "LAZY"

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self._strategy = strategy

    @property
    def dynamic_shapes_kernel_specialization_strategy(self) -> str:
        return self._kernels

    @dynamic_shapes_kernel_specialization_strategy.setter
    def dynamic_shapes_kernel_specialization_strategy(self, strategy: str) -> None:
        self._kernels = strategy


class IExecutionContext(_Masked):
    def __init__(self, gpu: FakeGpu, engine: ICudaEngine, profile: int) -> None:
        super().__init__(gpu)
        self._log, self._session, self._kind, self._papers = engine._log, engine._session, engine._kind, engine._papers
        self._inputs = {name: engine.get_tensor_shape(name) for name in engine._inputs}
        self._nodes = engine._nodes
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profile, self._scratch = profile, 0

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._log(1, "optimization profile 0 is in use by another context")
        return False

    @property
    def device_memory(self) -> int:
        return self._scratch

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        self._scratch = address

    def set_device_memory(self, address: int, size_bytes: int) -> None:
        self._scratch = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        declared = self._inputs[name]
        fits = len(shape) == len(declared) and all(
            size == wanted if wanted != -1 else axis > 0 or self._papers["min"] <= size <= self._papers["max"]
            for axis, (size, wanted) in enumerate(zip(shape, declared, strict=True))
        )
        if not fits or self._profile != 0 or self._gpu.fails("set_input_shape"):
            self._log(1, f"{name}: shape {shape} is outside the profile")
            return False
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """As shape inference does: by a run with zeros."""
        if name in self._inputs:
            return self._shapes[name]
        key = id(self._session), *sorted(self._shapes.items())
        if key not in _shapes:
            values = self._run({n: np.zeros(shape, self._dtype(n)) for n, shape in self._shapes.items()})
            _shapes[key] = {n: array.shape for n, array in values.items()}
        return _shapes[key][name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % 256:
            raise Wrong(f"{name} at {address:#x} is not aligned")
        self._addresses[name] = address
        return not self._gpu.fails("set_tensor_address")

    def is_stream_capturable(self, stream: int) -> bool:
        return self._gpu.recordable

    def execute_async_v3(self, handle: int) -> bool:
        stream = next(stream for stream in self._gpu.streams if stream.handle == handle)
        if set(self._shapes) != set(self._inputs) or set(self._addresses) != set(self._nodes) or not self._scratch:
            raise Wrong("runs without all shapes, addresses and scratch memory")
        if self._gpu.fails("execute_async_v3") or self._gpu.fails(f"{self._kind} execute_async_v3"):
            self._log(1, "enqueueV3: Error Code 1: Cuda Runtime (invalid argument)")
            return False
        if stream.recording is not None and self._gpu.fails(f"{self._kind} recording"):
            self._log(1, "operation not permitted when stream is capturing")
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        stream.put(lambda: self._compute(shapes, addresses))
        return True

    def _compute(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        inputs = {name: self._read(addresses[name], name, shape) for name, shape in shapes.items()}
        results = self._run(inputs)
        if "step" in inputs and inputs["step"][0] >= inputs["tokens"].shape[1]:
            raise Wrong("a step beyond the last")
        for name, values in results.items():
            self._gpu.at(addresses[name], values.nbytes)[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._gpu.runs[self._kind] += 1

    def _read(self, address: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = self._dtype(name)
        size_bytes = int(np.prod(shape)) * dtype.itemsize
        return self._gpu.at(address, size_bytes).view(dtype).reshape(shape).copy()

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [node.name for node in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    def _dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(DTYPES[self._nodes[name].type])


class ILogger:
    """tensorrt.ILogger; severities are numbers."""

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


def _tensorrt(gpu: FakeGpu, name: str) -> ModuleType:
    contents = {
        "ILogger": ILogger,
        "Runtime": lambda logger: Runtime(gpu, logger.log),
        "TensorIOMode": SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
        "ExecutionContextAllocationStrategy": SimpleNamespace(USER_MANAGED="USER_MANAGED", STATIC="STATIC"),
        "nptype": lambda dtype: dtype,
    }
    if name == "tensorrt_rtx":
        contents["DynamicShapesKernelSpecializationStrategy"] = SimpleNamespace(EAGER="EAGER", LAZY="LAZY")
    if gpu.api is not None:
        contents = {key: value for key, value in contents.items() if key in gpu.api["module"]}
    version = "10.3.0" if gpu.api is None else gpu.api["version"]
    return _module(name, __version__=version, **contents)
