"""Quantising: which nodes change, and that the result still reads the same."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.utils import Extractor

from convert.engine.model_source import load_source
from convert.graph.model_file import load_model
from convert.int8.calibration import Ranges, collect_ranges, load_calibration
from convert.int8.placement import place, quantisable
from convert.int8.qdq_onnxruntime import activation_step, quantise_convolutions, weight_steps, write_qdq
from convert.int8.recipe import KEY_LAYERS, Quantized, Recipe
from robustscanner.errors import EngineError
from robustscanner.spec import InputSpec

from .conftest import ROOT, TINY

Edit = Callable[[Callable[[onnx.ModelProto], object]], Path]


def quantize(model: onnx.ModelProto, crops: Path, recipe: Recipe = Recipe()) -> Quantized:
    """As the program does."""
    calibration = load_calibration(crops, InputSpec())
    layers = recipe.choose(quantisable(model.graph))
    made, ranges = quantise_convolutions(model, layers, recipe, calibration, collect_ranges)
    return Quantized.of(made, layers, recipe, exported=model, calibration=calibration, ranges=ranges)


@pytest.fixture(scope="module")
def quantized(crops: Path) -> Quantized:
    return quantize(onnx.load(TINY), crops)


def session(model: onnx.ModelProto, saved: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if saved:
        options.optimized_model_filepath = str(saved)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def kinds(graph: onnx.GraphProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.node)


def encoder(model: onnx.ModelProto) -> onnx.ModelProto:
    return Extractor(model).extract_model(["images", "valid_width"], ["values"])


def body(model: onnx.ModelProto) -> onnx.GraphProto:
    return next(a.g for node in model.graph.node if node.op_type == "Loop" for a in node.attribute if a.name == "body")


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_only_the_backbone_is_quantised(tiny: onnx.ModelProto, quantized: Quantized) -> None:
    assert quantized.excluded == (
        "/backbone/layers/layers.0/layers.0.0/Conv",  # sees pixels
        "/encoder/Conv",
        "/position/position_aware/mixer.0/Conv",
        "/position/position_aware/mixer.2/Conv",
    )
    assert len(quantized.convolutions) == kinds(tiny.graph)["Conv"] - 4
    assert body(quantized.model) == body(tiny)
    before, after = weights(tiny), weights(quantized.model)
    changed = {
        node.name for node in quantized.model.graph.node for name in node.input if name.endswith("/weight_dequantised")
    }
    assert changed == set(quantized.convolutions)
    lstm = next(node for node in quantized.model.graph.node if node.op_type == "LSTM")
    assert all(np.array_equal(before[name], after[name]) for name in lstm.input if name in before)


def test_float_weights_are_gone(tiny: onnx.ModelProto, quantized: Quantized) -> None:
    kept = weights(quantized.model)
    chosen = [node for node in tiny.graph.node if node.name in quantized.convolutions]
    assert not any(node.input[1] in kept for node in chosen)
    assert all(kept[f"{node.name}/weight_quantised"].dtype == np.int8 for node in chosen)


def test_weights_are_rounded_per_channel(tiny: onnx.ModelProto, quantized: Quantized) -> None:
    before, after = weights(tiny), weights(quantized.model)
    for node in tiny.graph.node:
        if node.name in quantized.convolutions:
            scale = after[f"{node.name}/weight_scale"][:, None, None, None]
            rebuilt = after[f"{node.name}/weight_quantised"] * scale
            assert np.abs(rebuilt - before[node.input[1]]).max() <= scale.max() * 0.501


def test_onnx_runtime_computes_the_backbone_in_8_bits(quantized: Quantized, tmp_path: Path) -> None:
    session(quantized.model, tmp_path / "optimised.onnx")
    fused = kinds(onnx.load(tmp_path / "optimised.onnx").graph)
    assert fused["QLinearConv"] == len(quantized.convolutions)
    assert fused["QLinearAdd"] == 2  # both residual sums
    assert fused["QuantizeLinear"] == 1  # where the pixels enter
    assert fused["Relu"] == 0


def test_max_pooling_stays_in_8_bits() -> None:
    model = _pooled_model()
    placement = place(model.graph, quantisable(model.graph))
    assert placement.pooled == {"pooled": "grown"}
    ranges = Ranges("max", 1, dict.fromkeys(placement.tensors, (-1.0, 4.0)))
    written = write_qdq(model, placement, ranges)
    order = [node.op_type for node in written.graph.node if node.op_type != "DequantizeLinear"]
    assert order == [
        "QuantizeLinear",
        "Conv",
        "Relu",
        "QuantizeLinear",
        "MaxPool",
        "QuantizeLinear",
        "Conv",
        "QuantizeLinear",
    ]
    x = np.random.default_rng(0).uniform(-1, 1, (1, 4, 8, 8)).astype(np.float32)
    expected, got = (session(each).run(None, {"x": x})[0] for each in (model, written))
    assert np.abs(expected - got).max() < 0.05


@pytest.mark.parametrize(("method", "most"), [("max", 0.03), ("percentile", 0.03), ("entropy", 0.5)])
@pytest.mark.parametrize("bits", [8, 7])
def test_feature_map_stays_nearly_the_same(
    tiny: onnx.ModelProto, crops: Path, method: str, most: float, bits: int
) -> None:
    """Not the text: these weights are untrained, so that one slip changes all that follows."""
    calibration = load_calibration(crops, InputSpec())
    result = quantize(tiny, crops, Recipe(method, reduce_range=bits == 7))
    largest = max(np.abs(v).max() for k, v in weights(result.model).items() if k.endswith("/weight_quantised"))
    assert largest == 2 ** (bits - 1) - 1
    inputs = {"images": calibration.canvases, "valid_width": calibration.widths}
    expected, got = (session(encoder(model)).run(["values"], inputs)[0] for model in (tiny, result.model))
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < most * 2 ** (8 - bits)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_batches_read_like_single_pictures(quantized: Quantized, crops: Path, batch: int) -> None:
    calibration = load_calibration(crops, InputSpec())
    runner = session(quantized.model)
    images, widths = calibration.canvases[:batch], calibration.widths[:batch]
    together = runner.run(["tokens"], {"images": images, "valid_width": widths})[0]
    for row in range(batch):
        alone = runner.run(["tokens"], {"images": images[row : row + 1], "valid_width": widths[row : row + 1]})[0]
        assert np.array_equal(alone[0], together[row])


def test_excluding_part_of_a_residual_block_keeps_its_sum_fp32(
    tiny: onnx.ModelProto, crops: Path, tmp_path: Path
) -> None:
    result = quantize(tiny, crops, Recipe(exclude=(*KEY_LAYERS, "*layers.3/conv2/Conv")))
    session(result.model, tmp_path / "optimised.onnx")
    assert kinds(onnx.load(tmp_path / "optimised.onnx").graph)["QLinearAdd"] == 1


def test_everything_may_be_quantised(tiny: onnx.ModelProto, crops: Path) -> None:
    """Keys then come from 8 bits too, and pass to the loop's body: see `_shield_loops`."""
    calibration = load_calibration(crops, InputSpec())
    result = quantize(tiny, crops, Recipe(exclude=()))
    assert result.excluded == ("/backbone/layers/layers.0/layers.0.0/Conv",)
    session(result.model).run(None, {"images": calibration.canvases, "valid_width": calibration.widths})


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("/enocder/*", "/encoder/Conv"),
        ("*Relu*", "/encoder/Conv"),  # a node that the graph has, but none that computes in 8 bits
        ("/backbone/layers/layers.0/*", "/backbone/layers/layers.5/conv1/Conv"),  # sees pixels: FP32 anyway
    ],
)
def test_a_pattern_that_matches_no_layer_is_an_error_with_near_names(
    tiny: onnx.ModelProto, crops: Path, pattern: str, near: str
) -> None:
    with pytest.raises(EngineError, match="matches none of the 12 layers that can be quantised") as caught:
        quantize(tiny, crops, Recipe(exclude=(pattern,)))
    assert pattern in str(caught.value)
    assert near in str(caught.value)


