"""The pictures of a large set: a folder, Parquet files, WebDataset tars or an LMDB, here or at a URL of fsspec."""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from robustscanner.errors import ImageError, MissingPackageError, RobustScannerError
from robustscanner.pictures import SUFFIXES

_ROWS = 64  # of a Parquet file in memory at once


class SourceError(RobustScannerError):
    """A set of pictures that cannot be listed or reached."""


class Place(NamedTuple):
    """Where one picture is."""

    key: str
    file: str  # in its file system
    at: int = 0  # byte of a tar, row of a Parquet file, number in an LMDB
    size: int = 0  # in bytes, in a tar


@dataclass(frozen=True)
class Source:
    """A set of pictures; it can be pickled, and holds nothing open."""

    url: str  # absolute, or with its protocol
    key_column: str = "key"  # of Parquet files
    image_column: str = "image"

    def places(self) -> list[Place]:
        """All pictures, always in the same order: files by name, then as they lie in the file.

        Raises:
            SourceError: nothing is there, several kinds of files are, or one of them cannot be read.
        """
        with _explained(self.url):
            kind, files = self._files()
            found = [place for file in files for place in _KINDS[kind].places(self, file)]
        if not found:
            raise SourceError(f"{self.url}: holds no pictures; check the path")
        return found

    def read(self, places: Sequence[Place]) -> Iterator[tuple[str, bytes | ImageError]]:
        """Key and bytes of each picture, or why there are none; neighbours should stay together.

        Raises:
            SourceError: the set cannot be reached.
        """
        with _explained(self.url):
            for file, group in groupby(places, attrgetter("file")):
                yield from _KINDS[_kind(file)].read(self, file, list(group))

    def _files(self) -> tuple[str, list[str]]:
        system, path = self.system()
        if not system.exists(path):
            raise SourceError(f"{self.url}: no such file or folder; check the path")
        paths = [path] if system.isfile(path) else sorted(system.find(path))
        files = [file for file in paths if not PurePosixPath(file).name.startswith((".", "_")) and _kind(file)]
        kinds = sorted({_kind(file) for file in files})
        if len(kinds) != 1:
            found = " and ".join(kinds) or "neither pictures nor .parquet, .tar or .mdb files"
            raise SourceError(f"{self.url}: holds {found}; give a folder or file of one kind")
        if kinds == [".mdb"] and len(files) > 1:  # their keys are the same
            raise SourceError(f"{self.url}: holds {len(files)} LMDBs; give one at a time")
        return kinds[0], files

    def system(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        from fsspec.core import url_to_fs  # type: ignore[import-not-found,import-untyped,unused-ignore]

        system, path = url_to_fs(self.url)
        return system, str(path)

    def name(self, file: str) -> str:
        """What tells a file from the others of this set."""
        _, path = self.system()
        return PurePosixPath(file).name if file == path else str(PurePosixPath(file).relative_to(path))


def open_source(text: str, *, key_column: str = "key", image_column: str = "image") -> Source:
    """The set that an argument of a program names; local paths become absolute, as workers run elsewhere."""
    return Source(text if "://" in text else str(Path(text).resolve()), key_column, image_column)


def _kind(file: str) -> str:
    if PurePosixPath(file).name == "lock.mdb":
        return ""
    suffix = PurePosixPath(file).suffix.lower()
    return "pictures" if suffix in SUFFIXES else suffix if suffix in _KINDS else ""


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        package = f"the package {error.name}" if error.name else "a package"
        cure = "pip install 'robustscanner[batch]', and what fsspec needs for the protocol"
        raise MissingPackageError(f"{url}: reading it needs {package} ({error}); {cure}") from None
    except (OSError, ValueError, tarfile.TarError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        reason = " ".join(str(error).split())
        raise SourceError(f"{url}: {reason}; check it, and run the same command again to go on") from None


def _picture_places(source: Source, file: str) -> Iterator[Place]:
    yield Place(source.name(file), file)


def _read_picture(source: Source, file: str, places: list[Place]) -> Iterator[tuple[str, bytes | ImageError]]:
    try:
        data = source.system()[0].cat_file(file)
    except (FileNotFoundError, PermissionError) as error:  # of this picture; other faults are of the whole set
        data = ImageError(f"{file}: {error.strerror or 'not found'}; check that it is there and may be read")
    yield places[0].key, data


def _tar_places(source: Source, file: str) -> Iterator[Place]:
    with source.system()[0].open(file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            if member.isfile() and _kind(member.name) == "pictures":
                yield Place(f"{source.name(file)}/{member.name}", file, member.offset_data, member.size)


def _read_tar(source: Source, file: str, places: list[Place]) -> Iterator[tuple[str, bytes | ImageError]]:
    with source.system()[0].open(file) as stream:
        for place in places:
            stream.seek(place.at)
            yield place.key, stream.read(place.size)


@contextmanager
def _parquet(source: Source, file: str, column: str) -> Iterator[Any]:
    import pyarrow.parquet as pq  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with source.system()[0].open(file) as stream, pq.ParquetFile(stream) as parquet:
        if column not in (names := parquet.schema_arrow.names):
            cure = "name it with --key-column or --image-column"
            raise SourceError(f"{file}: has no column {column}, but {', '.join(names)}; {cure}")
        yield parquet


def _parquet_places(source: Source, file: str) -> Iterator[Place]:
    with _parquet(source, file, source.image_column), _parquet(source, file, source.key_column) as parquet:
        keys = parquet.read(columns=[source.key_column])[0].to_pylist()
    for row, key in enumerate(keys):
        yield Place(str(key), file, row)


def _read_parquet(source: Source, file: str, places: list[Place]) -> Iterator[tuple[str, bytes | ImageError]]:
    wanted = iter(places)
    place: Place | None = next(wanted)
    with _parquet(source, file, source.image_column) as parquet:
        for row, data in _rows(parquet, source.image_column, places[0].at, places[-1].at + 1):
            if place and row == place.at:
                yield place.key, data if isinstance(data, bytes) else ImageError(f"row {row}: holds no bytes")
                place = next(wanted, None)


def _rows(parquet: Any, column: str, begin: int, end: int) -> Iterator[tuple[int, Any]]:
    """Rows of the row groups that have some of `begin` to `end`."""
    row, groups = 0, []
    first: int | None = None
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        if row < end and row + count > begin:
            first = row if first is None else first
            groups.append(group)
        row += count
    row = first or 0
    for batch in parquet.iter_batches(_ROWS, row_groups=groups, columns=[column]):
        if row + len(batch) > begin and row < end:  # the others need not become Python's objects
            yield from enumerate(batch[0].to_pylist(), row)
        row += len(batch)


@contextmanager
def _lmdb(file: str) -> Iterator[Any]:
    import lmdb  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        with lmdb.open(file, subdir=False, readonly=True, lock=False) as environment, environment.begin() as records:
            yield records
    except lmdb.Error as error:
        raise SourceError(f"{error}; check the path, or copy it again") from None


def _lmdb_places(source: Source, file: str) -> Iterator[Place]:
    with _lmdb(file) as records:
        count = int(records.get(b"num-samples") or 0)
    for number in range(1, count + 1):
        yield Place(f"image-{number:09d}", file, number)


def _read_lmdb(source: Source, file: str, places: list[Place]) -> Iterator[tuple[str, bytes | ImageError]]:
    with _lmdb(file) as records:
        for place in places:
            data = records.get(place.key.encode())
            yield place.key, ImageError(f"{place.key}: no such record") if data is None else bytes(data)


@dataclass(frozen=True)
class _Kind:
    places: Callable[[Source, str], Iterator[Place]]
    read: Callable[[Source, str, list[Place]], Iterator[tuple[str, bytes | ImageError]]]


_KINDS = {
    "pictures": _Kind(_picture_places, _read_picture),
    ".parquet": _Kind(_parquet_places, _read_parquet),
    ".tar": _Kind(_tar_places, _read_tar),
    ".mdb": _Kind(_lmdb_places, _read_lmdb),
}
