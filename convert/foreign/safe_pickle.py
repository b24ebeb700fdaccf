"""Reads pickles from strangers: tensors, NumPy arrays and plain containers. Nothing that a file names is ever called.

Unpickling means calling what the file names. Here no name reaches the real thing: each admitted one stands for a class
of this module that only remembers its arguments, and all others are refused by name. Not even NumPy's own
reconstruction is used, because a forged dtype makes it take bytes for object pointers.
"""

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from robustscanner.errors import RobustScannerError

ReadStorage = Callable[["Storage"], bytes]  # where a file keeps the numbers of its tensors

_MAX_DIMENSIONS = 8
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")  # NumPy's names
# torch's storage classes; bfloat16 is read as its bits
_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<u1",
}


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_TORCH_TYPES = (
    *("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"),
    *("strided", "contiguous_format", "preserve_format"),
)


class WeightFileError(RobustScannerError):
    """A file that holds no weights, is damaged, or tries something else."""


class _StandIn:
    """Takes any arguments and any state, and does nothing with them."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:  # without it, pickle would set the attributes that the file names
        pass


class Weight(_StandIn):
    """An array or tensor in the file, not yet read."""

    shape: tuple[int, ...] = ()

    def array(self, read: ReadStorage) -> npt.NDArray[Any]:
        """Its numbers, little-endian.

        Raises:
            WeightFileError: they are not there, or not numbers.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Storage(_StandIn):  # else the file could change its fields after they were checked
    """A block of numbers that tensors are views of."""

    key: str
    dtype: str
    count: int

    @property
    def byte_count(self) -> int:
        """Size in the file."""
        return self.count * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)


class _Dict(_StandIn, dict[Any, Any]):
    """OrderedDict without the attributes that state dicts carry (`_metadata`)."""

    def __init__(self, items: Any = ()) -> None:
        dict.__init__(self, items)


class _DefaultDict(_Dict):
    def __init__(self, factory: object = None, items: Any = ()) -> None:
        super().__init__(items)


