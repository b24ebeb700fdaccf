"""The CUDA kernels' side of Python: what a launch is told, and how many blocks and bytes it takes.

The structs are those of `runtime/cuda/call.hpp`, field by field; a test holds one against the other.
"""

from ctypes import Structure, c_float, c_int, c_void_p
from dataclasses import dataclass

from robustscanner.errors import EngineError

HIDDEN_SIZE = 128  # D that the kernels are compiled for
BLOCKS_OF_GROUP, THREADS, MAX_TILE = 8, 256, 8
_UNITS = HIDDEN_SIZE // BLOCKS_OF_GROUP  # of a block
SCRATCH_HEADER_BYTES, SLOT_BYTES = 16, 8
_MOST_EXCHANGES = 1 << 16  # of a launch without clusters: it numbers them in 16 bits


class DecodeCall(Structure):
    """See `DecodeCall` in call.hpp."""

    _fields_ = (
        *((name, c_int) for name in ("words", "groups", "tile", "places", "channels", "classes", "steps", "columns")),
        *((name, c_int) for name in ("start_id", "end_id", "pad_id", "allowed_rows")),
        ("ctc_weight", c_float),
        *((name, c_void_p) for name in ("keys", "values", "mask", "position", "posteriors", "allowed")),
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
    scratch_slots: int


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
    return Launch(groups, tile, shared, groups * sizes.slots(tile))


def _shared_bytes(sizes: DecodeSizes | RowsSizes, tile: int, room: Room) -> int:
    lengths = [SLOT_BYTES * sizes.slots(tile) if room.clusters else 0, *(4 * n for n in sizes.arrays(tile))]
    return sum(-(-length // 16) * 16 for length in lengths)
