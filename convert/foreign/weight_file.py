"""Weight files of other projects, told apart by their content: pickle, PyTorch's two formats, tar, safetensors."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from robustscanner.errors import RobustScannerError

from .safe_pickle import ReadStorage, Storage, Weight, WeightFileError, load_pickle

MAX_FILE_MIB = 4096  # ResNet31 with the state of its optimiser takes 600
MAX_PICKLE_MIB = 64  # names and shapes inside a zip; the numbers lie beside it
MAX_MEMBERS = 100_000  # of a zip or tar

_MAX_MESSAGE = 800  # characters
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # PyTorch before 1.6, and MMOCR's publish_model.py to this day
_DAMAGED = "truncated or damaged; download it again"
_EXPORTED = (
    "an exported inference model, which cannot be read without Paddle; "
    "give the training checkpoint it was made from, best_accuracy.pdparams"
)
_UNKNOWN = "not a weight file of a kind known here: .pdparams, .pth, PaddleOCR's .tar, .safetensors"


@dataclass(frozen=True)
class WeightFile:
    """An open weight file."""

    tree: object  # containers as the file nests them; arrays are `Weight` or NumPy
    read: ReadStorage

    def array(self, weight: Weight | npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The numbers of one array."""
        return weight if isinstance(weight, np.ndarray) else weight.array(self.read)


@contextmanager
def open_weight_file(path: Path) -> Iterator[WeightFile]:
    """Opens a file from a stranger; arrays are read while it is open, and errors of that time get the file's name.

    Raises:
        WeightFileError: too large, of an unknown kind, damaged, or it tries to run code.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            if size > MAX_FILE_MIB << 20:
                raise WeightFileError(f"larger than {MAX_FILE_MIB} MiB; not a RobustScanner")
            yield _open(path, _Clamped(file, size), size)
    except RobustScannerError as error:  # it may quote names from the file, which may hold anything
        message = "".join(c if c.isprintable() else "?" for c in str(error)[:_MAX_MESSAGE])
        raise type(error)(f"{path}: {message}") from None
    except OSError as error:
        raise WeightFileError(f"{path}: {error.strerror or error}; check the path") from None


class _Clamped(io.RawIOBase):
    """A file that allocates what it has, not what a forged length asks for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        file.seek(0)

    def read(self, count: int = -1) -> bytes:
        left = self._size - self._file.tell()
        return self._file.read(left if count < 0 else min(count, left))

    def readline(self, count: int | None = -1) -> bytes:
        return self._file.readline(-1 if count is None else count)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def _open(path: Path, file: Any, size: int) -> WeightFile:
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(file, size)
    if head.startswith(b"\x80"):
        return _open_pickle(file, size)
    if head[257:262] == b"ustar":
        return _open_tar(file)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return WeightFile(_read_safetensors(path), _no_storage)
    if path.suffix in (".pdiparams", ".pdmodel", ".json"):
        raise WeightFileError(_EXPORTED)
    raise WeightFileError("empty; download it again" if not size else _UNKNOWN)


def _open_pickle(file: Any, size: int) -> WeightFile:
    """PaddleOCR's dict of arrays; or PyTorch's older format: five pickles, then the storages one after the other."""
    first, _ = load_pickle(file)
    if first != _LEGACY_MAGIC:
        return WeightFile(first, _no_storage)
    load_pickle(file), load_pickle(file)  # version, machine
    (tree, storages), (keys, _) = load_pickle(file), load_pickle(file)
    places: dict[str, int] = {}
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(str(key))
        if storage is None or int.from_bytes(file.read(8), "little") != storage.count:
            raise WeightFileError(_DAMAGED)
        places[storage.key] = file.tell()
        if file.seek(storage.byte_count, io.SEEK_CUR) > size:
            raise WeightFileError(_DAMAGED)

    def read(storage: Storage) -> bytes:
        if storage.key not in places:
            raise WeightFileError(_DAMAGED)
        file.seek(places[storage.key])
        return bytes(file.read(storage.byte_count))

    return WeightFile(tree, read)


def _open_zip(file: Any, size: int) -> WeightFile:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise WeightFileError(_DAMAGED) from None
    members = {member.filename: member for member in archive.infolist()}
    for name, member in members.items():
        _check_inside(name)
        if member.compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses
            raise WeightFileError(f"member {name[:60]!r} is compressed, as PyTorch never writes it; not a weight file")
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members.values()) > size:
        raise WeightFileError("claims to hold more than it is long; not a weight file")
    pickles = [name for name in members if PurePosixPath(name).name == "data.pkl"]
    if len(pickles) != 1:
        raise WeightFileError("a zip file, but not one that PyTorch wrote; unpack it and give the weight file in it")
    if members[pickles[0]].file_size > MAX_PICKLE_MIB << 20:
        raise WeightFileError(f"lists names for more than {MAX_PICKLE_MIB} MiB; not a RobustScanner")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in members and _read_member(archive, f"{folder}byteorder") != b"little":
        raise WeightFileError("written on a big-endian machine; save it again on a little-endian one")
    tree, _ = load_pickle(io.BytesIO(_read_member(archive, pickles[0])))
    return WeightFile(tree, lambda storage: _read_member(archive, f"{folder}data/{storage.key}"))


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (KeyError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError):
        raise WeightFileError(_DAMAGED) from None


def _open_tar(file: Any) -> WeightFile:
    """PaddleOCR's: a folder with best_accuracy.pdparams. That one is read in memory, nothing is unpacked."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = list(_checked_members(archive))
            chosen = _weights_of(members)
            content = archive.extractfile(chosen)
            data = content.read() if content else b""
    except (tarfile.TarError, ValueError, EOFError):
        raise WeightFileError(_DAMAGED) from None
    if len(data) != chosen.size:
        raise WeightFileError(_DAMAGED)
    return _open_pickle(io.BytesIO(data), len(data))


def _checked_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(archive):
        _check_inside(member.name)
        if not (member.isfile() or member.isdir()) or member.issparse():  # a sparse file may be longer than the tar
            raise WeightFileError(f"member {member.name[:60]!r} is a link or device; not a weight file")
        if count >= MAX_MEMBERS:
            raise WeightFileError(f"holds more than {MAX_MEMBERS} members; not a weight file")
        yield member


def _weights_of(members: list[tarfile.TarInfo]) -> tarfile.TarInfo:
    names = {PurePosixPath(member.name).name: member for member in members if member.isfile()}
    found = [name for name in names if name.endswith(".pdparams") and not name.startswith("._")]  # macOS adds these
    for name in ("best_accuracy.pdparams", *found[:1]):
        if name in names and (len(found) == 1 or name == "best_accuracy.pdparams"):
            return names[name]
    if found:
        raise WeightFileError(f"holds {len(found)} .pdparams ({', '.join(found[:3])}); unpack it and give one of them")
    raise WeightFileError(_EXPORTED if any(n.endswith(".pdiparams") for n in names) else "a tar without any .pdparams")


def _check_inside(name: str) -> None:
    path = PureWindowsPath(name)  # which takes both kinds of slash
    if path.drive or path.root or ".." in path.parts:
        raise WeightFileError(f"member {name[:60]!r} points outside of its folder; not a weight file")


def _read_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    from training.checkpoint import load_tensors

    tensors, metadata = load_tensors(path)
    if "robustscanner.spec" in metadata:
        raise WeightFileError("is a checkpoint of this kit already; export it with convert/export_onnx.py")
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _no_storage(storage: Storage) -> bytes:
    raise WeightFileError(f"refers to a tensor {storage.key[:40]!r} that lies elsewhere; not a weight file")
