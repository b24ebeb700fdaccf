"""What all changes of an ONNX graph have in common."""

from collections.abc import Iterable

import onnx
from onnx import GraphProto, ModelProto, NodeProto

CONTRIB = "com.microsoft"  # operators of ONNX Runtime's own, in every build of it


def use_contrib(model: ModelProto) -> None:
    """Lets a model hold operators of ONNX Runtime's own."""
    if not any(opset.domain == CONTRIB for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))


def copy_model(model: ModelProto) -> ModelProto:
    """A model of its own, to be changed."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Puts nodes in place of the graph's own, of which they may be some."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def inline_constants(graph: GraphProto) -> None:
    """Turns Constant nodes into initializers, which later changes look for."""
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def drop_value_info(graph: GraphProto, name: str) -> None:
    """Forgets what is written down about a tensor that is no longer what it was."""
    for value in [value for value in graph.value_info if value.name == name]:
        graph.value_info.remove(value)


def captured(node: NodeProto) -> set[str]:
    """Names that the bodies of a node read from the graph around them."""
    bodies = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return {name for body in bodies for inner in body.node for name in [*inner.input, *captured(inner)]}


def drop_unread_weights(graph: GraphProto) -> None:
    """Removes initializers that no node reads."""
    read = {name for node in graph.node for name in [*node.input, *captured(node)]}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def drop_dead_nodes(graph: GraphProto) -> None:
    """Removes nodes that no output of the graph depends on, and their weights."""
    wanted = {value.name for value in graph.output}
    alive = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            alive.append(node)
            wanted.update(node.input, captured(node))
    set_nodes(graph, reversed(alive))
    drop_unread_weights(graph)