def test_refuses_to_quantise_nothing(tiny: onnx.ModelProto, crops: Path) -> None:
    with pytest.raises(EngineError, match="no layer is left"):
        quantize(tiny, crops, Recipe(exclude=("*",)))


@pytest.mark.parametrize(("low", "high", "zero"), [(0, 4, 0), (-4, 0, 255), (-1, 1, 128), (-1, 3, 64), (0, 0, 0)])
def test_zero_is_exact(low: float, high: float, zero: int) -> None:
    scale, point = activation_step(low, high)
    assert abs(int(point) - zero) <= 1
    assert scale > 0


def test_dead_channels_keep_their_bias() -> None:
    weight = np.array([1e-12, 1.0], np.float32).reshape(2, 1, 1, 1)
    bias = np.array([0.5, 0.5], np.float32)
    steps = weight_steps(weight, bias, np.float32(0.01), 127)
    rounded = np.rint(bias / (steps * np.float32(0.01)).astype(np.float64))
    assert (rounded <= 2**31).all()
    assert steps[1] == pytest.approx(1 / 127)


def test_refuses_broken_weights_and_names_them(edited: Edit) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "model.encoder.weight")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.nan, tensor.name))

    with pytest.raises(EngineError, match=r"model\.encoder\.weight holds NaN"):
        load_source(edited(spoil))


def test_refuses_an_old_opset(edited: Edit) -> None:
    path = edited(lambda model: setattr(model.opset_import[0], "version", 11))
    with pytest.raises(EngineError, match="opset 11, needs 13"):
        load_source(path)


def test_refuses_what_is_quantised_already(quantized: Quantized, tmp_path: Path) -> None:
    onnx.save(quantized.model, tmp_path / "int8.onnx")  # the metadata came along
    with pytest.raises(EngineError, match="quantised already"):
        load_source(tmp_path / "int8.onnx")


def test_program_keeps_spec_and_history(crops: Path, tmp_path: Path) -> None:
    output = tmp_path / "int8.onnx"
    command = [sys.executable, ROOT / "convert" / "quantize.py", TINY, "-o", output, "--calib-data", crops]
    done = subprocess.run([*command, "--calib-images", "4"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "9 of 13 convolutions, ranges by max from 4 crops" in done.stdout
    (_, before, steps), (_, after, more) = load_model(TINY), load_model(output)
    assert before == after
    assert more[:-1] == steps
    assert more[-1]["step"] == "quantize"
    assert len(more[-1]["labels_sha256"]) == 64
    assert len(more[-1]["excluded"]) == 4
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert again.stderr.count("\n") == 1


def _pooled_model() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    constants = {
        "w1": rng.normal(size=(5, 4, 3, 3)) / 6,
        "b1": rng.normal(size=5) / 9,
        "w2": rng.normal(size=(2, 5, 1, 1)) / 2,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["wide"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["wide"], ["grown"]),
        helper.make_node("MaxPool", ["grown"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "w2"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
