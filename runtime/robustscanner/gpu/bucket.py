"""Runs of one size on the GPU: where their tensors lie, and how their work is queued."""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import EngineError
from robustscanner.gpu.crops import Cropper, DevicePicture
from robustscanner.gpu.decoding import StepTimes
from robustscanner.gpu.device import ALIGNMENT_BYTES, Bytes, Gpu, Launch, Recorder, RecordingError, first_line
from robustscanner.gpu.plan import ALLOWED, Encoder, Plan, Runnable, Shapes, Tensor, Tensors
from robustscanner.regions import Words
from robustscanner.session import Allowed, Images, Scores, Tokens, Widths
from robustscanner.spec import ModelSpec

_WARM_UP_ROUNDS = 5
_FLAG_BYTES = 4  # int32
_TEXT = ("tokens", "scores")  # what the host wants: first in a state slab, so that one copy fetches both

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Where tensors lie in a slab, one after another."""

    tensors: Tensors
    offsets: Mapping[str, int]
    size_bytes: int

    @classmethod
    def of(cls, tensors: Tensors) -> "Layout":
        """In this order, each aligned."""
        offsets, end = {}, 0
        for name, tensor in tensors.items():
            offsets[name] = end
            end += -(-tensor.size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return cls(tensors, offsets, end)

    @property
    def shapes(self) -> Shapes:
        """Of all tensors."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def at(self, base: int) -> dict[str, int]:
        """Addresses of the tensors in a slab."""
        return {name: base + offset for name, offset in self.offsets.items()}

    def view(self, slab: Bytes, name: str) -> npt.NDArray[Any]:
        """A tensor in host memory."""
        tensor, start = self.tensors[name], self.offsets[name]
        return slab[start : start + tensor.size_bytes].view(tensor.dtype).reshape(tensor.shape)

    def end_of(self, name: str) -> int:
        """Offset of the first byte after a tensor."""
        return self.offsets[name] + self.tensors[name].size_bytes


@dataclass(frozen=True, order=True)
class Size:
    """Of a run."""

    pictures: int
    width_px: int  # of their canvases


@dataclass(frozen=True)
class Layouts:
    """Of one size."""

    inputs: Layout
    memory: Layout  # what the encoder gives
    state: Layout  # what a step changes
    allowed: Layout  # what a step may say; of older engines nothing, which is everything

    @classmethod
    def of(cls, encoder: Encoder, decoder: Plan, size: Size) -> "Layouts":
        """What is the encoder's and what a step's own is seen from the plans, whatever the model carries along."""
        inputs = Layout.of({name: _sized(tensor, size) for name, tensor in encoder.inputs.items()})
        memory = Layout.of(encoder.outputs_for(inputs.shapes))
        names = [name for name in decoder.inputs if name not in memory.tensors and name != ALLOWED]
        names.sort(key=lambda name: _TEXT.index(name) if name in _TEXT else len(_TEXT))
        state = Layout.of({name: _alike(decoder, name, size, memory) for name in names})
        allowed = Layout.of({name: tensor for name, tensor in decoder.inputs.items() if name == ALLOWED})
        return cls(inputs, memory, state, allowed)


def _sized(tensor: Tensor, size: Size) -> Tensor:
    """An input of the encoder: the first dimension is the batch, and another open one the canvases' width."""
    first, *rest = tensor.shape
    shape = (size.pictures if first == -1 else first, *(size.width_px if axis == -1 else axis for axis in rest))
    return Tensor(shape, tensor.dtype)


def _alike(decoder: Plan, name: str, size: Size, memory: Layout) -> Tensor:
    """A tensor of the state: an open dimension is as large as the memory's that is open just as far."""
    known = {
        decoder.extent(other, axis): length
        for other, tensor in memory.tensors.items()
        for axis, length in enumerate(tensor.shape)
        if axis and decoder.inputs[other].shape[axis] == -1
    }
    tensor = decoder.inputs[name]
    shape = [size.pictures if axis == 0 and length == -1 else length for axis, length in enumerate(tensor.shape)]
    for axis, length in enumerate(shape):
        if length == -1:
            shape[axis] = known[decoder.extent(name, axis)]
    return Tensor(tuple(shape), tensor.dtype)


