"""The unrolled LSTM gives what the LSTM operators give."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from convert.engine.trt.row_lstm import unroll_rows
from convert.graph.model_file import load_model
from convert.graph.split import split
from robustscanner.errors import EngineError
from tests.convert.conftest import TINY


@pytest.fixture(scope="module")
def encoder() -> onnx.ModelProto:
    return split(*load_model(TINY)[:2])[0]


def rows(model: onnx.ModelProto, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The output of the upper layer (S, 1, B, D)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([name], inputs)[0]


def upper_output(model: onnx.ModelProto) -> str:
    return [node for node in model.graph.node if node.op_type == "LSTM"][1].output[0]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bias", [0.0, 30.0])
def test_equals_the_operators(encoder: onnx.ModelProto, batch: int, bias: float) -> None:
    """A large bias opens the input gate, which must stay shut before layer 1 has begun."""
    biased = onnx.ModelProto()
    biased.CopyFrom(encoder)
    upper = [node for node in biased.graph.node if node.op_type == "LSTM"][1]
    tensor = next(tensor for tensor in biased.graph.initializer if tensor.name == upper.input[3])
    changed = onnx.numpy_helper.to_array(tensor).copy()
    changed[:, : changed.shape[1] // 8] += bias  # ONNX's first gate is the input gate
    tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))

    images = np.random.default_rng(batch).integers(0, 256, (batch, 48, 160, 3), np.uint8)
    inputs = {"images": images, "valid_width": np.full(batch, 100, np.int32)}
    name = upper_output(biased)
    expected, got = (rows(model, name, inputs) for model in (biased, unroll_rows(biased)))
    assert got.shape == expected.shape == (40, 1, 3 * batch, 16)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_no_loop_is_left(encoder: onnx.ModelProto) -> None:
    unrolled = unroll_rows(encoder)
    onnx.checker.check_model(unrolled, full_check=True)
    assert "LSTM" not in {node.op_type for node in unrolled.graph.node}
    assert sum(node.op_type == "Tanh" for node in unrolled.graph.node) == 2 * 41
    used = {name for node in unrolled.graph.node for name in node.input}
    assert {tensor.name for tensor in unrolled.graph.initializer} <= used
    assert "LSTM" in {node.op_type for node in encoder.graph.node}  # the encoder itself is as it was


def test_another_number_of_layers_is_refused(encoder: onnx.ModelProto) -> None:
    with pytest.raises(EngineError, match="0 LSTM nodes"):
        unroll_rows(unroll_rows(encoder))
