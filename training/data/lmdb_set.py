"""Labelled crops in an LMDB, laid out as text sets are published: num-samples, image-%09d and label-%09d from 1."""

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import lmdb

from robustscanner.labels import DataError, tidy_label
from robustscanner.output import OutputError, replacing
from training.data.record import LMDB_NAME, BadRecord

COUNT_KEY = b"num-samples"

_FIRST_MAP_MIB = 64  # doubled whenever it is full: no guess of the whole size is needed
_RECORDS_PER_COMMIT = 1000
_SLACK_PAGES = 64  # LMDB need not have written the last pages that it counts; more missing is a broken copy

# Open files by path, with the process that opened them: an environment must not be used after a fork, and LMDB
# refuses to open one file twice in a process, which two sets of the same path would do.
_opened: dict[str, tuple[int, lmdb.Environment]] = {}


class LmdbSet:
    """The crops of an LMDB, folder or single file; opened in each process when it is first read there, without locks.

    Raises:
        DataError: missing, not an LMDB, cut short, or without a count.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.close()  # the file may have been replaced since
        written = self._get(COUNT_KEY) or b""
        if not written.isdigit():
            raise DataError(f"{path}: holds no count (num-samples); pack the crops with training/make_lmdb.py")
        self._count = int(written)
        self.close()  # workers shall not inherit it

    def __len__(self) -> int:
        return self._count

    def label(self, index: int) -> str:
        """What is written on a picture, tidied; raises `BadRecord`."""
        label = self._get(b"label-%09d" % (index + 1))
        if label is None:
            raise BadRecord("no label")
        try:
            return tidy_label(label.decode())
        except UnicodeDecodeError:
            raise BadRecord("label is not UTF-8") from None

    def data(self, index: int) -> bytes:
        """The picture's file; raises `BadRecord`."""
        data = self._get(b"image-%09d" % (index + 1))
        if data is None:
            raise BadRecord("no picture")
        return data

    def close(self) -> None:
        """Closes the file in this process; reading opens it again."""
        _, environment = _opened.pop(str(self.path), (0, None))
        if environment is not None:
            environment.close()

    def _get(self, key: bytes) -> bytes | None:
        with self._environment().begin() as transaction:
            value: bytes | None = transaction.get(key)
            return value

    def _environment(self) -> lmdb.Environment:
        process, environment = _opened.get(str(self.path), (0, None))
        if environment is None or process != os.getpid():
            self.close()
            environment = _open(self.path)
            _opened[str(self.path)] = os.getpid(), environment
        return environment


def write_lmdb(path: Path, records: Iterable[tuple[bytes, str]], *, force: bool = False) -> int:
    """Writes a folder with data.mdb, complete or not at all, and returns how many records it holds.

    Args:
        path: the folder.
        records: encoded pictures and their labels.
        force: replaces an LMDB that is there.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {error.strerror}; choose another name") from None
    try:
        with replacing(path / LMDB_NAME, force=force) as temporary:
            return _fill(temporary, records)
    except lmdb.Error as error:
        raise OutputError(f"{path}: cannot be written: {error}; choose another place") from None
    finally:
        with suppress(OSError):
            path.rmdir()  # only when nothing came into it


def _fill(file: Path, records: Iterable[tuple[bytes, str]]) -> int:
    total, records, numbers = 0, iter(records), count(1)
    with lmdb.open(str(file), subdir=False, lock=False, map_size=_FIRST_MAP_MIB << 20) as environment:
        while chunk := list(islice(records, _RECORDS_PER_COMMIT)):
            pairs = []
            for (data, label), number in zip(chunk, numbers, strict=False):
                pairs += [(b"image-%09d" % number, data), (b"label-%09d" % number, label.encode())]
            _put(environment, pairs)
            total += len(chunk)
        _put(environment, [(COUNT_KEY, b"%d" % total)])
    return total


def _put(environment: lmdb.Environment, pairs: list[tuple[bytes, bytes]]) -> None:
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in pairs:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _open(path: Path) -> lmdb.Environment:
    file = path / LMDB_NAME if path.is_dir() else path
    try:
        # Readahead would fetch the neighbours of records that are drawn at random.
        environment = lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        reason = str(error).rpartition(": ")[2]
        raise DataError(f"{path}: cannot be opened as LMDB ({reason}); check the path, or copy it again") from None
    pages = environment.info()["last_pgno"] + 1 - _SLACK_PAGES
    if file.stat().st_size < pages * environment.stat()["psize"]:  # reading on would end the process with SIGBUS
        environment.close()
        raise DataError(f"{path}: cut short; copy or download it again")
    return environment
