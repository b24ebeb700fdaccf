"""More 8 bits for the CPU than Q/DQ nodes around convolutions give: the first convolution, and the rows' LSTM.

The first convolution reads the picture's own bytes: no float copy of the picture is made, and its layout is not turned.
LSTMs get int8 weights. ONNX Runtime rounds their inputs and states itself, with a new range in every step.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ..graph.edit import copy_model, drop_dead_nodes, set_nodes
from ..int8.qdq_onnxruntime import weight_steps

Array = npt.NDArray[np.generic]

_CONTRIB = "com.microsoft"  # operators of ONNX Runtime's own, in every build of it


def to_bytes(model: ModelProto, weight_bits: int) -> tuple[ModelProto, tuple[str, ...]]:
    """A copy with first convolution and LSTMs in 8 bits, and the names of those nodes.

    Args:
        model: a whole graph, its other convolutions quantised or not.
        weight_bits: 8, or 7 for CPUs without VNNI; see `quantize.quantize`.
    """
    copy = copy_model(model)
    writer = _Writer(copy.graph, 2 ** (weight_bits - 1) - 1)
    nodes: list[NodeProto] = []
    changed: list[str] = []
    for node in copy.graph.node:
        replacement = writer.replace(node)
        changed += [node.name] if replacement else []
        nodes += replacement or [node]
    set_nodes(copy.graph, nodes)
    drop_dead_nodes(copy.graph)
    copy.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    return copy, tuple(changed)


class _Writer:
    """Makes nodes and adds their constants to the graph."""

    def __init__(self, graph: GraphProto, weight_limit: int) -> None:
        self._graph, self._limit = graph, weight_limit
        self._makers = {name: node for node in graph.node for name in node.output}
        self._constants: Mapping[str, Array] = {
            **{tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer},
            **{
                node.output[0]: numpy_helper.to_array(node.attribute[0].t)
                for node in graph.node
                if node.op_type == "Constant"
            },
        }

    def replace(self, node: NodeProto) -> list[NodeProto]:
        """Nodes to take its place, none if it may stay."""
        if node.op_type == "LSTM":
            return [self._lstm(node)]
        pixels = self._pixels(node) if node.op_type == "Conv" else None
        return self._first_convolution(node, *pixels) if pixels else []

    def _pixels(self, conv: NodeProto) -> tuple[str, np.float64, np.float64] | None:
        """The uint8 picture (N, 3, H, W) that a convolution reads, its mean and scale, if it reads one."""
        nodes, name = [], conv.input[0]
        for kind in ("Div", "Sub", "Cast", "Transpose"):
            maker = self._makers.get(name)
            if maker is None or maker.op_type != kind:
                return None
            nodes.append(maker)
            name = maker.input[0]
        scale, mean = (np.float64(self._constants[node.input[1]]) for node in nodes[:2])
        return nodes[3].output[0], mean, scale

    def _first_convolution(self, conv: NodeProto, pixels: str, mean: np.float64, scale: np.float64) -> list[NodeProto]:
        """The convolution, reading bytes whose zero point stands for the mean grey level.

        A zero point is a whole number, the mean (127.5) is not: the difference goes into the bias. At the edges of the
        picture, padding has no such difference, so the outermost rows are wrong by half a grey level.
        """
        weight, bias = (self._constants[name].astype(np.float64) for name in conv.input[1:3])  # (C out, 3, K, K)
        zero, step = np.rint(mean), np.float32(1 / scale)
        bias = bias + weight.sum((1, 2, 3)) * (zero - mean) / scale
        steps = weight_steps(weight, bias, step, self._limit)
        bias_steps = (steps * step).astype(np.float32)
        whole = np.rint(weight / steps[:, None, None, None]).astype(np.int8)
        parts = [
            self._dequantise("pixels", pixels, step, np.uint8(zero)),
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
            domain=_CONTRIB,
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
