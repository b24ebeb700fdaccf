"""The decode kernel on a GPU: one launch behind the encoder reads a batch to its end; see docs/tensorrt.md."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustscanner.errors import EngineError
from robustscanner.gpu.bucket import Layout, Layouts, Rig, Size
from robustscanner.gpu.crops import Cropper, DevicePicture
from robustscanner.gpu.kernel_module import KernelModule
from robustscanner.gpu.kernels import BLOCKS_OF_GROUP, HIDDEN_SIZE, DecodeCall, DecodeSizes, weight_layout
from robustscanner.gpu.plan import REBUILD
from robustscanner.regions import Words
from robustscanner.session import Images, Scores, Tokens, Widths
from robustscanner.spec import ModelSpec

MEMORY = ("keys", "values", "mask", "position")  # what the kernel reads; with joint scoring, CTC too:
CTC_MEMORY = ("ctc_following", "ctc_stays")
_UNREAD = ("ctc_sums", "ctc_order")  # of steps only


class KernelDecoder:
    """A loaded kernel, its weights and its results' memory, for all sizes of a session.

    Args:
        module: the compiled kernels.
        weights: as `kernels.pack_weights` writes them.
        spec: the model.
        layouts: of all sizes that there will be.

    Raises:
        EngineError: weights that do not fit, or too little room on this GPU.
    """

    def __init__(self, module: KernelModule, weights: Path, spec: ModelSpec, layouts: Mapping[Size, Layouts]) -> None:
        if spec.network.hidden_size != HIDDEN_SIZE:
            raise EngineError(f"the decode kernel is for hidden size {HIDDEN_SIZE}, not {spec.network.hidden_size}")
        self._spec = spec
        channels, half = _channels(next(iter(layouts.values())).memory, spec)
        self._kernel = module.kernel(f"decode_{'half' if half else 'float'}")
        self._weights = module.place_weights(weights, *weight_layout(spec, channels, half=half))
        self._launches = {size: self._kernel.plan(_sizes(size, layout, spec)) for size, layout in layouts.items()}
        self._scratch_slots = max(launch.scratch_slots for launch in self._launches.values())
        self._scratch = module.scratch(self._scratch_slots)
        most = max(size.pictures for size in layouts)
        self.results_host, self._results = module.gpu.shared_memory(4 * most * (2 * spec.network.max_length + 1))

    def __str__(self) -> str:
        launch = next(iter(self._launches.values()))
        return f"decode kernel, {launch.groups} x {BLOCKS_OF_GROUP} blocks"

    def call(self, size: Size, layouts: Layouts, memory: int, allowed: int | None) -> DecodeCall:
        """What the kernel is told to read the encoder's results at an address; and what is allowed, at another."""
        charset, steps = self._spec.charset, self._spec.network.max_length
        sizes, launch = _sizes(size, layouts, self._spec), self._launches[size]
        call = DecodeCall(groups=launch.groups, tile=launch.tile, **asdict(sizes))
        call.start_id, call.end_id, call.pad_id = charset.start_id, charset.end_id, charset.pad_id
        turned = _is_turned(layouts.memory)
        call.key_unit, call.key_place = (1, HIDDEN_SIZE) if turned else (sizes.places, 1)
        call.value_place, call.value_channel = (1, sizes.places) if turned else (2 * sizes.channels, 1)
        addresses = layouts.memory.at(memory)
        for name, address in {name: addresses[name] for name in MEMORY}.items():
            setattr(call, name, address)
        for name, address in self._weights.items():
            setattr(call, name, address)
        if sizes.columns:
            _say_columns(call, addresses, self._spec)
        call.allowed_rows, call.allowed = (0, None) if allowed is None else (steps, allowed)
        call.tokens = self._results
        call.scores = call.tokens + 4 * size.pictures * steps
        call.lengths = call.scores + 4 * size.pictures * steps
        call.scratch, call.scratch_slots = self._scratch, self._scratch_slots
        return call

    def launch(self, size: Size, call: DecodeCall) -> None:
        """Queues it."""
        self._kernel.queue(self._launches[size], call)


