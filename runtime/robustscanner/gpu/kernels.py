"""The CUDA kernels' side of Python: what a launch is told, and how many blocks and bytes it takes.

The structs are those of `runtime/cuda/call.hpp`, field by field; a test holds one against the other.
"""

import hashlib
from collections.abc import Mapping
from ctypes import Structure, c_float, c_int, c_void_p
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustscanner.errors import EngineError
from robustscanner.spec import ModelSpec

HIDDEN_SIZE = 128  # D that the kernels are compiled for
BLOCKS_OF_GROUP, THREADS, MAX_TILE = 8, 256, 8
_UNITS = HIDDEN_SIZE // BLOCKS_OF_GROUP  # of a block
SCRATCH_HEADER_BYTES, SLOT_BYTES = 16, 8
WEIGHT_ALIGNMENT_BYTES = 256
_MOST_EXCHANGES = 1 << 16  # of a launch without clusters: it numbers them in 16 bits


class DecodeCall(Structure):
    """See `DecodeCall` in call.hpp."""

    _fields_ = (
        *((name, c_int) for name in ("words", "groups", "tile", "places", "channels", "classes", "steps", "columns")),
        *((name, c_int) for name in ("start_id", "end_id", "pad_id", "allowed_rows")),
        *((name, c_int) for name in ("key_unit", "key_place", "value_place", "value_channel")),
        *((name, c_int) for name in ("label_step", "label_word", "blank_step", "blank_word")),
        ("ctc_weight", c_float),
        *((name, c_void_p) for name in ("keys", "values", "mask", "position", "labels", "blanks", "allowed")),
        *((name, c_void_p) for name in ("table", "lower", "upper", "bias", "classifier", "classifier_bias")),
        *((name, c_void_p) for name in ("tokens", "scores", "lengths", "logits", "scratch")),
        ("scratch_slots", c_int),
    )


class RowsCall(Structure):
    """See `RowsCall` in call.hpp."""

    _fields_ = (
        *((name, c_int) for name in ("sequences", "groups", "tile", "columns")),
        *((name, c_void_p) for name in ("shares", "lower", "upper", "bias", "states", "scratch")),
        ("scratch_slots", c_int),
    )


