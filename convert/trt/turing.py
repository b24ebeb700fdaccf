"""Attention scores without matrix products: TensorRT-RTX has no float32 ones for Turing GPUs (sm_75)."""

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ..graph.edit import copy_model, set_nodes
from .half import score_nodes

TURING = "sm_75"


def spread_scores(model: ModelProto) -> ModelProto:
    """A copy in which query times key is a multiplication and a sum over the channels, still in float32."""
    copy = copy_model(model)
    names = score_nodes(model.graph)
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        nodes += _spread(node) if node.op_type == "MatMul" and node.name in names else [node]
    set_nodes(copy.graph, nodes)
    axes = {"turing/last": -1, "turing/rows": 1, "turing/channels": 2}
    constants = [numpy_helper.from_array(np.array([axis], np.int64), name) for name, axis in axes.items()]
    copy.graph.initializer.extend(constants)
    return copy


def _spread(product: NodeProto) -> list[NodeProto]:
    """(…, T, D) times (N, D, P)."""
    query, keys, name = product.input[0], product.input[1], product.name
    return [
        helper.make_node("Unsqueeze", [query, "turing/last"], [f"{name}/query"], f"{name}/query"),
        helper.make_node("Unsqueeze", [keys, "turing/rows"], [f"{name}/keys"], f"{name}/keys"),
        helper.make_node("Mul", [f"{name}/query", f"{name}/keys"], [f"{name}/spread"], f"{name}/spread"),
        helper.make_node("ReduceSum", [f"{name}/spread", "turing/channels"], list(product.output), name, keepdims=0),
    ]