class KernelBucket:
    """One size: the encoder and the kernel, wired once and recorded as one launch."""

    def __init__(self, rig: Rig, decoder: KernelDecoder, size: Size) -> None:
        self._rig, self._decoder, self._size = rig, decoder, size
        self.layouts = Layouts.of(rig.encoder, rig.decoder_for(size), size)
        self._encoder = rig.encoder.context()
        inputs, memory, buffers = self.layouts.inputs, self.layouts.memory, rig.buffers
        wiring = inputs.at(buffers.inputs) | memory.at(buffers.memory)
        self._encode = partial(self._encoder.execute, inputs.shapes, wiring)
        self._calls = {  # by whether there is a constraint
            constrained: decoder.call(size, self.layouts, buffers.memory, buffers.allowed if constrained else None)
            for constrained in (False, True)
        }
        # By whether the pictures are there already, and by whether there is a constraint.
        self._graphs: dict[tuple[bool, bool], Any] = {}
        self._drawn = False

    def fill(self, images: Images, valid_width: Widths) -> None:
        """Puts pictures into the input slab."""
        self._drawn = False
        self._rig.buffers.fill(self.layouts.inputs, images, valid_width)

    def draw(self, cropper: Cropper, picture: DevicePicture, words: Words) -> None:
        """Queues the drawing of words into the input slab, on the device."""
        inputs = self.layouts.inputs
        places, (size, height, width, _) = inputs.at(self._rig.buffers.inputs), inputs.shapes["images"]
        cropper.draw(picture, words, places["images"], places["valid_width"], (size, height, width))
        self._drawn = True

    def prepare(self, _: int) -> None:
        """Runs everything once, so that nothing is compiled or allocated later; records it where that is possible."""
        self.forget()
        self._queue()
        self._rig.gpu.stream.synchronize()
        self._recorded()

    def read(self, tokens: Tokens, scores: Scores) -> None:
        """Reads the pictures that are there, to the end of each word, into the rows given."""
        recorded = self._recorded()
        if recorded is not None:
            self._rig.tape.replay(recorded)
        else:
            self._queue()
        done = self._rig.events[0]
        done.record(self._rig.gpu.stream)
        done.synchronize()
        shape = (self._size.pictures, tokens.shape[1])
        count = shape[0] * shape[1]
        words = self._decoder.results_host[: 8 * count].view(np.int32)
        tokens[:] = words[:count].reshape(shape)[: len(tokens)]
        scores[:] = words[count:].view(np.float32).reshape(shape)[: len(scores)]

    def forget(self) -> None:
        """Frees the recordings."""
        for recorded in self._graphs.values():
            if recorded is not None:
                self._rig.tape.free(recorded)
        self._graphs = {}

    def _recorded(self) -> Any:
        """The recording of such a run, made when it is first needed; None where that is not possible."""
        kind = self._drawn, self._rig.buffers.constrained
        if kind not in self._graphs:
            self._graphs[kind] = self._rig.tape.record(self._encoder, self._queue)
        return self._graphs[kind]

    def _queue(self) -> None:
        buffers = self._rig.buffers
        if not self._drawn:
            buffers.queue_inputs(self.layouts.inputs, self._rig.gpu)
        self._encode()
        self._decoder.launch(self._size, self._calls[buffers.constrained])


def _is_turned(memory: Layout) -> bool:
    """Whether keys are (N, P, D) and values (N, 2C, P), not (N, D, P) and (N, P, 2C)."""
    _, first, second = memory.shapes["keys"]
    return second == HIDDEN_SIZE and memory.shapes["values"][2] == first


def _say_columns(call: DecodeCall, addresses: Mapping[str, int], spec: ModelSpec) -> None:
    """Where the memory tells of CTC's columns; before the first there is one more (training/model/joint.py)."""
    aligned = call.columns + 1
    call.ctc_weight = spec.network.ctc_weight
    call.labels, call.label_step, call.label_word = addresses["ctc_following"], call.classes, aligned * call.classes
    call.blanks = addresses["ctc_stays"] + 4  # [r, r + 1]: column r + 1 says nothing
    call.blank_step, call.blank_word = aligned + 1, aligned * aligned


def _channels(memory: Layout, spec: ModelSpec) -> tuple[int, bool]:
    """C, and whether the values are half; all else is float in any case."""
    wanted = (*MEMORY, *(CTC_MEMORY if spec.network.ctc_weight else ()))
    if missing := [name for name in wanted if name not in memory.tensors]:
        raise EngineError(f"the encoder gives no {missing[0]}; {REBUILD}")
    if unknown := [name for name in memory.tensors if name not in (*wanted, *_UNREAD)]:
        raise EngineError(f"the decode kernel knows no {unknown[0]}, which the encoder gives; {REBUILD}")
    kinds = {name: memory.tensors[name].dtype for name in wanted}
    floats = {kind for name, kind in kinds.items() if name not in ("values", "position")}
    if floats != {np.dtype(np.float32)} or kinds["values"] != kinds["position"]:
        raise EngineError(f"the decode kernel cannot read {kinds['keys']} keys and {kinds['values']} values; {REBUILD}")
    return memory.shapes["values"][1 if _is_turned(memory) else 2] // 2, kinds["values"] == np.float16


def _sizes(size: Size, layouts: Layouts, spec: ModelSpec) -> DecodeSizes:
    memory, (channels, _) = layouts.memory, _channels(layouts.memory, spec)
    places = memory.shapes["keys"][1 if _is_turned(memory) else 2]
    columns = memory.shapes["ctc_following"][1] - 1 if spec.network.ctc_weight else 0
    classes, steps = spec.charset.class_count, spec.network.max_length
    return DecodeSizes(size.pictures, places, channels, classes, steps, columns)
