"""More 8 bits for the CPU than Q/DQ nodes around convolutions give: the first convolution, and the rows' LSTM.

The first convolution reads the picture's own bytes: no float copy of the picture is made, and its layout is not turned.
LSTMs get int8 weights. ONNX Runtime rounds their inputs and states itself, with a new range in every step.
"""

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ...graph.edit import CONTRIB, copy_model, drop_dead_nodes, set_nodes, use_contrib
from ...int8.qdq_onnxruntime import weight_steps

Array = npt.NDArray[np.generic]


def byte_layers(graph: GraphProto) -> tuple[str, ...]:
    """Names of the nodes that `to_bytes` can change: the convolution that reads the picture, and LSTMs."""
    makers = _makers(graph)
    return tuple(node.name for node in graph.node if node.op_type == "LSTM" or _steps_from_pixels(node, makers))


def to_bytes(model: ModelProto, layers: Collection[str], weight_bits: int) -> ModelProto:
    """A copy with first convolution and LSTMs in 8 bits, where they are among the layers.

    Args:
        model: a whole graph, its other convolutions quantised or not.
        layers: names of nodes.
        weight_bits: 8, or 7 for CPUs without VNNI; see `write_qdq`.
    """
    chosen = set(byte_layers(model.graph)).intersection(layers)
    if not chosen:
        return model
    copy = copy_model(model)
    writer = _Writer(copy.graph, 2 ** (weight_bits - 1) - 1)
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        nodes += writer.replace(node) if node.name in chosen else [node]
    set_nodes(copy.graph, nodes)
    drop_dead_nodes(copy.graph)
    use_contrib(copy)
    return copy


class _Writer:
    """Makes nodes and adds their constants to the graph."""

    def __init__(self, graph: GraphProto, weight_limit: int) -> None:
        self._graph, self._limit = graph, weight_limit
        self._makers = _makers(graph)
        self._constants: Mapping[str, Array] = {
            **{tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer},
            **{
                node.output[0]: numpy_helper.to_array(node.attribute[0].t)
                for node in graph.node
                if node.op_type == "Constant"
            },
        }

    def replace(self, node: NodeProto) -> list[NodeProto]:
        """Nodes to take its place."""
        return [self._lstm(node)] if node.op_type == "LSTM" else self._first_convolution(node)

    def _first_convolution(self, conv: NodeProto) -> list[NodeProto]:
        """The convolution, reading bytes whose zero point stands for the mean grey level.

        A zero point is a whole number, the mean (127.5) is not: the difference goes into the bias. At the edges of the
        picture, padding has no such difference, so the outermost rows are wrong by half a grey level.
        """
        divide, subtract, _, move = _steps_from_pixels(conv, self._makers)
        scale, mean = (np.float64(self._constants[node.input[1]]) for node in (divide, subtract))
        weight, bias = (self._constants[name].astype(np.float64) for name in conv.input[1:3])  # (C out, 3, K, K)
        zero, step = np.rint(mean), np.float32(1 / scale)
        bias = bias + weight.sum((1, 2, 3)) * (zero - mean) / scale
        steps = weight_steps(weight, bias, step, self._limit)
        bias_steps = (steps * step).astype(np.float32)
        whole = np.rint(weight / steps[:, None, None, None]).astype(np.int8)
        parts = [
            self._dequantise("pixels", move.output[0], step, np.uint8(zero)),
            self._dequantise(f"{conv.name}/weight", whole, steps, np.zeros(len(steps), np.int8)),
            self._dequantise(
                f"{conv.name}/bias",
                np.rint(bias / bias_steps).astype(np.int32),
                bias_steps,
                np.zeros(len(steps), np.int32),
            ),
        ]
        conv.input[:] = [part.output[0] for part in parts]
        return [*parts, conv]

    def _dequantise(
        self, name: str, values: Array | str, scale: npt.NDArray[np.float32] | np.float32, zero: Array | np.generic
    ) -> NodeProto:
        source = values if isinstance(values, str) else self._constant(f"{name}_quantised", values)
        inputs = [source, self._constant(f"{name}_scale", scale), self._constant(f"{name}_zero", zero)]
        return helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantised"], f"{name}/dequantise", axis=0)

    def _lstm(self, node: NodeProto) -> NodeProto:
        into, again = (self._gate_weights(node.input[index]) for index in (1, 2))
        return helper.make_node(
            "DynamicQuantizeLSTM",
            [node.input[0], into[0], again[0], node.input[3], "", "", "", "", *into[1:], *again[1:]],
            list(node.output),
            node.name,
            domain=CONTRIB,
            hidden_size=self._constants[node.input[2]].shape[2],
        )

    def _gate_weights(self, name: str) -> list[str]:
        """Names of weights int8 (1, D, 4D), transposed as the operator wants them, and steps of each column."""
        weight = self._constants[name][0].T.astype(np.float32)  # (D, 4D)
        steps = np.maximum(np.abs(weight).max(0) / self._limit, np.finfo(np.float32).tiny).astype(np.float32)
        arrays = {
            "quantised": np.rint(weight / steps).astype(np.int8),
            "scale": steps,
            "zero": np.zeros(len(steps), np.int8),
        }
        return [self._constant(f"{name}_{part}", array[None]) for part, array in arrays.items()]

    def _constant(self, name: str, value: Array | np.generic) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name


def _makers(graph: GraphProto) -> dict[str, NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _steps_from_pixels(conv: NodeProto, makers: Mapping[str, NodeProto]) -> list[NodeProto]:
    """What lies between a convolution and the uint8 picture (N, 3, H, W) that it reads, backwards; [] elsewhere."""
    nodes, name = [], conv.input[0] if conv.op_type == "Conv" else ""
    for kind in ("Div", "Sub", "Cast", "Transpose"):
        maker = makers.get(name)
        if maker is None or maker.op_type != kind:
            return []
        nodes.append(maker)
        name = maker.input[0]
    return nodes
