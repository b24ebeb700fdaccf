"""Words of pictures that lie on the GPU already: drawn onto canvases there, without a copy to the host."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustscanner.errors import EngineError, ImageError
from robustscanner.gpu.device import Bytes, Gpu
from robustscanner.regions import WORD, Words

_SOURCES = tuple(Path(__file__).parents[up] / "cuda" / "resize.cu" for up in (1, 2))  # in a wheel, in a checkout
_KERNEL = "robustscanner_resize"
_PARAMETERS = "PqqqiiPiPPiii"  # of that kernel, as the module struct names types
_BLOCK = (32, 8, 1)  # threads
_ON_GPU = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_UNSIGNED_8_BITS = (1, 8, 1)  # DLPack's type code, bits and lanes

Owner = object  # keeps memory alive


@dataclass(frozen=True)
class DevicePicture:
    """Pixels in device memory that somebody else owns: uint8 RGB [H, W, 3], in any order of the axes in memory."""

    address: int
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]  # bytes
    stream: int | None  # that writes them, if they are not there yet
    owner: Owner

    @classmethod
    def of(cls, picture: Any, reader: int, stream: int | None = None) -> "DevicePicture":
        """Of anything with `__cuda_array_interface__` (PyTorch, CuPy, Numba, PyCUDA) or DLPack.

        Args:
            picture: uint8 [H, W, 3], RGB.
            reader: handle of the CUDA stream that will read it.
            stream: handle of the one that fills it, if not the one that the picture names itself.

        Raises:
            ImageError: it is of another kind or shape, or does not lie on a GPU.
        """
        if interface := getattr(picture, "__cuda_array_interface__", None):
            found = _from_interface(interface, picture, stream)
        elif hasattr(picture, "__dlpack__"):
            found = _from_dlpack(picture, reader, stream)
        else:
            raise ImageError(f"picture is {type(picture).__name__}; expected an array on a GPU")
        if len(found.shape) != 3 or found.shape[2] != 3 or 0 in found.shape:
            raise ImageError(f"picture on the GPU has shape {list(found.shape)}; expected [H, W, 3], RGB, not empty")
        return found


def _from_interface(interface: Any, owner: Owner, stream: int | None) -> DevicePicture:
    if interface["typestr"] not in ("|u1", "<u1"):
        raise ImageError(f"picture on the GPU is {interface['typestr']}; expected uint8 (RGB, 0…255)")
    shape = tuple(interface["shape"])
    strides = tuple(interface.get("strides") or _dense(shape))
    writer = interface.get("stream") if stream is None else stream
    return DevicePicture(int(interface["data"][0]), shape, strides, writer, owner)


def _from_dlpack(picture: Any, reader: int, stream: int | None) -> DevicePicture:
    kind, _ = picture.__dlpack_device__()
    if int(kind) not in _ON_GPU:
        raise ImageError("picture does not lie on a GPU; read it as an array of the host")
    capsule = picture.__dlpack__(stream=reader)  # which waits from now on for whoever fills it
    tensor = _DLTensor.from_address(_capsule_address(capsule))
    if (tensor.code, tensor.bits, tensor.lanes) != _UNSIGNED_8_BITS:
        raise ImageError("picture on the GPU is not uint8 (RGB, 0…255)")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _dense(shape)
    address = tensor.data + tensor.byte_offset
    # A capsule that nobody takes gives its tensor back when it goes.
    return DevicePicture(address, shape, strides, stream, (capsule, picture))  # type: ignore[arg-type]


def _dense(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_size_t),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # of elements, here bytes
        ("byte_offset", ctypes.c_uint64),
    )


def _capsule_address(capsule: object) -> int:
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(address(capsule, b"dltensor"))


class Cropper:
    """The kernel that draws words, and its memory; made when it is first needed."""

    def __init__(self, gpu: Gpu, largest: int, *, area: bool) -> None:
        self._gpu, self._area = gpu, area
        self._module = _load(gpu)
        gpu.own(self._forget)
        self._kernel = self._module.get_function(_KERNEL)
        self._kernel.prepare(_PARAMETERS)
        self._words_host: Bytes = gpu.host_memory(largest * WORD.itemsize)
        self._words = gpu.device_memory(largest * WORD.itemsize)

    def draw(
        self, picture: DevicePicture, words: Words, canvases: int, valid_width: int, shape: tuple[int, int, int]
    ) -> None:
        """Queues the drawing of words onto canvases [N, height, width, 3]; those left over repeat the last word.

        Args:
            picture: what they are in; must stay as it is until the drawing is done.
            words: at least one.
            canvases: device address.
            valid_width: device address.
            shape: N, height and width.
        """
        count, height, width = shape
        words_bytes = words.view(np.uint8).reshape(-1)
        self._words_host[: words_bytes.size] = words_bytes
        stream = self._gpu.stream
        self._gpu.drv.memcpy_htod_async(self._words, self._words_host[: words_bytes.size], stream)
        grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), count)
        rows, columns = picture.shape[:2]
        where = picture.address, *picture.strides, rows, columns
        targets = self._words, len(words), canvases, valid_width
        self._kernel.prepared_async_call(grid, _BLOCK, stream, *where, *targets, height, width, int(self._area))

    def _forget(self) -> None:
        self._kernel = self._module = None


def _load(gpu: Gpu) -> Any:
    source = next((path for path in _SOURCES if path.is_file()), None)
    if source is None:
        raise EngineError(f"{_SOURCES[0]}: missing; install robustscanner again")
    return gpu.compile(source.read_text(encoding="utf-8"))
