"""Where the 8 bits go: convolutions that can be quantised, and tensors that pass through 8 bits around them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import GraphProto, NodeProto

from ..graph.edit import captured


@dataclass(frozen=True)
class Placement:
    """Where ONNX Runtime wants the 8 bits; TensorRT's places follow from the convolutions alone."""

    convolutions: tuple[str, ...]  # names of the nodes that are quantised
    tensors: tuple[str, ...]  # that pass through 8 bits, in the order of the graph
    pooled: Mapping[str, str]  # so does each of these, with the range of its input: max pooling makes no new values


def quantisable(graph: GraphProto) -> tuple[str, ...]:
    """Names of the main graph's convolutions but the one that sees pixels.

    Bodies of loops stay as they are: nothing in a decoder is worth the loss.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in weights]
    return tuple(node.name for node in convolutions if not _sees_pixels(node, weights[node.input[1]]))


def place(graph: GraphProto, layers: Collection[str]) -> Placement:
    """Quantises those of the layers that are `quantisable` convolutions, and what lies between two of them."""
    uses, convolutions = _uses(graph), set(quantisable(graph)).intersection(layers)
    weights = {tensor.name for tensor in graph.initializer}
    chosen: list[str] = []
    tensors: dict[str, None] = {}  # an ordered set
    pooled: dict[str, str] = {}
    for node in graph.node:
        inputs = [name for name in node.input if name not in weights]
        if node.name in convolutions:
            chosen.append(node.name)
            tensors |= dict.fromkeys([*(name for name in inputs if name not in pooled), _settled(node, uses)])
        elif node.op_type == "Add" and len(inputs) == 2 and all(name in tensors or name in pooled for name in inputs):
            tensors[_settled(node, uses)] = None
        elif node.op_type == "MaxPool" and inputs[0] in tensors:
            pooled[node.output[0]] = inputs[0]
    return Placement(tuple(chosen), tuple(tensors), pooled)


def _sees_pixels(node: NodeProto, weight: onnx.TensorProto) -> bool:
    """The first layer: too few input channels for 8 bits to save time, and every other layer depends on it."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return bool(groups * weight.dims[1] < 4)


def _settled(node: NodeProto, uses: Mapping[str, Sequence[NodeProto]]) -> str:
    """The output of a node, or of the ReLU after it, which runtimes fuse with it."""
    readers = uses.get(node.output[0], [])
    relu = len(readers) == 1 and readers[0].op_type == "Relu"
    return str(readers[0].output[0] if relu else node.output[0])


def _uses(graph: GraphProto) -> dict[str, list[NodeProto]]:
    uses: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in [*node.input, *captured(node)]:
            uses.setdefault(name, []).append(node)
    return uses
