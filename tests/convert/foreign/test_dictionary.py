"""Dictionaries of foreign checkpoints: with and without space, given and published."""

from pathlib import Path

import pytest

from convert.foreign.dictionary import DictionaryError, choose_dictionary, read_dictionary
from convert.foreign.layouts import LAYOUTS
from robustscanner.charset import Charset
from robustscanner.spec import DICT90, CharsetSpec


def saved(folder: Path, content: bytes) -> Path:
    (folder / "dict.txt").write_bytes(content)
    return folder / "dict.txt"


def test_the_space_is_found_by_the_count(tmp_path: Path) -> None:
    given = read_dictionary(saved(tmp_path, b"a\r\nb\r\n"))
    assert choose_dictionary(given, 2, ()).characters == ("a", "b")
    assert choose_dictionary(given, 3, ()).characters == ("a", "b", " ")
    with pytest.raises(DictionaryError, match=r"has 7 characters, dict\.txt 2;"):
        choose_dictionary(given, 7, ())


def test_a_published_one_is_taken_by_its_size() -> None:
    assert choose_dictionary(None, 90, (DICT90,)).characters == tuple(DICT90)
    assert choose_dictionary(None, 91, (DICT90,)).characters == (*DICT90, " ")
    with pytest.raises(DictionaryError, match="--dict FILE"):
        choose_dictionary(None, 92, (DICT90,))


def test_a_space_that_is_there_twice_reads_as_a_space(tmp_path: Path) -> None:
    """PaddleOCR's en_dict.txt ends with a space, and use_space_char appends another."""
    dictionary = choose_dictionary(read_dictionary(saved(tmp_path, b"a\n \n")), 3, ())
    charset = Charset(LAYOUTS[0].charset(dictionary.characters))
    assert charset.encode("a ") == [0, 2]  # the last one, as PaddleOCR's labels
    with pytest.raises(Exception, match='"a" appears more than once'):
        CharsetSpec.of("aba")


@pytest.mark.parametrize("character", ["\u2028", "\x0b", "\x85", "é", "字"])
def test_any_character_but_a_line_feed(tmp_path: Path, character: str) -> None:
    path = saved(tmp_path, f"\ufeffa\n{character}\n".encode())
    assert read_dictionary(path).characters == ("a", character)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nbc\n", r"line 2 holds 2 characters \('bc'\)"),
        (b"a\nb\na\n", r"line 3 repeats line 1 \('a'\)"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_what_is_no_dictionary(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DictionaryError, match=message):
        read_dictionary(saved(tmp_path, content))
    with pytest.raises(DictionaryError, match="check the path"):
        read_dictionary(tmp_path / "gone.txt")