class Buffers:
    """Memory for the largest runs, allocated once; smaller ones use the front of it.

    Text, and whether any word still goes on, are copied into page-locked memory. Where host and device share their
    memory (Jetson), pictures are not copied. All else lies in device memory: what is page-locked is slow for an
    integrated GPU, which does not cache it.
    """

    def __init__(self, gpu: Gpu, layouts: Sequence[Layouts], fresh: Mapping[Size, Bytes]) -> None:
        self.inputs_mapped = gpu.integrated
        self.fresh = gpu.filled_memory(fresh)  # a reset is one copy
        self.memory = gpu.device_memory(max(layout.memory.size_bytes for layout in layouts))
        self.states = [gpu.device_memory(max(layout.state.size_bytes for layout in layouts)) for _ in range(2)]
        input_bytes = max(layout.inputs.size_bytes for layout in layouts)
        if self.inputs_mapped:
            self.inputs_host, self.inputs = gpu.shared_memory(input_bytes)
        else:
            self.inputs_host, self.inputs = gpu.host_memory(input_bytes), gpu.device_memory(input_bytes)
        self.text = gpu.host_memory(max(layout.state.end_of(_TEXT[-1]) for layout in layouts))
        self.going = gpu.device_memory(_FLAG_BYTES)
        self.flag = gpu.host_memory(_FLAG_BYTES)  # one for all steps, as it only ever falls: what was 0 stays 0
        choices = [tensor.size_bytes for layout in layouts for tensor in layout.allowed.tensors.values()]
        self._allowed_host = gpu.host_memory(max(choices, default=0))
        self._allowed_host[:] = 0
        self.allowed = gpu.filled_memory({0: self._allowed_host})[0]
        self.constrained = False

    def allow(self, allowed: Allowed | None, gpu: Gpu) -> None:
        """Queues what texts may be from now on, where that changes."""
        if allowed is None and not self.constrained:
            return
        held = self._allowed_host.view(np.float32)  # its last copy is over, as each run waits for what is behind that
        wanted = np.zeros_like(held) if allowed is None else allowed.reshape(-1)
        if not np.array_equal(held, wanted):
            held[:] = wanted
            gpu.drv.memcpy_htod_async(self.allowed, self._allowed_host, gpu.stream)
        self.constrained = allowed is not None

    def remembered(self, memory: Layout, name: str, gpu: Gpu) -> npt.NDArray[Any]:
        """A tensor that the encoder gave, as it is now."""
        tensor = memory.tensors[name]
        found = np.empty(tensor.shape, tensor.dtype)
        gpu.drv.memcpy_dtoh(found, memory.at(self.memory)[name])
        return found

    def fill(self, inputs: Layout, images: Images, valid_width: Widths) -> None:
        """Puts pictures into the input slab; rows left over repeat the last picture, and so end when it does."""
        for name, values in (("images", images), ("valid_width", valid_width)):
            rows = inputs.view(self.inputs_host, name)
            rows[: len(values)] = values
            rows[len(values) :] = values[-1]

    def queue_inputs(self, inputs: Layout, gpu: Gpu) -> None:
        """Queues their way to the device, where that is one."""
        if not self.inputs_mapped:
            gpu.drv.memcpy_htod_async(self.inputs, self.inputs_host[: inputs.size_bytes], gpu.stream)


def fresh_state(layout: Layout, spec: ModelSpec) -> Bytes:
    """A state slab before the first step: zeros, but for the text and who goes on."""
    image = np.zeros(layout.size_bytes, np.uint8)
    start = {"tokens": spec.charset.pad_id, "scores": 1, "token": spec.charset.start_id, "running": 1}
    for name, value in start.items():
        layout.view(image, name)[:] = value
    return image


