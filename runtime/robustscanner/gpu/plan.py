"""TensorRT plans and their execution contexts: the only file that uses TensorRT and TensorRT-RTX, of any version.

Named-tensor calls only, which every version from 8.5 to 11 has; what differs is looked for, never guessed.
"""

import importlib.util
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robustscanner.errors import EngineError
from robustscanner.gpu.device import ON_CPU, Gpu, first_line
from robustscanner.spec import ModelSpec

REBUILD = "build it again with convert/build_engine.py"
_PRODUCTS = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_CURES = {
    "tensorrt": "pip install tensorrt, or on a Jetson apt install python3-libnvinfer",
    "tensorrt-rtx": "pip install tensorrt-rtx",
}

ALLOWED = "allowed"  # an input of a step that is neither the encoder's nor the step's own; older engines lack it

Wiring = Mapping[str, int]  # tensor name -> device address

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tensor:
    """What goes into a plan or comes out of it."""

    shape: tuple[int, ...]  # -1: the batch, until it is known
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        """In memory, once the shape is known."""
        return prod(self.shape) * self.dtype.itemsize


Tensors = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]  # of inputs


@dataclass(frozen=True)
class Library:
    """An imported TensorRT."""

    product: str
    trt: Any  # the module tensorrt or tensorrt_rtx

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    def __str__(self) -> str:
        return f"{self.product} {self.version}"


def import_tensorrt(backend: str) -> Library:
    """The library of "tensorrt" or "tensorrt-rtx".

    Raises:
        EngineError: it is not installed, or only the other one.
    """
    product = _PRODUCTS[backend]
    try:
        if backend == "tensorrt":
            import tensorrt as trt  # type: ignore[import-not-found,import-untyped,unused-ignore]
        else:
            import tensorrt_rtx as trt  # type: ignore[import-not-found,import-untyped,unused-ignore]
        return Library(product, trt)
    except (ImportError, OSError, RuntimeError) as error:  # the last two: bindings whose libraries are missing
        for other, module in _MODULES.items():
            if isinstance(error, ModuleNotFoundError) and other != backend and _is_installed(module):
                cure = f"{_CURES[backend]}, or build it again with build_engine.py --backend {other}"
                raise EngineError(f"made for {product}, but only {_PRODUCTS[other]} is installed; {cure}") from None
        raise EngineError(f"{product} cannot be imported ({first_line(error)}); {_CURES[backend]}") from None


def _is_installed(module: str) -> bool:
    with suppress(ValueError):  # a module without a spec
        return importlib.util.find_spec(module) is not None
    return False


class Encoder(Protocol):
    """From pictures to a decoder's memory: a plan, or two with the row kernel between them."""

    name: str
    inputs: Tensors
    outputs: Tensors

    @property
    def shares_context(self) -> bool:
        """Whether it has but one context, which is wired anew for every launch."""

    @property
    def halves(self) -> "tuple[Plan, ...]":
        """The plans that it is made of."""

    def extent(self, name: str, axis: int = 0) -> tuple[int, int]:
        """See `Plan`."""

    def context(self) -> "Runnable":
        """See `Plan`."""

    def outputs_for(self, shapes: Shapes) -> Tensors:
        """See `Plan`."""


class Runnable(Protocol):
    """An execution context, or two; see `Context`."""

    @property
    def plan(self) -> "Encoder":
        """What it runs."""

    def execute(self, shapes: Shapes, wiring: Wiring) -> None:
        """See `Context`."""

    def is_recordable(self) -> bool:
        """See `Context`."""


