"""Which character each class of a foreign checkpoint stands for."""

import string
from dataclasses import dataclass
from pathlib import Path

from robustscanner.errors import RobustScannerError

MAX_DICTIONARY_MIB = 4  # all of Unicode, one character a line

DICT36 = string.digits + string.ascii_lowercase
DICT94 = string.digits + string.ascii_letters + string.punctuation  # OpenOCR's EN_symbol_dict.txt


class DictionaryError(RobustScannerError):
    """A dictionary that is missing, unreadable, or not the one a checkpoint was trained with."""


@dataclass(frozen=True)
class Dictionary:
    """Characters in the order of their ids."""

    characters: tuple[str, ...]
    source: str  # where they come from, for the user


def choose_dictionary(given: Dictionary | None, count: int, alphabets: tuple[str, ...]) -> Dictionary:
    """The dictionary of a checkpoint with `count` characters: the given one, or a published one of that size.

    Either may lack the space that `use_space_char` appends.

    Raises:
        DictionaryError: none is given and none is published, or the given one does not fit.
    """
    published = [Dictionary(tuple(characters), "published order; for another: --dict FILE") for characters in alphabets]
    for dictionary in [given] if given else published:
        if len(dictionary.characters) == count:
            return dictionary
        if len(dictionary.characters) + 1 == count:
            return Dictionary((*dictionary.characters, " "), f"{dictionary.source}; a space appended")
    if given is None:
        raise DictionaryError(f"has {count} characters, unlike the published ones; name its dictionary: --dict FILE")
    raise DictionaryError(
        f"has {count} characters, {given.source} {len(given.characters)}; give the dictionary of its training, "
        "with or without the space that use_space_char appends"
    )


def read_dictionary(path: Path) -> Dictionary:
    """The characters of a dictionary file, UTF-8, one a line; a space is a character, an empty line is none.

    Raises:
        DictionaryError: missing, not UTF-8, a line of several characters, or a character twice.
    """
    try:
        with path.open("rb") as file:
            data = file.read((MAX_DICTIONARY_MIB << 20) + 1)
        if len(data) > MAX_DICTIONARY_MIB << 20:
            raise DictionaryError(f"{path}: larger than {MAX_DICTIONARY_MIB} MiB; not a dictionary")
        # Not splitlines(): it would break at characters that a dictionary may hold, such as U+2028.
        lines = [line.rstrip("\r") for line in data.decode("utf-8-sig").split("\n")]
    except OSError as error:
        raise DictionaryError(f"{path}: {error.strerror or error}; check the path") from None
    except UnicodeDecodeError:
        raise DictionaryError(f"{path}: not UTF-8; convert it, or check that it is the dictionary") from None
    _check_lines(path, lines)
    return Dictionary(tuple(line for line in lines if line), path.name)


def _check_lines(path: Path, lines: list[str]) -> None:
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if len(line) > 1:
            raise DictionaryError(
                f"{path}: line {number} holds {len(line)} characters ({line[:20]!r}); one a line is needed: "
                "classes of several characters are not supported"
            )
        if line and line != " " and line in first:
            raise DictionaryError(f"{path}: line {number} repeats line {first[line]} ({line!r}); remove one")
        first[line] = number
