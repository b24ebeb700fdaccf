"""Q/DQ nodes as ONNX Runtime wants them.

Its kernels for x86 multiply uint8 by int8; int8 activations are slower there than FP32. It computes in 8 bits only what
lies between a DequantizeLinear and a QuantizeLinear, so outputs, residual sums and pools pass through 8 bits too.
TensorRT would not want that.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ..graph.edit import captured, copy_model, drop_unread_weights, set_nodes
from .calibration import CalibrationSet, Collect, Ranges
from .placement import Placement, place
from .recipe import Recipe

Array = npt.NDArray[np.generic]
FloatArray = npt.NDArray[np.float32]

_INT32_MAX = 2**31 - 1
_MOVES_ONLY = frozenset({"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def quantise_convolutions(
    model: ModelProto, layers: Collection[str], recipe: Recipe, calibration: CalibrationSet, collect: Collect
) -> tuple[ModelProto, Ranges]:
    """Those of the layers that are convolutions, in a copy of the model; and the ranges it took."""
    placement = place(model.graph, layers)
    ranges = recipe.find_ranges(model, placement.tensors, calibration, collect, pooled=placement.pooled)
    return write_qdq(model, placement, ranges, weight_bits=recipe.weight_bits), ranges


def write_qdq(model: ModelProto, placement: Placement, ranges: Ranges, *, weight_bits: int = 8) -> ModelProto:
    """A copy of the model with Q/DQ nodes: activations uint8 per tensor, weights int8 per output channel.

    Args:
        model: opset 13 or newer.
        placement: made from this model.
        ranges: of the placement's tensors.
        weight_bits: 7 keeps a sum of two products within 16 bits, for CPUs without VNNI.
    """
    copy = copy_model(model)
    writer = _Writer(copy.graph, ranges, weight_bits)
    tensors = {**dict.fromkeys(placement.tensors), **placement.pooled}
    nodes = [new for i in copy.graph.input if i.name in tensors for new in writer.quantise_activation(i.name, i.name)]
    for node in copy.graph.node:
        if node.name in placement.convolutions:
            nodes += writer.quantise_weights(node)
        for index, name in enumerate(node.input):
            if name in writer.dequantised:
                node.input[index] = writer.dequantised[name]
        nodes.append(node)
        for name in node.output:
            if name in tensors:
                nodes += writer.quantise_activation(name, tensors[name] or name)
    set_nodes(copy.graph, nodes)
    _shield_loops(copy.graph)
    drop_unread_weights(copy.graph)
    return copy


class _Writer:
    """Makes nodes and adds their constants to the graph."""

    def __init__(self, graph: GraphProto, ranges: Ranges, weight_bits: int) -> None:
        self._graph, self._ranges = graph, ranges
        self._weight_limit = 2 ** (weight_bits - 1) - 1
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._scales: dict[str, np.float32] = {}
        self.dequantised: dict[str, str] = {}  # tensor -> its twin that went through 8 bits

    def quantise_activation(self, name: str, source: str) -> list[NodeProto]:
        """Q and DQ after a tensor; readers are to take the twin."""
        scale, zero = activation_step(*self._ranges.limits[source])
        self._scales[name] = scale
        constants = [self._constant(f"{name}_scale", scale), self._constant(f"{name}_zero", zero)]
        self.dequantised[name] = f"{name}_dequantised"
        return [
            helper.make_node("QuantizeLinear", [name, *constants], [f"{name}_quantised"], f"{name}/quantise"),
            helper.make_node(
                "DequantizeLinear", [f"{name}_quantised", *constants], [self.dequantised[name]], f"{name}/dequantise"
            ),
        ]

    def quantise_weights(self, conv: NodeProto) -> list[NodeProto]:
        """DQ before weight and bias of a convolution whose input is known already."""
        weight = numpy_helper.to_array(self._weights[conv.input[1]])  # (C out, C in, H, W)
        bias = numpy_helper.to_array(self._weights[conv.input[2]]) if len(conv.input) > 2 else np.zeros(len(weight))
        input_scale = self._scales[conv.input[0]]
        scale = weight_steps(weight, bias, input_scale, self._weight_limit)
        rounded = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
        bias_scale = (scale * input_scale).astype(np.float32)
        nodes = [self._dequantise(f"{conv.name}/weight", rounded, scale)]
        if len(conv.input) > 2:
            rounded_bias = np.clip(np.rint(bias / bias_scale.astype(np.float64)), -_INT32_MAX, _INT32_MAX)
            nodes.append(self._dequantise(f"{conv.name}/bias", rounded_bias.astype(np.int32), bias_scale))
        for index, node in enumerate(nodes, 1):
            conv.input[index] = node.output[0]
        return nodes

    def _dequantise(self, name: str, values: Array, scale: FloatArray) -> NodeProto:
        zero = np.zeros(len(scale), values.dtype)
        inputs = [
            self._constant(f"{name}_quantised", values),
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero", zero),
        ]
        return helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantised"], f"{name}/dequantise", axis=0)

    def _constant(self, name: str, value: Array | np.generic) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def activation_step(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 for values from low to high, zero among them."""
    scale = np.float32((high - low) / 255 or 1)  # a tensor of zeros takes any scale
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def weight_steps(weight: Array, bias: Array, input_scale: np.float32, limit: int) -> FloatArray:
    """Scale of every output channel: its largest weight at the limit, and coarser where the bias would not fit int32.

    A dead channel has weights near zero but still a bias, which is counted in steps of input scale x weight scale.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(1) / limit
    for_bias = np.abs(bias) / (float(input_scale) * _INT32_MAX)
    scale = np.maximum(largest, for_bias)
    return np.where(scale > 0, scale, 1).astype(np.float32)


def _shield_loops(graph: GraphProto) -> None:
    """Puts a copy between dequantised tensors and the bodies of loops that read them.

    ONNX Runtime 1.32 (QDQPropagationTransformer) moves a DequantizeLinear down past nodes that only move values. It
    does not notice when that reaches a hidden input of a loop, and aborts the process. The copy stops it: a Max of one
    tensor, because an Identity would be removed.
    """
    makers = {name: node for node in graph.node for name in node.output}
    inside = {name for node in graph.node for name in captured(node)}
    for name in sorted(inside & makers.keys()):
        source = makers[name]
        while source.op_type in _MOVES_ONLY and source.input[0] in makers:
            source = makers[source.input[0]]
        if source.op_type != "DequantizeLinear":
            continue
        maker = makers[name]
        maker.output[list(maker.output).index(name)] = f"{name}_before_loop"
        place = list(graph.node).index(maker) + 1
        graph.node.insert(place, helper.make_node("Max", [f"{name}_before_loop"], [name], f"{name}/shield"))