class _Encoded(_StandIn):
    """`_codecs.encode(text, "latin1")`: how protocol 2 spells bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        return text.encode("latin1")


class _Dtype(_StandIn):
    def __init__(self, name: str, *flags: object) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


class _Array(Weight):
    """`numpy.core.multiarray._reconstruct`, whose content follows as state."""

    dtype: object = None

    def __setstate__(self, state: Any) -> None:
        _, shape, self.dtype, self.fortran, self.raw = state
        self.shape = _checked_shape(shape)

    def array(self, read: ReadStorage) -> npt.NDArray[Any]:
        if not isinstance(self.dtype, _Dtype) or self.dtype.name not in _NUMBERS or type(self.raw) is not bytes:
            raise WeightFileError("holds an array that is not of numbers; not a weight file")
        kind = np.dtype(self.dtype.order + self.dtype.name)
        if math.prod(self.shape) * kind.itemsize != len(self.raw):
            raise WeightFileError("holds an array of another size than it claims; not a weight file")
        return np.frombuffer(self.raw, kind).reshape(self.shape, order="F" if self.fortran else "C")


class _Tensor(Weight):
    """`torch._utils._rebuild_tensor_v2`: a view of a storage."""

    def __init__(self, storage: Storage, offset: int, size: Any, stride: Any, *_: object) -> None:
        if not isinstance(storage, Storage) or type(offset) is not int:
            raise WeightFileError("holds a tensor without a storage; not a weight file")
        self.storage, self.offset = storage, offset
        self.shape, self.stride = _checked_shape(size), _checked_shape(stride)
        # A view may repeat numbers without end; weights never do.
        last = offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        count = math.prod(self.shape)
        if offset < 0 or (count and not count <= last + 1 <= storage.count):
            raise WeightFileError("holds a tensor that reaches beyond its storage; not a weight file")

    def array(self, read: ReadStorage) -> npt.NDArray[Any]:
        raw, kind = read(self.storage), self.storage.dtype
        if len(raw) != self.storage.byte_count:
            raise WeightFileError("holds a tensor shorter than it claims to be; download it again")
        flat = np.frombuffer(raw, "<u2" if kind == "bfloat16" else kind)
        if kind == "bfloat16":  # the upper half of a float32
            flat = (flat.astype("<u4") << 16).view("<f4")
        steps = [step * flat.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps, writeable=False)


class _Parameter(_StandIn):
    """`torch._utils._rebuild_parameter`: the tensor it wraps."""

    def __new__(cls, data: object, *_: object) -> Any:
        return data


class _Bystander(_StandIn):
    """What trainers leave beside the weights: running averages, schedules, command lines, paths, sets, types."""


class _Getattr(_StandIn):
    """Some objects beside the weights look up their own methods; that is ignored, any other `getattr` refused."""

    def __init__(self, owner: object, name: str) -> None:
        if owner is not _Bystander:
            raise _refusal("builtins", "getattr")


class _StorageType(_StandIn):
    dtype = ""


_STAND_INS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): _Dict,
    ("collections", "Counter"): _Dict,
    ("collections", "defaultdict"): _DefaultDict,
    ("builtins", "dict"): _Dict,
    ("builtins", "getattr"): _Getattr,
    ("_codecs", "encode"): _Encoded,
    ("numpy", "ndarray"): _StandIn,
    ("numpy", "dtype"): _Dtype,
    ("torch", "Size"): _StandIn,
    ("torch", "device"): _StandIn,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("mmengine.logging.history_buffer", "HistoryBuffer"): _Bystander,
    ("torch.optim.lr_scheduler", "OneCycleLR"): _Bystander,
    ("argparse", "Namespace"): _Bystander,
    **{("builtins", name): _Bystander for name in ("set", "frozenset", "list", "tuple", "int", "float", "str", "bool")},
    **{(module, name): _Bystander for module in ("pathlib", "pathlib._local") for name in _PATHS},
    **{("torch", name): _Bystander for name in _TORCH_TYPES},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _StandIn for core in ("core", "_core")},
    **{("torch", name): type(name, (_StorageType,), {"dtype": dtype}) for name, dtype in _STORAGE_DTYPES.items()},
}
_REAL_NAMES = {"__builtin__": "builtins", "posix": "os", "nt": "os"}


class _Unpickler(pickle._Unpickler):
    """The one written in Python: in C, a memo index of 2**32 makes it allocate 64 GiB."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> type:
        module = _REAL_NAMES.get(module_name, module_name)
        if (module, global_name) not in _STAND_INS:
            raise _refusal(module, global_name)
        return _STAND_INS[module, global_name]

    def get_extension(self, code: int) -> None:  # these would come from a cache of the whole process
        raise _refusal("copyreg", f"extension {code}")

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key, _, count, *view = pid
        known = isinstance(storage_type, type) and issubclass(storage_type, _StorageType)
        if kind != "storage" or not known or type(count) is not int or any(part is not None for part in view):
            raise WeightFileError("refers to a tensor in a way that this reader does not know; save it again as .pth")
        return self.storages.setdefault(str(key), Storage(str(key), storage_type.dtype, count))


def load_pickle(file: BinaryIO) -> tuple[object, dict[str, Storage]]:
    """One pickle from where the file stands: its object, arrays as `Weight`, and the storages it refers to.

    Raises:
        WeightFileError: it names anything but arrays, tensors and containers, or is truncated or damaged.
    """
    unpickler = _Unpickler(file)
    try:
        return unpickler.load(), unpickler.storages
    except WeightFileError:
        raise
    except Exception as error:  # a malformed pickle may raise nearly anything
        raise WeightFileError(f"truncated or damaged ({type(error).__name__}); download it again") from None


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise WeightFileError("holds an array of no shape; not a weight file")
    if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise WeightFileError(f"holds an array of the impossible shape {str(shape)[:60]}; not a weight file")
    return cast("tuple[int, ...]", shape)


def _refusal(module: str, name: str) -> WeightFileError:
    shown = f"{module}.{name}"[:80].encode("unicode_escape").decode()
    return WeightFileError(f"asks to run {shown}; not a weight file")