@dataclass(frozen=True)
class Room:
    """What a GPU has for a launch."""

    groups: int  # that run at once: multiprocessors / 8, or active clusters
    shared_bytes: int  # of a block, at most
    clusters: bool  # from sm_90 on


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched."""

    groups: int
    tile: int
    shared_bytes: int  # of a block
    scratch_slots: int  # in global memory; 0 with clusters, which have theirs in shared memory


@dataclass(frozen=True)
class DecodeSizes:
    """Of the decode kernel's batch; the names of call.hpp."""

    words: int
    places: int
    channels: int
    classes: int
    steps: int
    columns: int = 0

    @property
    def things(self) -> int:
        """What groups share out among them."""
        return self.words

    @property
    def exchanges(self) -> int:
        """Of one tile."""
        return 4 * self.steps

    def slots(self, tile: int) -> int:
        """Numbers that the blocks of a group give each other."""
        prefixes = self.classes if self.columns else 0
        return tile * (2 * HIDDEN_SIZE + self.places + BLOCKS_OF_GROUP * self.classes + prefixes)

    def arrays(self, tile: int) -> list[int]:
        """Lengths of a block's own arrays, in the order of `DecodeShared` in decode.hpp."""
        width, prefixes = -(-self.channels // BLOCKS_OF_GROUP), self.classes if self.columns else 0
        outputs = max(2 * width, self.classes, -(-self.places // BLOCKS_OF_GROUP))
        state = [4 * tile * HIDDEN_SIZE, 2 * tile * _UNITS, tile * self.places, max(tile * outputs, THREADS)]
        scores = [2 * tile * width, tile * width, tile * self.classes, tile * prefixes, 4 * tile * self.columns]
        return [*state, *scores, tile * self.steps, tile * self.steps, tile, tile, tile, tile + 1]


@dataclass(frozen=True)
class RowsSizes:
    """Of the row kernel's batch."""

    sequences: int
    columns: int

    @property
    def things(self) -> int:
        """What groups share out among them."""
        return self.sequences

    @property
    def exchanges(self) -> int:
        """Of one tile."""
        return self.columns

    def slots(self, tile: int) -> int:
        """Numbers that the blocks of a group give each other."""
        return 4 * tile * HIDDEN_SIZE

    def arrays(self, tile: int) -> list[int]:
        """Lengths of a block's own arrays, in the order of `RowsShared` in rows.hpp."""
        return [4 * tile * HIDDEN_SIZE, 2 * tile * _UNITS]


@dataclass(frozen=True)
class Weight:
    """Where an array lies in a file of weights."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.floating]


def weight_layout(spec: ModelSpec, channels: int, *, half: bool) -> tuple[dict[str, Weight], int]:
    """The decode kernel's weights, one after another, and the size of all in bytes."""
    charset, kind = spec.charset, np.dtype(np.float16 if half else np.float32)
    shapes: dict[str, tuple[tuple[int, ...], np.dtype[np.floating]]] = {
        "table": ((len(charset.tokens), HIDDEN_SIZE, 4), np.dtype(np.float32)),
        "lower": ((HIDDEN_SIZE, 4, HIDDEN_SIZE), kind),
        "upper": ((HIDDEN_SIZE, 4, 2 * HIDDEN_SIZE), kind),
        "bias": ((HIDDEN_SIZE, 4), np.dtype(np.float32)),
        "classifier": ((channels, charset.class_count), kind),
        "classifier_bias": ((charset.class_count,), np.dtype(np.float32)),
    }
    return _one_after_another(shapes)


def row_layout(*, half: bool) -> tuple[dict[str, Weight], int]:
    """Likewise the row kernel's."""
    kind = np.dtype(np.float16 if half else np.float32)
    return _one_after_another(
        {
            "lower": ((HIDDEN_SIZE, 4, HIDDEN_SIZE), kind),
            "upper": ((HIDDEN_SIZE, 4, 2 * HIDDEN_SIZE), kind),
            "bias": ((HIDDEN_SIZE, 4), np.dtype(np.float32)),
        }
    )


def _one_after_another(
    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[np.floating]]],
) -> tuple[dict[str, Weight], int]:
    found, end = {}, 0
    for name, (shape, dtype) in shapes.items():
        found[name] = Weight(end, shape, dtype)
        end += -(-prod(shape) * dtype.itemsize // WEIGHT_ALIGNMENT_BYTES) * WEIGHT_ALIGNMENT_BYTES
    return found, end


def pack_weights(arrays: Mapping[str, npt.NDArray[np.floating]], spec: ModelSpec) -> bytes:
    """The file of weights of the decode kernel, from arrays of its shapes and types."""
    half = arrays["classifier"].dtype == np.float16
    return _pack(arrays, *weight_layout(spec, len(arrays["classifier"]), half=half))


def pack_row_weights(arrays: Mapping[str, npt.NDArray[np.floating]]) -> bytes:
    """Likewise of the row kernel."""
    return _pack(arrays, *row_layout(half=arrays["lower"].dtype == np.float16))


def _pack(arrays: Mapping[str, npt.NDArray[np.floating]], layout: Mapping[str, Weight], size_bytes: int) -> bytes:
    packed = np.zeros(size_bytes, np.uint8)
    for name, weight in layout.items():
        array = np.ascontiguousarray(arrays[name], weight.dtype)
        packed[weight.offset : weight.offset + array.nbytes] = array.reshape(-1).view(np.uint8)
    return packed.tobytes()


def sources_sha256(folder: Path) -> str:
    """Of everything that these kernels are made of."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.hpp"), folder / "kernels.cu"]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def plan_launch(sizes: DecodeSizes | RowsSizes, room: Room) -> Launch:
    """Groups and tiles for a batch. Tiles are as small as the groups allow: the words of one wait for each other.

    Raises:
        EngineError: it does not fit this GPU.
    """
    groups = min(room.groups, sizes.things)
    if groups < 1:
        raise EngineError(f"the kernels need {BLOCKS_OF_GROUP} multiprocessors at once, and this GPU has fewer")
    tile = min(-(-sizes.things // groups), MAX_TILE)
    while tile > 1 and _shared_bytes(sizes, tile, room) > room.shared_bytes:
        tile -= 1
    shared = _shared_bytes(sizes, tile, room)
    if shared > room.shared_bytes:
        raise EngineError(f"a block needs {shared} bytes of shared memory, and this GPU has {room.shared_bytes}")
    tiles = -(-sizes.things // (groups * tile))
    if tiles * sizes.exchanges >= _MOST_EXCHANGES:
        raise EngineError(f"a batch of {sizes.things} is more than the kernels can number; use smaller batches")
    return Launch(groups, tile, shared, 0 if room.clusters else groups * sizes.slots(tile))


def _shared_bytes(sizes: DecodeSizes | RowsSizes, tile: int, room: Room) -> int:
    lengths = [SLOT_BYTES * sizes.slots(tile) if room.clusters else 0, *(4 * n for n in sizes.arrays(tile))]
    return sum(-(-length // 16) * 16 for length in lengths)
