"""One batch size on the GPU: where its tensors lie, and how its work is queued."""

import logging
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import EngineError
from robustscanner.gpu.decoding import StepTimes
from robustscanner.gpu.device import ALIGNMENT_BYTES, Bytes, Gpu, Launch, Recorder, RecordingError, first_line
from robustscanner.gpu.plan import Context, Plan, Shapes, Tensor, Tensors
from robustscanner.session import Images, Scores, Tokens, Widths
from robustscanner.spec import ModelSpec

_WARM_UP_ROUNDS = 5
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


@dataclass(frozen=True)
class Layouts:
    """Of one batch size."""

    inputs: Layout
    memory: Layout  # what the encoder gives
    state: Layout

    @classmethod
    def of(cls, encoder: Plan, decoder: Plan, size: int) -> "Layouts":
        """For so many pictures."""
        inputs = Layout.of(_sized(encoder.inputs, size))
        memory = Layout.of(encoder.outputs_for(inputs.shapes))
        return cls(inputs, memory, state_layout(encoder, decoder, size))


def state_layout(encoder: Plan, decoder: Plan, size: int) -> Layout:
    """Of what a step changes: what the decoder takes and the encoder does not give."""
    names = [name for name in decoder.inputs if name not in encoder.outputs]
    names.sort(key=lambda name: _TEXT.index(name) if name in _TEXT else len(_TEXT))
    return Layout.of(_sized({name: decoder.inputs[name] for name in names}, size))


def _sized(tensors: Tensors, size: int) -> dict[str, Tensor]:
    """The batch dimension, the first, is known now."""
    return {n: Tensor((size, *t.shape[1:]) if t.shape[0] == -1 else t.shape, t.dtype) for n, t in tensors.items()}


class Buffers:
    """Memory for the largest batch, allocated once; smaller batches use the front of it.

    Where CPU and GPU share their memory (Jetson), what both look at lies in page-locked memory, and nothing is copied.
    """

    def __init__(self, gpu: Gpu, layouts: Layouts, fresh: Mapping[int, Bytes], blocks: int) -> None:
        self.shared = gpu.integrated
        self.fresh = gpu.filled_memory(fresh)  # a reset is one copy
        self.memory = gpu.device_memory(layouts.memory.size_bytes)
        self.states_host: list[Bytes] = []
        if self.shared:
            self.inputs_host, self.inputs = gpu.shared_memory(layouts.inputs.size_bytes)
            slabs = [gpu.shared_memory(layouts.state.size_bytes) for _ in range(2)]
            self.states_host, self.states = [host for host, _ in slabs], [address for _, address in slabs]
            flags, self.going = gpu.shared_memory(ALIGNMENT_BYTES)
        else:
            self.inputs_host, self.inputs = (
                gpu.host_memory(layouts.inputs.size_bytes),
                gpu.device_memory(layouts.inputs.size_bytes),
            )
            self.states = [gpu.device_memory(layouts.state.size_bytes) for _ in range(2)]
            self.text_host = gpu.host_memory(layouts.state.end_of(_TEXT[-1]))
            flags, self.going = gpu.host_memory(4 * blocks), gpu.device_memory(4)
        # One for each block; a shared one for all, as it only ever falls: what was 0 stays 0.
        count = 1 if self.shared else blocks
        self.flags = [flags[4 * index : 4 * index + 4].view(np.int32) for index in range(count)]


def fresh_state(layout: Layout, spec: ModelSpec) -> Bytes:
    """A state slab before the first step."""
    image = np.zeros(layout.size_bytes, np.uint8)
    start = {"tokens": spec.charset.pad_id, "scores": 1, "token": spec.charset.start_id, "running": 1}
    for name, value in start.items():
        layout.view(image, name)[:] = value
    return image


class Tape:
    """Recordings of launches, where they can be made; of each plan on its own."""

    def __init__(self, recorder: Recorder | None, cuda_error: type[Exception]) -> None:
        self._recorder, self._cuda_error = recorder, cuda_error
        self._unrecordable: set[str] = set()

    def record(self, context: Context, queue: Launch) -> Any:
        """A recording of what `queue` queues; None where that cannot be, which is no reason to stop."""
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
    encoder: Plan
    decoder: Plan
    buffers: Buffers
    events: list[Any]  # one for each block, and the last for the result
    tape: Tape
    steps: int  # the most of a word