class Plan:
    """A deserialised engine, and what makes execution contexts of it."""

    def __init__(self, library: Library, gpu: Gpu, runtime: Any, path: Path) -> None:
        self.name = path.name
        self._library, self._gpu, self._trt = library, gpu, library.trt
        self._complaints = _tensorrt_logger(self._trt)[1]
        self._runtime = runtime  # has to outlive the engine
        self._engine = self._deserialize(path)
        gpu.own(self._close)
        self.inputs, self.outputs = self._tensors()
        self.scratch_bytes = self._read_scratch_bytes()
        self._scratch = 0
        self.shares_context = False  # until it turns out so
        self._first: Context | None = None

    @property
    def halves(self) -> "tuple[Plan, ...]":
        """See `Encoder`."""
        return (self,)

    def extent(self, name: str, axis: int = 0) -> tuple[int, int]:
        """How small and how large a dimension of an input may be; the first is the batch."""
        length = self.inputs[name].shape[axis]
        if length > 0:
            return length, length
        smallest, _, largest = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0))
        return smallest[axis], largest[axis]

    def use_scratch(self, address: int) -> None:
        """Where contexts compute: one place for all, as they run one after another."""
        self._scratch = address

    def context(self) -> "Context":
        """A context of one's own, or the first one again where there can be no other.

        TensorRT 8.5 grants one context for each optimisation profile.
        """
        if not self.shares_context:
            context = Context(self, self._create_context(), self._gpu.stream.handle)
            if context.takes_profile():
                self._first = self._first or context
                return context
            self.shares_context = True
        if self._first is None:
            raise self.failure("grants no execution context")
        return self._first

    def outputs_for(self, shapes: Shapes) -> Tensors:
        """What comes out for inputs of these shapes."""
        return self.context().outputs(shapes)

    def failure(self, what: str) -> EngineError:
        """The error to raise when a call of TensorRT failed."""
        return EngineError(f"{self.name}: {what}: {self._complaints.take()}; {REBUILD}")

    def _deserialize(self, path: Path) -> Any:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path.name}: {error.strerror or error}; {REBUILD}") from None
        self._complaints.take()
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise self.failure(f"{self._library} cannot open it on {self._gpu.compute_capability}")
        return engine

    def _tensors(self) -> tuple[Tensors, Tensors]:
        tensors: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
            tensors[is_input][name] = Tensor(tuple(self._engine.get_tensor_shape(name)), dtype)
        return tensors[True], tensors[False]

    def _read_scratch_bytes(self) -> int:
        name = "device_memory_size_v2" if hasattr(self._engine, "device_memory_size_v2") else "device_memory_size"
        return int(getattr(self._engine, name))

    def _create_context(self) -> Any:
        strategies = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        kernels = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if kernels is not None:  # TensorRT-RTX: compile for these very shapes now, as a recording would keep stand-ins
            config = self._engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
            config.set_execution_context_allocation_strategy(strategies.USER_MANAGED)  # type: ignore[union-attr]
            context = self._engine.create_execution_context(config)
        elif strategies is not None:
            context = self._engine.create_execution_context(strategies.USER_MANAGED)
        else:
            context = self._engine.create_execution_context_without_device_memory()
        if context is None:
            raise self.failure("no execution context")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(self._scratch, self.scratch_bytes)
        else:
            context.device_memory = self._scratch
        return context

    def _close(self) -> None:
        self._first = self._engine = self._runtime = None


class Context:
    """An execution context, and what it is wired for at present."""

    def __init__(self, plan: Plan, context: Any, stream: int) -> None:
        self.plan, self._context, self._stream = plan, context, stream
        self._wired: Wiring = {}

    def takes_profile(self) -> bool:
        """Whether it could be given the plan's optimisation profile, its only one."""
        if self._context.active_optimization_profile == 0:
            return True
        try:
            return bool(self._context.set_optimization_profile_async(0, self._stream))
        except RuntimeError:  # the bindings' way of passing on a false
            return False

    def outputs(self, shapes: Shapes) -> Tensors:
        """Sets the shapes of the inputs; returns what comes out then."""
        self._wired = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self.plan.failure(f"refuses {name} {list(shape)}")
        found = {name: tuple(self._context.get_tensor_shape(name)) for name in self.plan.outputs}
        if unknown := [name for name, shape in found.items() if min(shape, default=0) < 0]:
            raise self.plan.failure(f"cannot tell the shape of {unknown[0]}")
        return {name: Tensor(shape, self.plan.outputs[name].dtype) for name, shape in found.items()}

    def execute(self, shapes: Shapes, wiring: Wiring) -> None:
        """Queues a run; in a context of one's own, all is in place after the first."""
        if self._wired is not wiring:
            self.outputs(shapes)
            for name, address in wiring.items():
                if not self._context.set_tensor_address(name, address):
                    raise self.plan.failure(f"refuses the address of {name}")
            self._wired = wiring
        if not self._context.execute_async_v3(self._stream):
            raise self.plan.failure("failed to run")

    def is_recordable(self) -> bool:
        """Whether it may become part of a CUDA graph, where TensorRT can tell."""
        tell = getattr(self._context, "is_stream_capturable", None)
        return tell is None or bool(tell(self._stream))


