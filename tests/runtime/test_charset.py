"""Texts to ids and back, in the layouts of the frameworks that models come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner.charset import Charset
from robustscanner.spec import DICT90, CharsetSpec

PADDLE = CharsetSpec.of(DICT90)
OPENOCR = CharsetSpec(  # end first, start and end apart, no unknown
    ("</s>", *"abc", "<s>", "<pad>"), start_id=4, end_id=0, pad_id=5, unknown_id=None, class_count=6
)


def decode(spec: CharsetSpec, tokens: list[int]) -> str:
    return Charset(spec).decode(np.array(tokens, np.int32), np.ones(len(tokens), np.float32))[0]


@given(st.text(alphabet=DICT90, max_size=39))
def test_round_trip(text: str) -> None:
    ids = Charset(PADDLE).encode(text)
    assert decode(PADDLE, [*ids, PADDLE.end_id, *[PADDLE.pad_id] * 3]) == text


def test_characters_are_in_id_order() -> None:
    assert Charset(PADDLE).characters == DICT90
    assert Charset(OPENOCR).characters == "abc"


def test_what_follows_the_end_is_not_read() -> None:
    assert decode(PADDLE, [1, PADDLE.end_id, 2, 3]) == "1"
    assert decode(OPENOCR, [1, 2, 0, 3]) == "ab"


def test_without_end_everything_is_read() -> None:
    assert decode(PADDLE, [1, 2, 3]) == "123"


def test_start_and_pad_are_no_text_and_unknown_is() -> None:
    assert decode(OPENOCR, [4, 1, 5, 2, 0]) == "ab"
    assert decode(PADDLE, [1, 90, 2, 91]) == "1<UKN>2"


def test_empty_word() -> None:
    assert decode(PADDLE, [PADDLE.end_id, PADDLE.pad_id]) == ""


def test_unknown_character() -> None:
    assert Charset(PADDLE).encode("1 2") == [1, 90, 2]
    with pytest.raises(KeyError):
        Charset(OPENOCR).encode("a b")


def test_score_is_the_product_up_to_the_end() -> None:
    tokens, scores = np.array([1, 2, 91, 92], np.int32), np.array([0.5, 0.5, 0.5, 0.1], np.float32)
    assert Charset(PADDLE).decode(tokens, scores) == ("12", 0.125)