class Bucket:
    """One batch size: contexts that are wired once, and recordings of their launches. A `decoding.Machine`."""

    def __init__(self, rig: Rig, size: int) -> None:
        self._rig, self._gpu, self._buffers = rig, rig.gpu, rig.buffers
        self._layouts = Layouts.of(rig.encoder, rig.decoder, size)
        self._fresh = self._buffers.fresh[size]
        self._encoder = rig.encoder.context()
        self._steps = [rig.decoder.context() for _ in range(2)]  # from one state slab to the other
        self._launch_encoder, self._launch_steps = self._wire()
        self._steps_per_launch = 1
        self._start_graph: Any = None
        self._block_graphs: dict[int, Any] = {}  # by the state that the first step reads

    def fill(self, images: Images, valid_width: Widths) -> None:
        """Puts pictures into the input slab; rows left over repeat the last picture, and so end when it does."""
        for name, values in (("images", images), ("valid_width", valid_width)):
            rows = self._layouts.inputs.view(self._buffers.inputs_host, name)
            rows[: len(values)] = values
            rows[len(values) :] = values[-1]

    def prepare(self, steps_per_launch: int) -> None:
        """Runs everything once, so that nothing is compiled or allocated later; records it where that is possible."""
        self.forget()
        self._steps_per_launch = steps_per_launch
        self._queue_start()
        for launch in self._launch_steps[: self._rig.steps]:
            launch()
        self._gpu.stream.synchronize()
        self._start_graph = self._rig.tape.record(self._encoder, self._queue_start)
        parities = {block * steps_per_launch % 2 for block in range(self._rig.steps // steps_per_launch)}
        for parity in sorted(parities):
            recorded = self._rig.tape.record(self._steps[0], partial(self._queue_steps, parity))
            if recorded is None:
                break
            self._block_graphs[parity] = recorded

    def forget(self) -> None:
        """Frees the recordings."""
        for recorded in (self._start_graph, *self._block_graphs.values()):
            if recorded is not None:
                self._rig.tape.free(recorded)
        self._start_graph, self._block_graphs = None, {}

    def start(self) -> None:
        """See `decoding.Machine`."""
        if self._start_graph is None:
            self._queue_start()
        else:
            self._rig.tape.replay(self._start_graph)

    def queue(self, block: int) -> None:
        """See `decoding.Machine`."""
        parity = block * self._steps_per_launch % 2
        if parity in self._block_graphs:
            self._rig.tape.replay(self._block_graphs[parity])
        else:
            self._queue_steps(parity)
        self._queue_message(block)

    def going(self, block: int) -> bool:
        """See `decoding.Machine`."""
        self._rig.events[block].synchronize()
        return bool(self._buffers.flags[0 if self._buffers.shared else block][0])

    def fetch(self, blocks: int, tokens: Tokens, scores: Scores) -> None:
        """Waits for the blocks that were queued, and copies the rows that were asked for."""
        slab = self._text(blocks * self._steps_per_launch % 2)
        for name, rows in zip(_TEXT, (tokens, scores), strict=True):
            rows[:] = self._layouts.state.view(slab, name)[: len(rows)]

    def measure(self) -> StepTimes:
        """Times all the steps at once, the median of a few rounds; inputs are in place."""
        self.prepare(self._rig.steps)
        rounds = [self._measure_once() for _ in range(_WARM_UP_ROUNDS)]
        step_us, launch_us, wait_us = (statistics.median(values) for values in zip(*rounds, strict=True))
        return StepTimes(step_us, launch_us, wait_us, one_launch=bool(self._block_graphs))

    def _measure_once(self) -> tuple[float, float, float]:
        self.start()
        self._gpu.stream.synchronize()
        began = time.perf_counter()
        self._queue_message(0)
        self.going(0)
        asked = time.perf_counter()
        self.queue(0)
        queued = time.perf_counter()
        self.going(0)
        ended = time.perf_counter()
        wait, launch, run = asked - began, queued - asked, ended - asked
        launches = 1 if self._block_graphs else self._rig.steps
        return max(run - wait, 0) / self._rig.steps * 1e6, launch / launches * 1e6, wait * 1e6

    def _wire(self) -> tuple[Launch, list[Launch]]:
        """The encoder's launch and the two of a step."""
        inputs, memory, state = self._layouts.inputs, self._layouts.memory, self._layouts.state
        remembered = memory.at(self._buffers.memory)
        encode = partial(self._encoder.execute, inputs.shapes, inputs.at(self._buffers.inputs) | remembered)
        shapes = {**memory.shapes, **state.shapes}
        first, second = (state.at(address) for address in self._buffers.states)
        steps: list[Launch] = []
        for context, now, after in zip(self._steps, (first, second), (second, first), strict=True):
            results = {f"{name}_next": address for name, address in after.items()} | {"going": self._buffers.going}
            steps.append(partial(context.execute, shapes, remembered | now | results))
        return encode, steps

    def _queue_start(self) -> None:
        drv, buffers, inputs = self._gpu.drv, self._buffers, self._layouts.inputs
        if not buffers.shared:
            drv.memcpy_htod_async(buffers.inputs, buffers.inputs_host[: inputs.size_bytes], self._gpu.stream)
        drv.memcpy_dtod_async(buffers.states[0], self._fresh, self._layouts.state.size_bytes, self._gpu.stream)
        self._launch_encoder()

    def _queue_steps(self, parity: int) -> None:
        for index in range(self._steps_per_launch):
            self._launch_steps[(parity + index) % 2]()

    def _queue_message(self, block: int) -> None:
        if not self._buffers.shared:
            self._gpu.drv.memcpy_dtoh_async(self._buffers.flags[block], self._buffers.going, self._gpu.stream)
        self._rig.events[block].record(self._gpu.stream)

    def _text(self, parity: int) -> Bytes:
        """Host memory that holds tokens and scores of a state, once the device is done."""
        done = self._rig.events[-1]
        if self._buffers.shared:
            slab = self._buffers.states_host[parity]
        else:
            slab = self._buffers.text_host[: self._layouts.state.end_of(_TEXT[-1])]
            self._gpu.drv.memcpy_dtoh_async(slab, self._buffers.states[parity], self._gpu.stream)
        done.record(self._gpu.stream)
        done.synchronize()
        return slab