class Tape:
    """Recordings of launches; a plan that cannot be recorded does without, the other is recorded all the same."""

    def __init__(self, recorder: Recorder | None, cuda_error: type[Exception]) -> None:
        self._recorder, self._cuda_error = recorder, cuda_error
        self._unrecordable: set[str] = set()

    def record(self, context: Runnable, queue: Launch) -> Any:
        """A recording of what `queue` queues; None if that cannot be recorded: it then runs without."""
        plan = context.plan
        if self._recorder is None or plan.name in self._unrecordable:
            return None
        try:
            if plan.shares_context:
                raise RecordingError("its context is wired anew for every launch")
            if not context.is_recordable():
                raise RecordingError("TensorRT says that it cannot be recorded")
            return self._recorder.record(queue)
        except (EngineError, self._cuda_error) as error:
            self._unrecordable.add(plan.name)
            logger.warning("%s runs without CUDA graphs, which is slower: %s", plan.name, first_line(error))
            return None

    def replay(self, recorded: Any) -> None:
        """Queues a recording."""
        self._recorder.replay(recorded)  # type: ignore[union-attr]

    def free(self, recorded: Any) -> None:
        """Frees a recording."""
        self._recorder.free(recorded)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Rig:
    """What all buckets of a session share; they run one after another."""

    gpu: Gpu
    encoder: Encoder
    decoder: Plan
    single: Plan | None  # a decoder for just one picture
    buffers: Buffers
    events: list[Any]  # one for each block
    tape: Tape
    steps: int  # the most of a word

    def decoder_for(self, size: Size) -> Plan:
        """The plan of a step."""
        return self.single if self.single is not None and size.pictures == 1 else self.decoder