def open_plans(library: Library, gpu: Gpu, paths: Sequence[Path], *, host_code: bool) -> tuple[Plan, ...]:
    """Plans, whatever they are.

    Raises:
        EngineError: one cannot be opened.
    """
    tensorrt_logger, complaints = _tensorrt_logger(library.trt)
    try:
        runtime = library.trt.Runtime(tensorrt_logger)
    except TypeError:  # pybind11's way of passing on a null pointer
        raise EngineError(f"{library} does not start: {complaints.take()}; {ON_CPU}") from None
    if host_code:
        runtime.engine_host_code_allowed = True
    plans: list[Plan] = []  # in a loop: the frame of a comprehension would keep the runtime alive after an error
    for path in paths:
        plans.append(Plan(library, gpu, runtime, path))
    return tuple(plans)


def check_plans(encoder: Encoder, decoder: Plan, spec: ModelSpec) -> None:
    """Whether they are what `convert/graph/split.py` makes, fit for each other and for the model.

    Raises:
        EngineError: they are not.
    """
    canvas, steps = (spec.input.height_px, spec.input.width_px, 3), spec.network.max_length
    _check_tensor(encoder, encoder.inputs, "images", Tensor((-1, *canvas), np.dtype(np.uint8)))
    _check_tensor(encoder, encoder.inputs, "valid_width", Tensor((-1,), np.dtype(np.int32)))
    wanted = {"tokens": (np.int32, (-1, steps)), "scores": (np.float32, (-1, steps)), "step": (np.int32, (1,))}
    wanted |= dict.fromkeys(("token", "running"), (np.int32, (-1,)))
    for name, (kind, shape) in wanted.items():
        _check_tensor(decoder, decoder.inputs, name, Tensor(shape, np.dtype(kind)))
    if ALLOWED in decoder.inputs:
        choices = (steps, spec.charset.class_count)
        _check_tensor(decoder, decoder.inputs, ALLOWED, Tensor(choices, np.dtype(np.float32)))
    _check_tensor(decoder, decoder.outputs, "going", Tensor((1,), np.dtype(np.int32)))
    for name, tensor in encoder.outputs.items():
        if name not in decoder.inputs or decoder.inputs[name].dtype != tensor.dtype:
            raise EngineError(f"{decoder.name}: takes no {name} of {tensor.dtype}, which the encoder gives; {REBUILD}")
    others = {*encoder.outputs, ALLOWED}
    state = {name: tensor for name, tensor in decoder.inputs.items() if name not in others}
    if set(decoder.outputs) != {"going", *(f"{name}_next" for name in state)}:
        raise EngineError(f"{decoder.name}: gives {sorted(decoder.outputs)} for {sorted(state)}; {REBUILD}")
    for name, tensor in state.items():
        if decoder.outputs[f"{name}_next"].dtype != tensor.dtype:
            raise EngineError(f"{decoder.name}: {name} is {tensor.dtype}, but {name}_next is not; {REBUILD}")


def _check_tensor(plan: Encoder, tensors: Tensors, name: str, wanted: Tensor) -> None:
    """A dimension that one of the two leaves open may turn out right."""
    found = tensors.get(name)
    if found is None:
        raise EngineError(f"{plan.name}: has no {name}, only {', '.join(sorted(tensors))}; {REBUILD}")
    fits = len(found.shape) == len(wanted.shape) and all(
        -1 in (size, needed) or size == needed for size, needed in zip(found.shape, wanted.shape, strict=True)
    )
    if not fits or found.dtype != wanted.dtype:
        is_, needs = (f"{tensor.dtype} {list(tensor.shape)}" for tensor in (found, wanted))
        raise EngineError(f"{plan.name}: {name} is {is_}, but its spec needs {needs}; {REBUILD}")


class _Complaints:
    """What TensorRT logs. Its errors are kept, for the message of the call that failed."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=3)

    def take(self) -> str:
        """The latest errors, in words; they are forgotten."""
        lines, self._lines = self._lines, deque(maxlen=3)
        return " / ".join(lines) or "it does not say why"

    def add(self, severity: int, message: str) -> None:
        """Severities are 0 internal error, 1 error, 2 warning, 3 information, 4 details."""
        line = " ".join(message.split())
        if severity <= 1:
            self._lines.append(line)
        # Errors too: the call fails, and is reported with these words.
        logger.log(logging.INFO if severity <= 2 else logging.DEBUG, "%s", line)


@cache
def _tensorrt_logger(trt: Any) -> tuple[Any, _Complaints]:
    """One for the process: TensorRT keeps the first it is given, and writes to it until the end."""
    complaints = _Complaints()

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            complaints.add(int(severity), msg)

    return Logger(), complaints
