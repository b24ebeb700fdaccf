"""TensorRT of Python, on the stand-in for NVIDIA's driver: strict where the real one is merely undefined.

A plan is a line of JSON and an ONNX file, run by ONNX Runtime in the driver's queues. PyCUDA and cuda-bindings are the
real ones. What raises and what returns False is as in the bindings' sources of 8.4 to 11.1.
"""

import gc
import json
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest

from tests.cuda_driver.driver import ILLEGAL_ADDRESS, LEFT, Driver, missing

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_sessions: dict[bytes, Any] = {}  # kept, as are the shapes that were inferred
_shapes: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}


class Wrong(AssertionError):
    """The session did what a real GPU would punish with garbage, a crash or a leak."""


def plan(model: onnx.ModelProto, smallest: int = 1, largest: int = 8, **facts: Any) -> bytes:
    """What a builder would have made of a model; `facts` replace what the plan says of itself.

    One of them is "shapes": of inputs in which more than the batch is open, smallest, usual and largest.
    """
    header = json.dumps({"magic": "plan", "min": smallest, "max": largest, **facts})
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
        self.driver = Driver(devices, compute_capability, integrated=integrated)
        self.driver.freed = self._check_freed
        self.recordable, self.one_context_per_profile = recordable, one_context_per_profile
        self.api = api  # a file of tests/tensorrt_api: what this version has; None: everything
        self.runs: Counter[str] = Counter()  # of plans, by what they are
        self.objects: weakref.WeakSet[Any] = weakref.WeakSet()
        self.problems: list[str] = []
        self._calls: Counter[str] = Counter()  # of TensorRT
        self._fails_at: dict[str, int] = {}

    @property
    def calls(self) -> Counter[str]:
        """Of the driver and of TensorRT, by name."""
        return self.driver.calls + self._calls

    def fail(self, name: str, which: int = 1, **status: int) -> None:
        """Lets the `which`-th call of that name fail, from 1; 0: each. Of the driver, -3: all from the third on."""
        if name.startswith("cu"):
            self.driver.fail(name, which, **status)
        else:
            self._fails_at[name] = which

    def left(self) -> dict[str, int]:
        """What is allocated at present."""
        return {what: self.driver.left(what) for what in LEFT} | {"TensorRT objects": len(self.objects)}

    def leftovers(self) -> list[str]:
        """What nobody gave back, and what was done in the wrong order."""
        if any(self.left().values()):
            gc.collect()
        left = [f"{count} {what}" for what, count in self.left().items() if count]
        return left + self.problems + self.driver.problems()

    def fails(self, name: str) -> bool:
        """Counts a call of TensorRT; whether it is to fail."""
        self._calls[name] += 1
        return name in self._fails_at and self._fails_at[name] in (0, self._calls[name])

    def check_context(self) -> None:
        if not self.driver.depth:
            raise Wrong("no context is current")

    def _check_freed(self, address: int, size_bytes: int) -> None:
        contexts = [thing for thing in self.objects if isinstance(thing, IExecutionContext)]
        used = {address for thing in contexts for address in (thing._scratch, *thing._addresses.values())}
        if any(0 <= other - address < size_bytes for other in used):
            self.problems.append("memory was freed before the contexts that use it")


@contextmanager
def installed(gpu: FakeGpu, backend: str = "tensorrt") -> Iterator[FakeGpu]:
    """The stand-in takes the place of TensorRT; whatever was not given back at the end is an error."""
    if reason := missing():
        pytest.skip(reason)
    gpu.driver.plug_in()
    before = {name: sys.modules.get(name) for name in _MODULES.values()}
    sys.modules.update(dict.fromkeys(_MODULES.values()))  # type: ignore[arg-type]  # None: not installed
    sys.modules[_MODULES[backend]] = _tensorrt(gpu, _MODULES[backend])
    try:
        yield gpu
        if gpu.leftovers():
            raise Wrong(f"left behind: {gpu.leftovers()}")
    finally:
        gpu.driver.unplug()
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module


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
        if not self._gpu.driver.depth:
            self._gpu.problems.append(f"{type(self).__name__} was destroyed without a context")

    def _check_name(self, name: str) -> None:
        api = self._gpu.api
        if api is not None and name not in api["classes"][type(self).__name__]:
            raise AttributeError(f"{type(self).__name__} has no {name} in {api['version']}")


def _session(data: bytes) -> Any:
    if data not in _sessions:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        _sessions[data] = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return _sessions[data]


