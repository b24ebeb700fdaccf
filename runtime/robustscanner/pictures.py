"""Finds picture files: what a program's arguments stand for."""

import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from robustscanner.errors import ImageError

SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)


def find_pictures(argument: str) -> list[Path]:
    """A file stands for itself, a folder for the pictures directly in it, a pattern for the files it matches.

    A path that does not exist is passed on: reading it tells why, beside all other pictures that cannot be read.

    Raises:
        ImageError: a folder without pictures, or a pattern that matches no file.
    """
    path = Path(argument)
    if _exists(path) and path.is_dir():
        return _in_folder(path)
    if _exists(path) or not glob.has_magic(argument):
        return [path]
    matches = [Path(match) for match in glob.glob(argument, recursive=True)]
    if found := sorted((match for match in matches if not match.is_dir()), key=natural_key):
        return found
    raise ImageError(f"{argument}: matches no file; check the pattern")


def read_list(lines: Iterable[str]) -> Iterator[str]:
    """Paths from a list, one a line; empty lines are skipped."""
    return (path for line in lines if (path := line.rstrip("\r\n")))


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Sorts word_9 before word_10."""
    pieces = re.split(r"(\d+)", str(path))  # text and number alternate
    return [(int(piece), "") if index % 2 else (0, piece.casefold()) for index, piece in enumerate(pieces)]


def _in_folder(folder: Path) -> list[Path]:
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
    except OSError as error:
        raise ImageError(f"{folder}: {error.strerror or error}; check its permissions") from None
    if not files:
        raise ImageError(f"{folder}: holds no pictures ({' '.join(SUFFIXES)}); its folders are not searched")
    return sorted(files, key=natural_key)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no permission, name too long, NUL
        return False
