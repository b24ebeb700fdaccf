"""First convolution and LSTMs in 8 bits: they compute nearly what they did."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from convert.engine.cpu.backend import CpuBackend
from convert.engine.cpu.graph import for_cpu
from convert.engine.cpu.int8 import byte_layers, to_bytes
from convert.engine.model_source import load_source
from convert.engine.product import Product
from convert.graph.model_file import load_model
from convert.int8.calibration import load_calibration
from convert.int8.recipe import AUTO, Recipe
from robustscanner.spec import InputSpec, ModelSpec, NetworkSpec
from tests.convert.conftest import TINY, whole_sums

FIRST = "/backbone/layers/layers.0/layers.0.0/Conv"
ROWS = ["/position/position_aware/rnn/LSTM", "/position/position_aware/rnn/LSTM_1"]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return for_cpu(*load_model(TINY)[:2])


def tensor(model: onnx.ModelProto, name: str) -> np.ndarray:
    """A float tensor of the graph, for two blotched words."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    images = np.random.default_rng(3).integers(0, 256, (2, 6, 20, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], {"images": images, "valid_width": np.array([160, 90], np.int32)})[0])


def output(model: onnx.ModelProto, name: str) -> str:
    return str(next(node for node in model.graph.node if node.name == name).output[0])


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_names_what_it_changed(model: onnx.ModelProto) -> None:
    names = byte_layers(model.graph)
    assert list(names) == [FIRST, *ROWS]
    changed = to_bytes(model, names, 8)
    kinds = {node.name: node.op_type for node in changed.graph.node}
    assert [kinds[name] for name in names] == ["Conv", "DynamicQuantizeLSTM", "DynamicQuantizeLSTM"]
    assert not {"/Sub", "/Cast", "/Div"} & set(kinds)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.01), (7, 0.02)])
def test_first_convolution_sees_the_same_picture(model: onnx.ModelProto, bits: int, most: float) -> None:
    changed = to_bytes(model, [FIRST, *ROWS], bits)
    name = output(model, FIRST)
    assert error(tensor(changed, name), tensor(model, name)) < most


@pytest.mark.parametrize(("bits", "most"), [pytest.param(8, 0.03, marks=whole_sums), (7, 0.06)])
def test_rows_stay_nearly_the_same(model: onnx.ModelProto, bits: int, most: float) -> None:
    changed = to_bytes(model, [FIRST, *ROWS], bits)
    name = output(model, ROWS[1])
    expected = tensor(model, name)
    assert np.abs(expected).max() > 0.1
    assert error(tensor(changed, name), expected) < most
    weights = [
        numpy_helper.to_array(t)
        for t in changed.graph.initializer
        if t.name.endswith(("into_quantised", "again_quantised"))
    ]
    assert len(weights) == 4
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) == 2 ** (bits - 1) - 1


def test_a_gate_without_weights_is_no_division_by_zero(model: onnx.ModelProto) -> None:
    blank = onnx.ModelProto()
    blank.CopyFrom(model)
    node = next(node for node in blank.graph.node if node.op_type == "LSTM")
    dead = next(t for t in blank.graph.initializer if t.name == node.input[1])
    values = numpy_helper.to_array(dead).copy()
    values[:, 0] = 0
    dead.CopyFrom(numpy_helper.from_array(values, dead.name))
    changed = to_bytes(blank, ROWS, 8)
    assert np.isfinite(tensor(changed, output(blank, ROWS[1]))).all()


def test_layers_that_are_not_named_stay_as_they_are(model: onnx.ModelProto) -> None:
    changed = to_bytes(model, ROWS[1:], 8)
    kinds = {node.name: node.op_type for node in changed.graph.node}
    assert [kinds[name] for name in ROWS] == ["LSTM", "DynamicQuantizeLSTM"]
    assert np.array_equal(tensor(changed, output(changed, FIRST)), tensor(model, output(model, FIRST)))
    assert to_bytes(model, (), 8) == model


def built(crops: Path, folder: Path, *exclude: str) -> tuple[Product, onnx.ModelProto]:
    source, calibration = load_source(TINY), load_calibration(crops, InputSpec())
    product = CpuBackend().make(source, calibration, CpuBackend().settle(Recipe("max", exclude), source.spec), folder)
    return product, onnx.load(folder / "model.onnx")


def test_an_engine_has_both(crops: Path, tmp_path: Path) -> None:
    product, model = built(crops, tmp_path, AUTO)
    (step,) = product.steps
    assert step["also_int8"] == ROWS
    keys = ["/encoder/Conv", "/position/position_aware/mixer.2/Conv"]
    assert step["excluded"] == ["/backbone/layers/layers.1/layers.1.0/Conv", *keys]
    assert "LSTM" not in {node.op_type for node in model.graph.node}


def test_exclude_holds_for_every_layer(crops: Path, tmp_path: Path) -> None:
    product, model = built(crops, tmp_path, "/position/*", FIRST)
    (step,) = product.steps
    assert "also_int8" not in step
    assert FIRST in step["excluded"]
    assert sum(node.op_type == "LSTM" for node in model.graph.node) == 2


@pytest.mark.parametrize(("reduced", "bits"), [(None, 7), (True, 7), (False, 8)])
def test_weights_have_7_bits_unless_8_are_asked_for(reduced: bool | None, bits: int) -> None:
    """With 7, the layers that close the blocks of `small` stay FP32."""
    small, edge = (ModelSpec("m", network=NetworkSpec(backbone)) for backbone in ("small", "edge"))
    found = CpuBackend().settle(Recipe(AUTO, (AUTO,), reduced), small)
    assert found.weight_bits == bits
    assert ("*/narrow/*" in found.exclude) == (bits == 7)
    assert CpuBackend().settle(Recipe(AUTO, (AUTO,), reduced), edge).weight_bits == bits


def test_preview_says_what_is_built(crops: Path) -> None:
    source, calibration = load_source(TINY), load_calibration(crops, InputSpec())
    found = CpuBackend().preview(source, calibration, CpuBackend().settle(Recipe(AUTO, (AUTO,)), source.spec))
    assert found.summary == [("quantised", "10 of 13 convolutions, ranges by max from 12 crops")]
    assert [f"Int8   {name}" in found.details for name in (FIRST, *ROWS)] == [True] * 3
    assert CpuBackend().preview(source, calibration, None).details == []
