"""An encoder whose row LSTM is a CUDA kernel: a plan before it, a launch, a plan after it; see docs/gpu-decoding.md."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from robustscanner.errors import EngineError
from robustscanner.gpu.bucket import Layout
from robustscanner.gpu.kernel_module import KernelModule
from robustscanner.gpu.kernels import HIDDEN_SIZE, Launch, RowsCall, RowsSizes, row_layout
from robustscanner.gpu.plan import REBUILD, Context, Plan, Shapes, Tensor, Tensors, Wiring

SHARES, STATES = "row_shares", "row_states"  # what the kernel reads and writes: (N, H, S, 4D) and (N, H, S, D)


class RowEncoder:
    """A `plan.Encoder` made of two plans and the kernel between them.

    Args:
        front: from the pictures to SHARES.
        back: from STATES to what else a decoder reads.
        module: with the kernel.
        weights: as `kernels.pack` writes them.
        wanted: names of the tensors that decoders take; what else there is stays in here.

    Raises:
        EngineError: plans that do not fit each other, or weights or a GPU that do not fit the kernel.
    """

    def __init__(self, front: Plan, back: Plan, module: KernelModule, weights: Path, wanted: Collection[str]) -> None:
        _check_halves(front, back)
        self.name, self._module = f"{front.name}, {back.name}", module
        self.inputs: Tensors = front.inputs
        self.front, self.back, self._wanted = front, back, frozenset(wanted)
        self.outputs: Tensors = {
            n: tensor for n, tensor in {**front.outputs, **back.outputs}.items() if n in self._wanted
        }
        half = front.outputs[SHARES].dtype == np.float16
        self.kernel = module.kernel(f"rows_{'half' if half else 'float'}")
        self.kernel.plan(RowsSizes(1, 1))  # raises where nothing fits
        self._weights = module.place_weights(weights, *row_layout(half=half))
        self._inner: dict[tuple[tuple[str, tuple[int, ...]], ...], Layout] = {}
        self._launches: dict[RowsSizes, Launch] = {}
        self._slab, self._scratch, self._scratch_slots = 0, 0, 0

    @property
    def shares_context(self) -> bool:
        """See `Plan`."""
        return self.front.shares_context or self.back.shares_context

    def extent(self, name: str, axis: int = 0) -> tuple[int, int]:
        """See `Plan`; of both halves."""
        low, high = self.front.extent(name, axis)
        if axis:
            return low, high
        least, most = self.back.extent(STATES)
        return max(low, least), min(high, most)

    def context(self) -> "RowContext":
        """Of both halves; see `Plan`."""
        return RowContext(self, self.front.context(), self.back.context())

    def outputs_for(self, shapes: Shapes) -> Tensors:
        """What comes out for inputs of these shapes; room for what stays in here is made by `reserve`."""
        found = dict(self.front.outputs_for(shapes))
        shares = found[SHARES]
        found[STATES] = Tensor((*shares.shape[:3], HIDDEN_SIZE), shares.dtype)
        found |= self.back.outputs_for({name: found[name].shape for name in self.back.inputs})
        inner = {name: tensor for name, tensor in found.items() if name not in self._wanted}
        self._inner[_key(shapes)] = Layout.of(inner)
        sizes = _sizes(shares)
        self._launches[sizes] = self.kernel.plan(sizes)
        return {name: found[name] for name in self.outputs}

    def reserve(self) -> None:
        """Memory for all shapes that were asked for so far."""
        self._slab = self._module.gpu.device_memory(max(layout.size_bytes for layout in self._inner.values()))
        self._scratch_slots = max(launch.scratch_slots for launch in self._launches.values())
        self._scratch = self._module.scratch(self._scratch_slots)

    def inner(self, shapes: Shapes) -> Mapping[str, int]:
        """Addresses of what stays in here."""
        return self._inner[_key(shapes)].at(self._slab)

    @property
    def halves(self) -> tuple[Plan, Plan]:
        """Both plans."""
        return self.front, self.back

    def call(self, shapes: Shapes, addresses: Mapping[str, int]) -> tuple[Launch, RowsCall]:
        """What the kernel is told."""
        sizes = _sizes(self._inner[_key(shapes)].tensors[SHARES])
        launch = self._launches[sizes]
        call = RowsCall(sizes.sequences, launch.groups, launch.tile, sizes.columns)
        call.shares, call.states = addresses[SHARES], addresses[STATES]
        for name, address in self._weights.items():
            setattr(call, name, address)
        call.scratch, call.scratch_slots = self._scratch, self._scratch_slots
        return launch, call


class RowContext:
    """Contexts of both halves, and what is wired at present; see `plan.Context`."""

    def __init__(self, encoder: RowEncoder, front: Context, back: Context) -> None:
        self.plan, self._front, self._back = encoder, front, back
        self._given: Wiring | None = None

    def execute(self, shapes: Shapes, wiring: Wiring) -> None:
        """Queues a run."""
        if self._given is not wiring:
            self._wire(shapes, wiring)
        self._front.execute(shapes, self._before)
        self.plan.kernel.queue(self._launch, self._call)
        self._back.execute(self._back_shapes, self._after)

    def is_recordable(self) -> bool:
        """See `plan.Context`."""
        return self._front.is_recordable() and self._back.is_recordable()

    def _wire(self, shapes: Shapes, wiring: Wiring) -> None:
        encoder = self.plan
        addresses = {**wiring, **encoder.inner(shapes)}
        outputs = self._front.outputs(shapes)
        self._before = {name: addresses[name] for name in (*shapes, *outputs)}
        self._after = {name: addresses[name] for name in (*encoder.back.inputs, *encoder.back.outputs)}
        states = (*outputs[SHARES].shape[:3], HIDDEN_SIZE)
        self._back_shapes = {n: states if n == STATES else outputs[n].shape for n in encoder.back.inputs}
        self._launch, self._call = encoder.call(shapes, addresses)
        self._given = wiring


def _check_halves(front: Plan, back: Plan) -> None:
    """Whether they are what `convert/engine/trt/row_cut.py` makes."""
    if SHARES not in front.outputs or STATES not in back.inputs:
        raise EngineError(f"{front.name} gives no {SHARES}, or {back.name} takes no {STATES}; {REBUILD}")
    shares, states = front.outputs[SHARES], back.inputs[STATES]
    if shares.shape[-1] != 4 * HIDDEN_SIZE or shares.dtype != states.dtype:
        found = f"{shares.dtype} {list(shares.shape)}"
        raise EngineError(f"the row kernel is for hidden size {HIDDEN_SIZE}, not for {SHARES} {found}; {REBUILD}")
    if missing := [name for name in back.inputs if name != STATES and name not in front.outputs]:
        raise EngineError(f"{front.name} gives no {missing[0]}, which {back.name} takes; {REBUILD}")


def _sizes(shares: Tensor) -> RowsSizes:
    batch, rows, columns, _ = shares.shape
    return RowsSizes(batch * rows, columns)


def _key(shapes: Shapes) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted(shapes.items()))
