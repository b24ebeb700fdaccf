"""Q/DQ nodes as TensorRT wants them: 8 bits before every quantised convolution, and on the shortcut of a residual sum.

TensorRT moves a quantisation forward or back into the kernels beside it. A convolution, the sum after it and the ReLU
after that become one INT8 kernel only when the sum's other operand is quantised and the convolution's own result is
not. From 8.5 to 11 it takes signed, symmetric steps only, and float32 weights that have a Q/DQ pair of their own.
"""

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ..graph.edit import copy_model, set_nodes
from .calibration import CalibrationSet, Collect, Ranges
from .placement import place
from .recipe import Recipe

Array = npt.NDArray[np.generic]
FloatArray = npt.NDArray[np.float32]

# Steps become half where the network is typed so: below this, half precision has few digits, then none.
SMALLEST_STEP = np.float32(2.0**-14)
_LIMIT = 127

Readers = Mapping[str, list[tuple[str, int]]]  # tensor -> (node, index of its input) that read it in 8 bits


def quantise_convolutions(
    model: ModelProto, layers: Collection[str], recipe: Recipe, calibration: CalibrationSet, collect: Collect
) -> tuple[ModelProto, Ranges]:
    """The convolutions named, in a copy of the model; and the ranges it took."""
    tensors, pooled = tuple(readers_in_8_bits(model.graph, layers)), place(model.graph, layers).pooled
    ranges = recipe.find_ranges(model, tensors, calibration, collect, pooled=pooled)
    return write_qdq(model, layers, ranges), ranges


def readers_in_8_bits(graph: GraphProto, layers: Collection[str]) -> Readers:
    """Who reads which tensor through Q/DQ: the chosen convolutions, and residual sums their shortcut."""
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, list[tuple[str, int]]] = {}
    for node in graph.node:
        if node.name in layers:
            found.setdefault(node.input[0], []).append((node.name, 0))
        elif node.op_type == "Add":
            branches = [_convolution_size(makers.get(name), weights, layers) for name in node.input]
            if max(branches):  # a sum of the backbone; the shortcut's convolution is none, or the smaller one
                index = int(branches[0] > branches[1])
                found.setdefault(node.input[index], []).append((node.name, index))
    return found


def write_qdq(model: ModelProto, layers: Collection[str], ranges: Ranges) -> ModelProto:
    """A copy of the model with Q/DQ nodes: int8, symmetric, activations per tensor, weights per output channel.

    Args:
        model: opset 13 or newer, weights as initializers.
        layers: names of convolutions.
        ranges: of the tensors that `readers_in_8_bits` names.
    """
    copy = copy_model(model)
    graph = copy.graph
    readers = readers_in_8_bits(graph, layers)
    by_name = {node.name: node for node in graph.node}
    for tensor, places in readers.items():
        for name, index in places:
            by_name[name].input[index] = f"{tensor}_dequantised"
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.name in layers:
            nodes += _quantise_weights(graph, node)
        nodes.append(node)
        for tensor in set(node.output) & readers.keys():
            nodes += _pair(graph, tensor, activation_scale(*ranges.limits[tensor]))
    set_nodes(graph, nodes)
    return copy


def activation_scale(low: float, high: float) -> FloatArray:
    """The step between int8 values that reach from low to high; a scalar."""
    return np.maximum(np.float32(max(-low, high) / _LIMIT), SMALLEST_STEP).astype(np.float32)


def weight_scales(weight: FloatArray) -> FloatArray:
    """One step per output channel of (C out, …)."""
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    return np.maximum(largest / _LIMIT, SMALLEST_STEP).astype(np.float32)


def _quantise_weights(graph: GraphProto, conv: NodeProto) -> list[NodeProto]:
    name = conv.input[1]
    weight = next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == name)
    conv.input[1] = f"{name}_dequantised"
    return _pair(graph, name, weight_scales(weight), axis=0)


def _pair(graph: GraphProto, tensor: str, scale: Array, **attributes: int) -> list[NodeProto]:
    """Q and DQ after a tensor, `TENSOR_dequantised` out."""
    constants = {f"{tensor}_scale": scale, f"{tensor}_zero": np.zeros(scale.shape, np.int8)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    quantised, dequantised = f"{tensor}_quantised", f"{tensor}_dequantised"
    return [
        helper.make_node("QuantizeLinear", [tensor, *constants], [quantised], f"{tensor}/quantise", **attributes),
        helper.make_node(
            "DequantizeLinear", [quantised, *constants], [dequantised], f"{tensor}/dequantise", **attributes
        ),
    ]


def _convolution_size(maker: NodeProto | None, weights: Mapping[str, object], layers: Collection[str]) -> int:
    """Weights of the quantised convolution that made a tensor; 0 when something else did."""
    if maker is None or maker.name not in layers:
        return 0
    return int(np.prod(weights[maker.input[1]].dims))  # type: ignore[attr-defined]
