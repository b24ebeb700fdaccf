"""The encoder in two, where a CUDA kernel runs the row LSTM: convolutions before it, the position branch after it."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from robustscanner.errors import EngineError

from ...graph.edit import copy_model, drop_dead_nodes, set_nodes
from .kernel_weights import FloatArray, row_weights, share_weights
from .row_lstm import RowLayer, row_layers

SHARES, STATES = "row_shares", "row_states"  # what the kernel reads and writes: (N, H, W, 4D) and (N, H, W, D)
POSITION = "position"


@dataclass(frozen=True)
class RowCut:
    """Both halves, float32, and what the kernel needs between them."""

    front: ModelProto  # `images`, `valid_width` -> SHARES, what the back reads, and all outputs but `position`
    back: ModelProto  # STATES and tensors of the front -> `position`
    weights: dict[str, FloatArray]  # see `kernel_weights.row_weights`

    def typed(self, dtype: type[np.floating]) -> dict[str, FloatArray]:
        """Weights in the precision of an engine; sums stay float32."""
        return {name: array.astype(np.float32 if name == "bias" else dtype) for name, array in self.weights.items()}


def cut_rows(encoder: ModelProto) -> RowCut:
    """Cuts an encoder as `split` gives it.

    Raises:
        EngineError: the LSTM nodes are not two layers behind each other, as ours are.
    """
    known = {value.name: value for value in _inferred(encoder)}
    lower, upper = row_layers(encoder.graph)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in encoder.graph.initializer}
    layers = RowLayer.of(lower, weights), RowLayer.of(upper, weights)
    encoded, grid = _source(encoder.graph, lower), _target(encoder.graph, upper)
    after = _after(encoder.graph, grid)
    crossing = _crossing(encoder.graph, after, grid)
    front = _front(encoder, layers[0], encoded, [known[name] for name in crossing], known[encoded])
    back = _back(encoder, after, grid, [known[name] for name in crossing], known[encoded])
    return RowCut(front, back, row_weights(*layers))


def _front(
    encoder: ModelProto, lower: RowLayer, encoded: str, crossing: list[ValueInfoProto], source: ValueInfoProto
) -> ModelProto:
    front = copy_model(encoder)
    graph, (weight, bias) = front.graph, share_weights(lower)
    graph.name = "front"
    graph.initializer.extend(
        [numpy_helper.from_array(weight, "row_into"), numpy_helper.from_array(bias, "row_into_bias")]
    )
    graph.node.extend(
        [
            helper.make_node("Transpose", [encoded], ["row_inputs"], "row_inputs", perm=[0, 2, 3, 1]),
            helper.make_node("MatMul", ["row_inputs", "row_into"], ["row_product"], "row_product"),
            helper.make_node("Add", ["row_product", "row_into_bias"], [SHARES], SHARES),
        ]
    )
    outputs = [value for value in graph.output if value.name != POSITION]
    outputs += [value for value in crossing if value.name not in {output.name for output in outputs}]
    del graph.output[:]
    graph.output.extend([*outputs, _rows(SHARES, source, 4)])
    drop_dead_nodes(graph)
    return front


def _back(
    encoder: ModelProto, after: list[NodeProto], grid: str, crossing: list[ValueInfoProto], source: ValueInfoProto
) -> ModelProto:
    back = copy_model(encoder)
    graph = back.graph
    graph.name = "position"
    set_nodes(graph, [helper.make_node("Transpose", [STATES], [grid], "row_grid", perm=[0, 3, 1, 2]), *after])
    outputs = [value for value in graph.output if value.name == POSITION]
    del graph.input[:], graph.output[:]
    graph.input.extend([_rows(STATES, source, 1), *crossing])
    graph.output.extend(outputs)
    drop_dead_nodes(graph)
    return back


def _source(graph: GraphProto, lower: NodeProto) -> str:
    """The feature map (N, D, H, W) whose rows the lower layer reads."""
    makers = {name: node for node in graph.node for name in node.output}
    name = lower.input[0]
    for kind in ("Reshape", "Transpose"):
        name = _only(makers.get(name), kind).input[0]
    return str(name)


def _target(graph: GraphProto, upper: NodeProto) -> str:
    """The map (N, D, H, W) that is made of the upper layer's states."""
    name = upper.output[0]
    while True:
        node = next((node for node in graph.node if name in node.input), None)
        if node is not None and node.op_type == "Transpose":
            return str(node.output[0])
        name = _only(node, "Reshape" if node is None or node.op_type != "Squeeze" else "Squeeze").output[0]


def _only(node: NodeProto | None, kind: str) -> NodeProto:
    if node is None or node.op_type != kind:
        found = "nothing" if node is None else node.op_type
        raise EngineError(f"beside the row LSTM is {found}, not {kind}; export the model again, or use --row-lstm loop")
    return node


def _after(graph: GraphProto, grid: str) -> list[NodeProto]:
    """The nodes that depend on a tensor."""
    reached, found = {grid}, []
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            found.append(node)
    return found


def _crossing(graph: GraphProto, after: list[NodeProto], grid: str) -> list[str]:
    """What these nodes read that others make, but for the grid."""
    weights = {tensor.name for tensor in graph.initializer}
    made = {name for node in after for name in node.output} | {grid}
    read = dict.fromkeys(name for node in after for name in node.input)
    return [name for name in read if name and name not in made | weights]


def _rows(name: str, source: ValueInfoProto, widths: int) -> ValueInfoProto:
    """(N, H, W, widths * D) of a map (N, D, H, W)."""
    batch, hidden, height, width = source.type.tensor_type.shape.dim
    sizes = [batch.dim_param or "batch", *(d.dim_value or d.dim_param for d in (height, width))]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [*sizes, widths * hidden.dim_value])


def _inferred(encoder: ModelProto) -> list[ValueInfoProto]:
    """All tensors whose shapes are known; the first dimension of each is the batch."""
    inferred = onnx.shape_inference.infer_shapes(encoder, data_prop=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    for value in values:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return values
