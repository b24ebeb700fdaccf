"""Writes a file or a folder beside its place and renames it into it: complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
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


@contextmanager
def writing_folder(target: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Gives an empty hidden folder beside the target; renamed to it at the end, removed when anything is raised.

    Raises:
        OutputError: what `check` raises, before and after; also when the disk refuses.
    """
    check()
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = _hidden_folder(target)
        try:
            yield staging
            check()
            _put_in_place(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _create(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=".robustscanner.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    _open_up(Path(name), 0o666)
    return Path(name)


def _hidden_folder(target: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    _open_up(folder, 0o777)
    return folder


def _open_up(path: Path, mode: int) -> None:
    """As whatever else is made: the modes of `tempfile`, for the owner only, would outlive the rename."""
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    path.chmod(mode & ~umask)


def _put_in_place(staging: Path, target: Path) -> None:
    """A folder cannot be renamed onto a full one, so the old one steps aside, and back if need be."""
    aside = _hidden_folder(target)
    try:
        if target.exists():
            os.rename(target, aside)
        os.rename(staging, target)
    finally:
        if not target.exists() and any(aside.iterdir()):
            os.rename(aside, target)
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from None
