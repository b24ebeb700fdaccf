"""The model description: there and back, and what it refuses."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner.errors import SpecError
from robustscanner.spec import CharsetSpec, InputSpec, ModelSpec, NetworkSpec

SPEC = ModelSpec("edge", CharsetSpec.of("aé€"), InputSpec(resize="area"), NetworkSpec("edge", widths=(8, 16, 24, 32)))


def test_round_trip() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC
    assert "\n" not in SPEC.to_json()


def changed(*keys: str, value: Any) -> str:
    """The JSON of SPEC with one value replaced; None removes it."""
    data = inner = json.loads(SPEC.to_json())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if value is None:
        del inner[keys[-1]]
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (changed("format", value=2), "format 2; this version reads format 1"),
        (changed("format", value=None), "format null"),
        (changed("colour", value="BGR"), r'unknown \["colour"\]'),
        (changed("charset", value=None), "charset: missing"),
        (changed("input", "mean", value=None), r'input: missing \["mean"\]'),
        (changed("input", "resize", value="cubic"), '"cubic" is neither linear nor area'),
        (changed("input", "width_px", value=158), "multiples of width_multiple_px"),
        (changed("input", "scale", value=0), "must be positive"),
        (changed("input", "height_px", value="48"), "input: "),
        (changed("network", "backbone", value="vit"), "none of r31, edge and small"),
        (changed("network", "widths", value=[1, 2]), "four channel counts"),
        (changed("network", "max_length", value=0), "must be positive"),
        (
            changed("charset", "tokens", value=["a", "a", "<UKN>", "<BOS/EOS>", "<PAD>", "b"]),
            '"a" appears more than once',
        ),
        (
            changed("charset", "tokens", value=["ab", "c", "d", "<UKN>", "<BOS/EOS>", "<PAD>"]),
            '"ab" is not a single character',
        ),
        (changed("charset", "pad_id", value=99), "pad_id 99 is outside the 6 tokens"),
        (changed("charset", "class_count", value=3), "class_count 3 must be in 5…6"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        ModelSpec.from_json(text)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


FIELDS = [(group, key) for group in ("charset", "input", "network") for key in json.loads(SPEC.to_json())[group]]


@given(st.sampled_from([keys for keys in FIELDS if keys[1] != "tokens"]), JSON)
def test_any_value_is_accepted_or_refused(keys: tuple[str, str], value: Any) -> None:
    with suppress(SpecError):
        ModelSpec.from_json(changed(*keys, value=value))


@pytest.mark.parametrize("tokens", ["abcdef", {"a": 1}])
def test_tokens_must_be_a_list(tokens: Any) -> None:
    with pytest.raises(SpecError):
        ModelSpec.from_json(changed("charset", "tokens", value=tokens))


def test_duplicate_in_alphabet() -> None:
    with pytest.raises(SpecError, match='"b" appears more than once'):
        CharsetSpec.of("abb")


def test_frozen() -> None:
    assert replace(SPEC, name="other") != SPEC