class _Model:
    """A plan's computation: what queued work holds on to, which a context may not outlive."""

    def __init__(self, gpu: FakeGpu, data: bytes) -> None:
        self.gpu, self.session = gpu, _session(data)
        self.nodes = {node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.inputs = [node.name for node in self.session.get_inputs()]
        kinds = {"images": "encoder", "row_states": "back"}
        self.kind = next((kind for name, kind in kinds.items() if name in self.inputs), "decoder")

    def dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(DTYPES[self.nodes[name].type])

    def shape(self, name: str) -> tuple[int, ...]:
        """As declared; -1 is open."""
        return tuple(size if isinstance(size, int) else -1 for size in self.nodes[name].shape)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [node.name for node in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))

    def compute(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> int:
        """Reads and writes device memory; a CUresult."""
        inputs = {name: self._read(addresses[name], name, shape) for name, shape in shapes.items()}
        if any(values is None for values in inputs.values()):
            return ILLEGAL_ADDRESS
        if "step" in inputs and not 0 <= inputs["step"][0] < inputs["tokens"].shape[1]:
            raise Wrong(f"step {inputs['step'][0]}, which no word has")
        for name, values in self.run(inputs).items():
            memory = self.gpu.driver.memory(addresses[name], values.nbytes)
            if memory is None:
                return ILLEGAL_ADDRESS
            memory[:] = np.ascontiguousarray(values).tobytes()
        self.gpu.runs[self.kind] += 1
        return 0

    def _read(self, address: int, name: str, shape: tuple[int, ...]) -> Any:
        memory = self.gpu.driver.memory(address, int(np.prod(shape)) * self.dtype(name).itemsize)
        return None if memory is None else np.frombuffer(memory.raw, self.dtype(name)).reshape(shape)


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
        facts = json.loads(header) if header.startswith(b"{") else {}
        if facts.get("magic") != "plan" or self._gpu.fails("deserialize_cuda_engine"):
            self._log(1, "IRuntime::deserializeCudaEngine: Error Code 1:\n magicTagRead == kMAGIC_TAG failed")
            return None
        if facts.get("host_code") and not self._host_code:
            self._log(1, "host code is not allowed")
            return None
        try:
            _session(model)
        except Exception as error:  # ONNX Runtime's own
            self._log(1, f"IRuntime::deserializeCudaEngine: Error Code 1: {error}")
            return None
        return ICudaEngine(self._gpu, self._log, facts, model)


class ICudaEngine(_Masked):
    def __init__(self, gpu: FakeGpu, log: Callable[[int, str], None], facts: Mapping[str, Any], model: bytes) -> None:
        super().__init__(gpu)
        self._log, self._facts = log, facts
        self._model = _Model(gpu, model)
        self._contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()

    def __del__(self) -> None:
        super().__del__()
        if len(self._contexts):
            self._gpu.problems.append("an engine was destroyed before its contexts")

    @property
    def num_io_tensors(self) -> int:
        return len(self._model.nodes)

    @property
    def device_memory_size(self) -> int:
        return 5000

    @property
    def device_memory_size_v2(self) -> int:
        return 5000

    def get_tensor_name(self, index: int) -> str:
        return list(self._model.nodes)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name in self._model.inputs else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> Any:
        return self._model.dtype(name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._model.shape(name)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        shapes = self._facts.get("shapes", {}).get(name, [self.get_tensor_shape(name)] * 3)
        sizes = (self._facts["min"], self._facts["min"], self._facts["max"])
        return [
            tuple(size if axis == -1 else axis for axis in shape) for size, shape in zip(sizes, shapes, strict=True)
        ]

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda layer_format: "{}")

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
        self._log, self._model, self._facts = engine._log, engine._model, engine._facts
        self._inputs = {name: self._model.shape(name) for name in self._model.inputs}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profile, self._scratch = profile, 0

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._log(1, "optimization profile 0 is in use by another context")
        raise RuntimeError("Error in set optimization profile async.")

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
            size == wanted if wanted != -1 else axis > 0 or self._facts["min"] <= size <= self._facts["max"]
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
        key = id(self._model.session), *sorted(self._shapes.items())
        if key not in _shapes:
            values = self._model.run({n: np.zeros(shape, self._model.dtype(n)) for n, shape in self._shapes.items()})
            _shapes[key] = {n: array.shape for n, array in values.items()}
        return _shapes[key][name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % 256:
            raise Wrong(f"{name} at {address:#x} is not aligned")
        self._addresses[name] = address
        return not self._gpu.fails("set_tensor_address")

    def is_stream_capturable(self, stream: int) -> bool:
        return self._gpu.recordable

    def execute_async_v3(self, stream: int) -> bool:
        if (
            set(self._shapes) != set(self._inputs)
            or set(self._addresses) != set(self._model.nodes)
            or not self._scratch
        ):
            raise Wrong("runs without all shapes, addresses and scratch memory")
        if self._gpu.fails("execute_async_v3") or self._gpu.fails(f"{self._model.kind} execute_async_v3"):
            self._log(1, "enqueueV3: Error Code 1: Cuda Runtime (invalid argument)")
            return False
        if self._gpu.driver.is_recording(stream) and self._gpu.fails(f"{self._model.kind} recording"):
            self._gpu.driver.break_recording(stream)
            self._log(1, "operation not permitted when stream is capturing")
            return False
        model, shapes, addresses = self._model, dict(self._shapes), dict(self._addresses)
        return self._gpu.driver.launch(stream, lambda: model.compute(shapes, addresses)) == 0


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
