"""Attention as multiplications and sums, which TensorRT fuses with what stands around them; still in float32.

A product of one query with the keys, or of attention weights with the values, is small, but a launch of its own; and
as matrix products they made TensorRT transpose all keys and all values in every step.
"""

from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ...graph.edit import copy_model, drop_unread_weights, set_nodes
from .half import score_nodes

TURING = "sm_75"  # TensorRT-RTX has no float32 products of matrices for these GPUs
STEP_PRODUCTS = ("similarity", "glimpse")  # of the decoding step: query times keys, attention times values

_AXES = {f"attention/{axis}": axis for axis in (-1, 1, 2)}


def fuse_attention(encoder: ModelProto, decoder: ModelProto) -> tuple[ModelProto, ModelProto]:
    """Copies of `split`'s graphs in which no step multiplies matrices with, or transposes, keys and values.

    The encoder gives keys as (N, P, D) and values as (N, 2C, P).
    """
    encoder, decoder = copy_model(encoder), copy_model(decoder)
    for name in ("keys", "values"):
        _transpose_output(encoder.graph, name)
        for value in (*encoder.graph.output, *decoder.graph.input):
            if value.name == name:
                _swap_dimensions(value)
    _replace(decoder.graph, STEP_PRODUCTS, _row_product)
    return encoder, decoder


def spread_scores(encoder: ModelProto) -> ModelProto:
    """A copy in which query times key of all characters at once is a multiplication and a sum, too."""
    copy = copy_model(encoder)
    _replace(copy.graph, score_nodes(copy.graph), _matrix_product)
    return copy


def _replace(graph: GraphProto, names: Iterable[str], product: Callable[[NodeProto], list[NodeProto]]) -> None:
    names = frozenset(names)
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += product(node) if node.op_type == "MatMul" and node.name in names else [node]
    set_nodes(graph, nodes)
    axes = [numpy_helper.from_array(np.array([axis], np.int64), name) for name, axis in _AXES.items()]
    graph.initializer.extend(axes)
    drop_unread_weights(graph)


def _row_product(product: NodeProto) -> list[NodeProto]:
    """(N, 1, K) times what was (N, K, M) and is (N, M, K) now: (N, 1, M)."""
    (row, matrix), name = product.input, product.name
    return [
        helper.make_node("Mul", [row, matrix], [f"{name}/spread"], f"{name}/spread"),  # (N, M, K)
        helper.make_node("ReduceSum", [f"{name}/spread", "attention/2"], [f"{name}/sum"], f"{name}/sum", keepdims=0),
        helper.make_node("Unsqueeze", [f"{name}/sum", "attention/1"], list(product.output), name),  # (N, 1, M)
    ]


def _matrix_product(product: NodeProto) -> list[NodeProto]:
    """(…, T, D) times (N, D, P)."""
    (query, keys), name = product.input, product.name
    return [
        helper.make_node("Unsqueeze", [query, "attention/-1"], [f"{name}/query"], f"{name}/query"),
        helper.make_node("Unsqueeze", [keys, "attention/1"], [f"{name}/keys"], f"{name}/keys"),
        helper.make_node("Mul", [f"{name}/query", f"{name}/keys"], [f"{name}/spread"], f"{name}/spread"),
        helper.make_node("ReduceSum", [f"{name}/spread", "attention/2"], list(product.output), name, keepdims=0),
    ]


def _transpose_output(graph: GraphProto, name: str) -> None:
    inner = f"{name}/columns"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner if other == name else other for other in names]
    graph.node.append(helper.make_node("Transpose", [inner], [name], f"{name}/rows", perm=[0, 2, 1]))


def _swap_dimensions(value: onnx.ValueInfoProto) -> None:
    """(N, A, B) becomes (N, B, A)."""
    dimensions = value.type.tensor_type.shape.dim
    middle, last = dimensions[1].SerializeToString(), dimensions[2].SerializeToString()
    dimensions[1].ParseFromString(last)
    dimensions[2].ParseFromString(middle)
