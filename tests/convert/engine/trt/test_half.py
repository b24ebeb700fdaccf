"""Types written into the graph: what becomes half, what must not, and that it still computes the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from convert.engine.trt.backend import HALF_ENDS
from convert.engine.trt.half import score_nodes, to_half
from convert.engine.trt.row_lstm import unroll_rows
from convert.graph.model_file import load_model
from convert.graph.split import split
from convert.graph.step import MEMORY
from tests.convert.conftest import TINY


@pytest.fixture(scope="module")
def graphs() -> list[onnx.ModelProto]:
    encoder, decoder = split(*load_model(TINY)[:2])
    return [unroll_rows(encoder), decoder]


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Of all tensors."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in graph.initializer}


def test_products_are_half_and_scores_are_not(graphs: list[onnx.ModelProto]) -> None:
    for graph in graphs:
        typed = to_half(graph, HALF_ENDS)
        onnx.checker.check_model(typed, full_check=True)
        kinds, scores = types(typed), score_nodes(typed.graph)
        for node in typed.graph.node:
            if node.op_type in ("Conv", "MatMul"):
                expected = TensorProto.FLOAT if node.name in scores else TensorProto.FLOAT16
                assert {kinds[name] for name in node.input} == {expected}, node.name
            if node.op_type in ("Softmax", "Sigmoid", "Tanh"):
                assert kinds[node.input[0]] == TensorProto.FLOAT


def test_only_the_named_ends_change_type(graphs: list[onnx.ModelProto]) -> None:
    for graph in graphs:
        ends = [value.name for value in [*graph.graph.input, *graph.graph.output]]
        before, after = types(graph), types(to_half(graph, HALF_ENDS))
        assert {name for name in ends if before[name] != after[name]} == {"values", "position"} & set(ends)


def test_scores_are_the_attention_products(graphs: list[onnx.ModelProto]) -> None:
    encoder, decoder = (score_nodes(graph.graph) for graph in graphs)
    assert {"/position/MatMul", "/position/Add", "/position/Softmax"} == encoder
    assert {"similarity", "masked", "attention", "probabilities"} == decoder


def test_half_encoder_is_near_the_float_one(graphs: list[onnx.ModelProto]) -> None:
    images = np.random.default_rng(3).integers(0, 256, (2, 6, 20, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    inputs = {"images": images, "valid_width": np.array([160, 80], np.int32)}
    results = []
    for graph in (graphs[0], to_half(graphs[0], HALF_ENDS)):
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        results.append(dict(zip(MEMORY, session.run(list(MEMORY), inputs), strict=True)))
    exact, half = results
    assert (exact["keys"] != half["keys"]).any()  # it did change
    for name in ("keys", "values"):
        np.testing.assert_allclose(half[name], exact[name], atol=0.01 * np.abs(exact[name]).max())
    np.testing.assert_array_equal(half["mask"], exact["mask"])  # -1e30 does not fit into half


def test_quantised_graphs_get_half_steps_and_opset_19() -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.5), "scale"), numpy_helper.from_array(np.int8(0), "zero")
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "weight")
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "weight"], ["c"], "first"),
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"),
        helper.make_node("Conv", ["d", "weight"], ["y"], "second"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 2, 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "quantised", ends[:1], ends[1:], [scale, zero, weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    typed = to_half(model, [])
    onnx.checker.check_model(typed, full_check=True)
    assert typed.opset_import[0].version == 19
    kinds = types(typed)
    assert kinds["scale/half"] == kinds["d"] == TensorProto.FLOAT16
    assert kinds["q"] == TensorProto.INT8
    assert kinds["y"] == TensorProto.FLOAT
