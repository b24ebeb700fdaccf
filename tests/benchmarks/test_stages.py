"""A graph cut in two computes what the whole does, also as it is rewritten for CPUs."""

import numpy as np
import pytest

from benchmarks.stages import cut_apart, open_part
from convert.engine.cpu.graph import for_cpu
from convert.graph.model_file import load_model
from convert.graph.step import MEMORY
from robustscanner.session import SessionOptions

from .conftest import TINY


@pytest.mark.parametrize("rewritten", [False, True])
def test_encoder_and_decoder_give_what_the_whole_gives(rewritten: bool) -> None:
    whole, spec, _ = load_model(TINY)
    whole = for_cpu(whole, spec) if rewritten else whole
    options = SessionOptions()
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 160, 3), np.uint8)
    inputs = {"images": images, "valid_width": np.array([160, 90, 30], np.int32)}
    encode, decode = (open_part(part, options) for part in cut_apart(whole))
    memory = dict(zip(MEMORY, encode(inputs), strict=True))
    tokens, scores = decode(memory | {"valid_width": inputs["valid_width"]})
    expected_tokens, expected_scores = open_part(whole, options)(inputs)
    assert (tokens == expected_tokens).all()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
