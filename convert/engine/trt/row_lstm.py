"""The encoder's two LSTM layers as plain matrix products: a wave that runs through both at once.

TensorRT turns an LSTM operator into a loop on the device, one after the other for two layers: 80 rounds of a few tiny
kernels for 40 columns, more than the decoder needs for a word, and control flow that a CUDA graph cannot hold. Here
layer 1 works on column t - 1 while layer 0 works on column t, so that both share one product a column: 41 rounds,
unrolled, no control flow, shapes fixed but for the batch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from robustscanner.errors import EngineError

from ...graph.edit import copy_model, drop_dead_nodes, set_nodes

FloatArray = npt.NDArray[np.float32]

PREFIX = "rows"  # of the names of new nodes and tensors
_CLOSED = np.float32(-60)  # sigmoid gives 1e-26: nothing passes the gate


def unroll_rows(encoder: ModelProto) -> ModelProto:
    """A copy of an encoder in which no LSTM is left; equal up to rounding.

    Raises:
        EngineError: the LSTM nodes are not two layers one after the other, as ours are.
    """
    copy = copy_model(encoder)
    graph = copy.graph
    lower, upper = row_layers(graph)
    sequence = lower.input[0]
    columns = _length(encoder, sequence)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    wave = _Wave(graph, columns, RowLayer.of(lower, weights), RowLayer.of(upper, weights))
    nodes = wave.nodes(sequence, upper.output[0])
    place = list(graph.node).index(upper)
    set_nodes(graph, [*list(graph.node)[:place], *nodes, *list(graph.node)[place + 1 :]])
    drop_dead_nodes(graph)
    return copy


@dataclass(frozen=True)
class RowLayer:
    """Weights of one LSTM layer, gates in the order input, forget, output, cell."""

    into: FloatArray  # (D, 4, D): from the layer's input
    again: FloatArray  # (D, 4, D): from its own last output
    bias: FloatArray  # (4, D)

    @classmethod
    def of(cls, node: NodeProto, weights: dict[str, npt.NDArray[np.generic]]) -> "RowLayer":
        """From ONNX, which orders input, output, forget, cell."""
        into, again, bias = (weights[name][0].astype(np.float32) for name in node.input[1:4])
        hidden = again.shape[1]
        order = [0, 2, 1, 3]
        square = (4, hidden, hidden)
        return cls(
            into.reshape(square)[order].transpose(2, 0, 1),
            again.reshape(square)[order].transpose(2, 0, 1),
            bias.reshape(2, 4, hidden).sum(0)[order],
        )


class _Wave:
    """Writes the nodes; tensors are (1, B, …), and of every gate the first half belongs to layer 0."""

    def __init__(self, graph: GraphProto, columns: int, lower: RowLayer, upper: RowLayer) -> None:
        self._graph, self._columns = graph, columns
        hidden = lower.bias.shape[1]
        nothing = np.zeros((hidden, 4, hidden), np.float32)
        into = _side_by_side(lower.into, nothing)  # (D, 8D)
        again = np.concatenate([_side_by_side(lower.again, upper.into), _side_by_side(nothing, upper.again)])
        bias = _side_by_side(lower.bias[None], upper.bias[None])[0]
        # Before layer 1 has seen anything it must stay at zero: its input gate is closed, whatever its bias.
        closed = np.zeros((1, 4, hidden), np.float32)
        closed[0, 0] = _CLOSED - upper.bias[0]
        first = _side_by_side(np.zeros_like(closed), closed)
        self._into, self._again = self._constant("into", into), self._constant("again", again)
        self._bias, self._first = self._constant("bias", bias), self._constant("first", first[0])
        self._gates = self._constant("gates", np.array([6 * hidden, 2 * hidden], np.int64))
        self._opened = self._constant("opened", np.array([2 * hidden] * 3, np.int64))
        self._ones = self._constant("ones", np.ones(columns, np.int64))
        self._upper = [
            self._constant(name, np.array([value], np.int64))
            for name, value in (("start", hidden), ("end", 2 * hidden), ("axis", 2), ("direction", 1))
        ]

    def nodes(self, sequence: str, output: str) -> list[NodeProto]:
        """From a sequence (S, B, D) to ONNX's LSTM output (S, 1, B, D)."""
        shares = [f"{PREFIX}/share_{column}" for column in range(self._columns)]
        found = [
            self._node("MatMul", [sequence, self._into], "product"),
            self._node("Add", [f"{PREFIX}/product", self._bias], "shares"),
            helper.make_node("Split", [f"{PREFIX}/shares", self._ones], shares, f"{PREFIX}/split", axis=0),
            self._node("Add", [shares[0], self._first], "gates_0"),
            *self._cell(0),
        ]
        for step in range(1, self._columns + 1):
            share = shares[min(step, self._columns - 1)]  # in the last round layer 0 runs idle
            found += [
                self._node("MatMul", [f"{PREFIX}/h_{step - 1}", self._again], f"recalled_{step}"),
                self._node("Add", [f"{PREFIX}/recalled_{step}", share], f"gates_{step}"),
                *self._cell(step),
            ]
        states = [f"{PREFIX}/h_{step}" for step in range(1, self._columns + 1)]
        start, end, axis, direction = self._upper
        return [
            *found,
            self._node("Concat", states, "both", axis=0),
            self._node("Slice", [f"{PREFIX}/both", start, end, axis], "upper"),
            helper.make_node("Unsqueeze", [f"{PREFIX}/upper", direction], [output], f"{PREFIX}/unsqueeze"),
        ]

    def _cell(self, step: int) -> list[NodeProto]:
        """Gates to cell and state; the cell before the first step is zero."""
        names = (f"open_{step}", f"new_{step}"), tuple(f"{gate}_{step}" for gate in ("in", "forget", "out"))
        cell = f"added_{step}" if step == 0 else f"c_{step}"
        found = [
            self._split(f"gates_{step}", names[0], self._gates),
            self._node("Sigmoid", [f"{PREFIX}/open_{step}"], f"opened_{step}"),
            self._split(f"opened_{step}", names[1], self._opened),
            self._node("Tanh", [f"{PREFIX}/new_{step}"], f"candidate_{step}"),
            self._node("Mul", [f"{PREFIX}/in_{step}", f"{PREFIX}/candidate_{step}"], f"added_{step}"),
        ]
        if step:
            last = f"{PREFIX}/c_{step - 1}" if step > 1 else f"{PREFIX}/added_0"
            found += [
                self._node("Mul", [f"{PREFIX}/forget_{step}", last], f"kept_{step}"),
                self._node("Add", [f"{PREFIX}/kept_{step}", f"{PREFIX}/added_{step}"], cell),
            ]
        return [
            *found,
            self._node("Tanh", [f"{PREFIX}/{cell}"], f"level_{step}"),
            self._node("Mul", [f"{PREFIX}/out_{step}", f"{PREFIX}/level_{step}"], f"h_{step}"),
        ]

    def _split(self, source: str, parts: tuple[str, ...], sizes: str) -> NodeProto:
        outputs = [f"{PREFIX}/{part}" for part in parts]
        return helper.make_node("Split", [f"{PREFIX}/{source}", sizes], outputs, f"{PREFIX}/split_{source}", axis=-1)

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: int) -> NodeProto:
        return helper.make_node(kind, inputs, [f"{PREFIX}/{name}"], f"{PREFIX}/{name}", **attributes)

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{PREFIX}/{name}"))
        return f"{PREFIX}/{name}"


def _side_by_side(lower: FloatArray, upper: FloatArray) -> FloatArray:
    """(R, 4, D) of both layers to (R, 8D): gate by gate, layer 0 first."""
    return np.stack([lower, upper], 2).reshape(len(lower), -1)


def row_layers(graph: GraphProto) -> tuple[NodeProto, NodeProto]:
    """The nodes of both layers; raises `EngineError` where there are not two."""
    layers = [node for node in graph.node if node.op_type == "LSTM"]
    if len(layers) != 2:
        raise EngineError(f"the encoder has {len(layers)} LSTM nodes, not two; export it again, or use --row-lstm loop")
    return layers[0], layers[1]


def _length(encoder: ModelProto, name: str) -> int:
    inferred = onnx.shape_inference.infer_shapes(encoder, data_prop=True)
    for value in inferred.graph.value_info:
        if value.name == name:
            return int(value.type.tensor_type.shape.dim[0].dim_value)
    raise EngineError(f"the length of {name} is unknown; export the model again with convert/export_onnx.py")