class Bucket:
    """One size: contexts that are wired once, and recordings of their launches. A `decoding.Machine`."""

    def __init__(self, rig: Rig, size: Size) -> None:
        self._rig, self._gpu, self._buffers = rig, rig.gpu, rig.buffers
        decoder = rig.decoder_for(size)
        self.layouts = Layouts.of(rig.encoder, decoder, size)
        self._fresh = self._buffers.fresh[size]
        self._encoder = rig.encoder.context()
        self._steps = [decoder.context() for _ in range(2)]  # from one state slab to the other
        self._launch_encoder, self._launch_steps = self._wire()
        self._steps_per_launch = 1
        self._start_graph: Any = None
        self._first_graph: Any = None  # start and first block in one
        self._block_graphs: dict[int, Any] = {}  # by the state that the first step reads
        self._encode_graph: Any = None  # for pictures that were drawn on the device
        self._drawn = False  # there
        self._ended = False  # whether the host knows that all words have

    def fill(self, images: Images, valid_width: Widths) -> None:
        """Puts pictures into the input slab."""
        self._drawn = False
        self._buffers.fill(self.layouts.inputs, images, valid_width)

    def draw(self, cropper: Cropper, picture: DevicePicture, words: Words) -> None:
        """Queues the drawing of words into the input slab, on the device."""
        inputs = self.layouts.inputs
        places, shape = inputs.at(self._buffers.inputs), inputs.shapes["images"]
        cropper.draw(picture, words, places["images"], places["valid_width"], (shape[0], shape[1], shape[2]))
        if self._encode_graph is None:
            self._encode_graph = self._rig.tape.record(self._encoder, self._queue_encoder)
        self._drawn = True

    def prepare(self, steps_per_launch: int) -> None:
        """Runs everything once, so that nothing is compiled or allocated later; records it where that is possible."""
        self.forget()
        self._steps_per_launch = steps_per_launch
        self._queue_start()
        for launch in self._launch_steps[: self._rig.steps]:
            launch()
        self._gpu.stream.synchronize()
        record = self._rig.tape.record
        self._start_graph = record(self._encoder, self._queue_start)
        parities = {block * steps_per_launch % 2 for block in range(self._rig.steps // steps_per_launch)}
        for parity in sorted(parities):
            recorded = record(self._steps[0], partial(self._queue_block, parity))
            if recorded is None:
                break
            self._block_graphs[parity] = recorded
        if self._start_graph is not None and self._block_graphs:
            self._first_graph = record(self._steps[0], self._queue_first)

    def forget(self) -> None:
        """Frees the recordings."""
        recordings = (self._start_graph, self._first_graph, self._encode_graph, *self._block_graphs.values())
        for recorded in recordings:
            if recorded is not None:
                self._rig.tape.free(recorded)
        self._start_graph, self._first_graph, self._encode_graph, self._block_graphs = None, None, None, {}

    def start(self) -> None:
        """See `decoding.Machine`."""
        self._ended = False
        recorded = self._encode_graph if self._drawn else self._start_graph
        if self._first_graph is not None and not self._drawn:
            return  # with the first block
        if recorded is not None:
            self._rig.tape.replay(recorded)
        elif self._drawn:
            self._queue_encoder()
        else:
            self._queue_start()

    def queue(self, block: int) -> None:
        """See `decoding.Machine`."""
        parity = block * self._steps_per_launch % 2
        recorded = self._block_graphs.get(parity)
        if block == 0 and self._first_graph is not None and not self._drawn:
            recorded = self._first_graph
        if recorded is None:
            self._queue_block(parity)
        else:
            self._rig.tape.replay(recorded)
        self._rig.events[block].record(self._gpu.stream)

    def going(self, block: int) -> bool:
        """See `decoding.Machine`."""
        self._rig.events[block].synchronize()
        self._ended = not self._buffers.flag.any()
        return not self._ended

    def fetch(self, blocks: int, tokens: Tokens, scores: Scores) -> None:
        """Waits for the blocks that were queued, unless all words have ended; copies the rows that were asked for."""
        if not self._ended:
            self._rig.events[blocks - 1].synchronize()
        for name, rows in zip(_TEXT, (tokens, scores), strict=True):
            rows[:] = self.layouts.state.view(self._buffers.text, name)[: len(rows)]

    def measure(self) -> StepTimes:
        """Times all the steps at once, the median of a few rounds; inputs are in place."""
        self.prepare(self._rig.steps)
        rounds = [self._measure_once() for _ in range(_WARM_UP_ROUNDS)]
        step_us, launch_us, wait_us = (statistics.median(values) for values in zip(*rounds, strict=True))
        return StepTimes(step_us, launch_us, wait_us, one_launch=bool(self._block_graphs))

    def _measure_once(self) -> tuple[float, float, float]:
        self.start()
        self.queue(0)
        self._gpu.stream.synchronize()
        began = time.perf_counter()
        self._rig.events[0].record(self._gpu.stream)
        self.going(0)
        asked = time.perf_counter()
        self._replay_steps()
        queued = time.perf_counter()
        self._gpu.stream.synchronize()
        ended = time.perf_counter()
        wait, launch, run = asked - began, queued - asked, ended - asked
        launches = 1 if self._block_graphs else self._rig.steps
        return max(run - wait, 0) / self._rig.steps * 1e6, launch / launches * 1e6, wait * 1e6

    def _replay_steps(self) -> None:
        """All the steps, without the encoder."""
        self._gpu.drv.memcpy_dtod_async(
            self._buffers.states[0], self._fresh, self.layouts.state.size_bytes, self._gpu.stream
        )
        if self._block_graphs:
            self._rig.tape.replay(self._block_graphs[0])
        else:
            self._queue_block(0)

    def _wire(self) -> tuple[Launch, list[Launch]]:
        """The encoder's launch and the two of a step."""
        inputs, memory, state = self.layouts.inputs, self.layouts.memory, self.layouts.state
        allowed, remembered = self.layouts.allowed, memory.at(self._buffers.memory)
        encode = partial(self._encoder.execute, inputs.shapes, inputs.at(self._buffers.inputs) | remembered)
        shapes = {**memory.shapes, **allowed.shapes, **state.shapes}
        given = remembered | allowed.at(self._buffers.allowed)
        first, second = (state.at(address) for address in self._buffers.states)
        steps: list[Launch] = []
        for context, now, after in zip(self._steps, (first, second), (second, first), strict=True):
            results = {f"{name}_next": address for name, address in after.items()} | {"going": self._buffers.going}
            steps.append(partial(context.execute, shapes, given | now | results))
        return encode, steps

    def _queue_start(self) -> None:
        self._buffers.queue_inputs(self.layouts.inputs, self._gpu)
        self._queue_encoder()

    def _queue_encoder(self) -> None:
        state, size_bytes = self._buffers.states[0], self.layouts.state.size_bytes
        self._gpu.drv.memcpy_dtod_async(state, self._fresh, size_bytes, self._gpu.stream)
        self._launch_encoder()

    def _queue_block(self, parity: int) -> None:
        """Steps, and the text as it is then: what ended does not change any more, so the host may read on.

        The flag comes last: the device may be a block ahead, and whoever sees the flag fall looks at the text at once.
        """
        for index in range(self._steps_per_launch):
            self._launch_steps[(parity + index) % 2]()
        text = self._buffers.text[: self.layouts.state.end_of(_TEXT[-1])]
        state = self._buffers.states[(parity + self._steps_per_launch) % 2]
        self._gpu.drv.memcpy_dtoh_async(text, state, self._gpu.stream)
        self._gpu.drv.memcpy_dtoh_async(self._buffers.flag, self._buffers.going, self._gpu.stream)

    def _queue_first(self) -> None:
        self._queue_start()
        self._queue_block(0)
