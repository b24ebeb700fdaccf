"""Q/DQ nodes as TensorRT fuses them."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from convert.graph.model_file import load_model
from convert.graph.split import split
from convert.int8.calibration import Ranges
from convert.int8.placement import quantisable
from convert.int8.qdq_tensorrt import (
    SMALLEST_STEP,
    activation_scale,
    readers_in_8_bits,
    weight_scales,
    write_qdq,
)
from convert.int8.recipe import KEY_LAYERS, Recipe
from tests.convert.conftest import TINY


@pytest.fixture(scope="module")
def encoder() -> onnx.ModelProto:
    return split(*load_model(TINY)[:2])[0]


@pytest.fixture(scope="module")
def layers(encoder: onnx.ModelProto) -> tuple[str, ...]:
    return Recipe(exclude=KEY_LAYERS).choose(quantisable(encoder.graph))


@pytest.fixture(scope="module")
def written(encoder: onnx.ModelProto, layers: tuple[str, ...]) -> onnx.ModelProto:
    ranges = Ranges("max", 1, dict.fromkeys(readers_in_8_bits(encoder.graph, layers), (-1.0, 2.0)))
    model = write_qdq(encoder, layers, ranges)
    onnx.checker.check_model(model, full_check=True)
    return model


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def test_every_chosen_convolution_reads_8_bits(written: onnx.ModelProto, layers: tuple[str, ...]) -> None:
    made = makers(written)
    for node in written.graph.node:
        if node.op_type == "Conv":
            found = {made[name].op_type for name in node.input[:2] if name in made}
            assert (found == {"DequantizeLinear"}) == (node.name in layers), node.name


def test_sums_read_their_shortcut_in_8_bits_and_their_convolution_in_full(written: onnx.ModelProto) -> None:
    made = makers(written)
    sums = [node for node in written.graph.node if node.op_type == "Add" and node.name.startswith("/backbone/")]
    assert len(sums) == 2
    for node in sums:
        assert [made[name].op_type for name in node.input] == ["Conv", "DequantizeLinear"]


def test_the_smaller_of_two_convolutions_is_the_shortcut() -> None:
    """ResNet31 projects where channels change."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    block (float[N, 4, 8, 8] x) => (float[N, 8, 8, 8] y)
    <float[8, 4, 3, 3] big = {}, float[8, 4, 1, 1] small = {}> {
      shortcut = Conv (x, small)
      main = Conv <pads = [1, 1, 1, 1]> (x, big)
      y = Add (SUM)
    }
    """
    for order, index in (("main, shortcut", 1), ("shortcut, main", 0)):
        graph = onnx.parser.parse_model(text.replace("SUM", order).replace("{}", "{0}")).graph
        for node in graph.node:
            node.name = node.output[0]
        found = readers_in_8_bits(graph, ("main", "shortcut"))
        assert found == {"x": [("shortcut", 0), ("main", 0)], "shortcut": [("y", index)]}


def test_steps_are_symmetric_and_never_too_small_for_half() -> None:
    assert activation_scale(-1.0, 2.54) == np.float32(0.02)
    assert activation_scale(-2.54, 1.0) == np.float32(0.02)
    assert activation_scale(0.0, 0.0) == SMALLEST_STEP
    scales = weight_scales(np.array([[1.27, 0], [0, 0], [1e-9, -1e-9]], np.float32))
    np.testing.assert_allclose(scales, [0.01, SMALLEST_STEP, SMALLEST_STEP])
    assert np.float16(SMALLEST_STEP) == SMALLEST_STEP


def test_weights_keep_their_float_values_behind_q_and_dq(written: onnx.ModelProto, encoder: onnx.ModelProto) -> None:
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (encoder, written)
    )
    assert before.keys() < after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    zeros = [value for name, value in after.items() if name.endswith("_zero")]
    assert zeros
    assert all(value.dtype == np.int8 and not value.any() for value in zeros)
