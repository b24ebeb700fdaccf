"""Attention without products of matrices reads the same, and a decoding step needs no more kernels than counted."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from convert.engine.trt.attention import fuse_attention, spread_scores
from convert.engine.trt.backend import HALF_ENDS
from convert.engine.trt.builder import BuilderOptions, build_plan
from convert.engine.trt.half import to_half
from convert.engine.trt.installed import TensorRT, load_library
from convert.engine.trt.layers import Layer, kernels
from convert.engine.trt.simulate import read_simulated
from convert.graph.model_file import load_model
from convert.graph.split import split
from convert.int8.calibration import load_calibration
from robustscanner.engine import BatchRange
from robustscanner.spec import ModelSpec, NetworkSpec
from tests.convert.conftest import TINY

D, P, C, T = 128, 240, 512, 40  # of r31
MODEL = f"""<ir_version: 8, opset_import: ["": 17]>
r31 (uint8[N, 48, 160, 3] images, int32[N] valid_width) => (float[N, {P}, {C}] values) {{
  moved = Transpose <perm = [0, 3, 1, 2]> (images)
  pixels = Cast <to = 1> (moved)
  mean = ReduceMean <axes = [1, 2], keepdims = 0> (pixels)
  one = ReduceMean <axes = [1], keepdims = 1> (mean)
  row = Unsqueeze (one, second)
  keys = Mul (row, key_ones)
  values = Mul (row, value_ones)
  mask = Mul (row, mask_ones)
  position = Mul (row, position_ones)
}}"""


def removed_products(before: ModelProto, after: ModelProto) -> set[str]:
    names = [{node.name for node in model.graph.node if node.op_type == "MatMul"} for model in (before, after)]
    return names[0] - names[1]


def test_reads_the_same(crops: Path) -> None:
    model, spec, _ = load_model(TINY)
    graphs = split(model, spec)
    encoder, decoder = fuse_attention(*graphs)
    turing = spread_scores(encoder)
    for graph in (encoder, decoder, turing):
        onnx.checker.check_model(graph, full_check=True)
    assert removed_products(graphs[1], decoder) == {"similarity", "glimpse"}
    assert removed_products(encoder, turing) == {"/position/MatMul"}
    calibration = load_calibration(crops, spec.input, images=6)
    expected = read_simulated(*graphs, spec, calibration)
    assert read_simulated(encoder, decoder, spec, calibration) == expected
    assert read_simulated(turing, decoder, spec, calibration) == expected


def test_sums_stay_float32_in_half_precision(step: ModelProto) -> None:
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(step).graph.value_info
    }
    assert {kinds[f"{name}/{part}"] for name in ("similarity", "glimpse") for part in ("spread", "sum")} == {
        TensorProto.FLOAT
    }
    assert kinds["recalled1"] == TensorProto.FLOAT16


@pytest.fixture(scope="module")
def library() -> TensorRT:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    return load_library("tensorrt-rtx")


@pytest.fixture(scope="module")
def step() -> ModelProto:
    """Of r31, in half precision, with random weights."""
    spec = ModelSpec("r31", network=NetworkSpec("r31", hidden_size=D, max_length=T))
    classes = spec.charset.class_count
    shapes = {"table": (classes, 4 * D), "hidden0": (D, 4 * D), "hidden1": (2 * D, 4 * D), "bias1": (4 * D,)}
    shapes |= {"classifier": (C, classes), "classifier_bias": (classes,), "fusion": (C, 2 * C)}
    shapes |= {"key_ones": (1, D, P), "value_ones": (1, P, C), "mask_ones": (1, 1, P), "position_ones": (1, T, 2 * C)}
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(MODEL)
    weights = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["second"] = np.array([1], np.int64)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return to_half(fuse_attention(*split(onnx.shape_inference.infer_shapes(model), spec))[1], HALF_ENDS)


@pytest.mark.parametrize(("largest", "most"), [(1, 9), (16, 14)])
@pytest.mark.parametrize("target", ["sm_80", "sm_120"])
def test_kernels_of_a_step(library: TensorRT, step: ModelProto, target: str, largest: int, most: int) -> None:
    options = BuilderOptions("fp16", BatchRange(1, 1, largest), targets=(target,))
    layers = kernels(build_plan(library, step.SerializeToString(), options).layers)
    print(f"{target}, batch 1…{largest}: {len(layers)} kernels")
    assert 0 < len(layers) <= most
    assert not copies_of_memory(layers)


def copies_of_memory(layers: Sequence[Layer]) -> list[str]:
    """Kernels that write as much as the keys hold: transposed keys or values, if anything."""
    return [layer.name for layer in layers for tensor in layer.outputs if abs(prod(tensor.shape)) >= D * P]
