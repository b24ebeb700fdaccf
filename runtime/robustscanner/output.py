"""Writes a file beside its place and renames it into it: complete or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from robustscanner.errors import RobustScannerError


class OutputError(RobustScannerError):
    """A file that cannot be written, or must not be."""


def check_output(path: Path, *, force: bool) -> None:
    """Looks, before long work starts, whether a file may be written.

    Raises:
        OutputError: it exists and `force` is not given, it is no regular file, or its folder is missing.
    """
    with _explained(path):
        if path.exists() and not path.is_file():  # renaming onto /dev/null would replace the device
            raise OutputError(f"{path}: exists and is not a regular file; choose another name")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists; choose another name, or overwrite it with --force")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: its folder does not exist; create it first")


@contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Gives an empty temporary file in the same folder; renamed to `path` at the end, removed when anything is raised.

    Raises:
        OutputError: see `check_output`; also when the file cannot be written.
    """
    check_output(path, force=force)
    with _explained(path):
        temporary = _create(path)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()


def _create(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=".robustscanner.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    Path(name).chmod(0o666 & ~umask)  # mkstemp's 0600 would outlive the rename
    return Path(name)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from None
