"""Precision written into the graph: float16 where it is safe, float32 where attention scores and states live.

TensorRT from 10.12 on, and only so from 11 on, takes the types of a network as they stand. Products of convolutions and
matrices become half; pixels, LSTM cells, and everything from query times key to softmax stay float32: the scores are
not scaled and reach 200, where half precision has steps of 1/8.
"""

from collections.abc import Generator, Iterable, Iterator

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ...graph.edit import copy_model, drop_unread_weights, set_nodes
from ...graph.step import ALLOWED

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_EXACT = frozenset({"Cast", "ReduceMax", "ReduceSum", "Sigmoid", "Softmax", "Tanh"})  # float32 whatever comes in
_TYPED_QDQ_OPSET = 19  # the first whose QuantizeLinear takes half


def score_nodes(graph: GraphProto) -> frozenset[str]:
    """Names of the nodes of every attention from query times key to softmax: what is added to `mask`, and the rest."""
    makers = {name: node for node in graph.node for name in node.output}
    masked = [node for node in graph.node if node.op_type == "Add" and "mask" in node.input]
    products = [makers[name] for node in masked for name in node.input if name != "mask"]
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    return frozenset(node.name for node in (*masked, *products, *softmaxes))


def exact_nodes(graph: GraphProto) -> frozenset[str]:
    """Names of the nodes that compute in float32: attention from scores to softmax, the choice, and what CTC says.

    What is not allowed is far below what half precision holds. CTC multiplies probabilities of many columns, as far
    below: exact is all between its last product with weights and what a step or the next one reads.
    """
    weights = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = [value.name for value in graph.output if value.name.startswith("ctc_")]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in found or (node.op_type in _PRODUCTS and not weights.isdisjoint(node.input)):
            continue
        found.add(node.name)
        waiting += node.input
    return score_nodes(graph) | _choosing_nodes(graph) | found


def _choosing_nodes(graph: GraphProto) -> frozenset[str]:
    """Names of the nodes from what is allowed to the id that is chosen, and to its probability."""
    reached, found = {ALLOWED}, set()
    for node in graph.node:
        if node.op_type != "Cast" and not reached.isdisjoint(node.input):
            reached.update(node.output)
            found.add(node.name)
    return frozenset(found)


def _summed(graph: GraphProto) -> frozenset[str]:
    """Names of the nodes whose results are summed up: products of matrices, written as what they are."""
    terms = {node.input[0] for node in graph.node if node.op_type == "ReduceSum"}
    return frozenset(node.name for node in graph.node if not terms.isdisjoint(node.output))


def to_half(model: ModelProto, half_ends: Iterable[str]) -> ModelProto:
    """A copy whose types say what runs in which precision.

    Args:
        model: float32, without Constant nodes, with or without Q/DQ nodes (then opset 19 comes out).
        half_ends: names of graph inputs and outputs that become half; the others keep their type.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        copy = onnx.version_converter.convert_version(model, _TYPED_QDQ_OPSET)
    else:
        copy = copy_model(model)
    typist = _Typist(copy, frozenset(half_ends))
    nodes = [new for node in copy.graph.node for new in typist.typed(node)]
    nodes += typist.casts_at_the_end(nodes)
    set_nodes(copy.graph, nodes)
    del copy.graph.value_info[:]
    drop_unread_weights(copy.graph)
    return copy


class _Typist:
    """Walks a graph in order and decides node by node."""

    def __init__(self, model: ModelProto, half_ends: frozenset[str]) -> None:
        self._graph, self._half_ends = model.graph, half_ends
        self._exact = exact_nodes(model.graph) | _summed(model.graph)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._floats = _float_tensors(model)
        self._half: set[str] = set()  # tensors that are half as they stand
        self._twins: dict[tuple[str, bool], str] = {}  # (tensor, half?) -> its copy of the other type
        self._set_types(model.graph.input)
        self._half.update(value.name for value in model.graph.input if value.name in half_ends)

    def typed(self, node: NodeProto) -> Iterator[NodeProto]:
        """The node with inputs of its type, and the casts which that needs."""
        half = self._is_half(node)
        for index, name in enumerate(node.input):
            if name in self._floats and (name in self._half) != half:
                node.input[index] = yield from self._twin(name, half)
        if half:
            self._half.update(name for name in node.output if name in self._floats)
        yield node

    def casts_at_the_end(self, nodes: Iterable[NodeProto]) -> list[NodeProto]:
        """For the graph's outputs that were computed in the other type; these get another name inside."""
        wrong = {
            value.name: f"{value.name}/inner"
            for value in self._graph.output
            if value.name in self._floats and (value.name in self._half) != (value.name in self._half_ends)
        }
        for node in nodes:
            for names in (node.input, node.output):
                names[:] = [wrong.get(name, name) for name in names]
        self._set_types(self._graph.output)
        return [_cast(inner, name, name in self._half_ends) for name, inner in wrong.items()]

    def _is_half(self, node: NodeProto) -> bool:
        floats = [name for name in node.input if name in self._floats]
        if not floats or node.name in self._exact or node.op_type in _EXACT:
            return False
        computed = [name for name in floats if name not in self._weights]
        return node.op_type in _PRODUCTS or not computed or not self._half.isdisjoint(computed)

    def _twin(self, name: str, half: bool) -> Generator[NodeProto, None, str]:
        """Name of the tensor in the other type; yields a cast when there is none yet."""
        if (name, half) in self._twins:
            return self._twins[name, half]
        twin = self._twins[name, half] = f"{name}/{'half' if half else 'float'}"
        if name in self._weights:
            array = numpy_helper.to_array(self._weights[name]).astype(np.float16)  # weights are float32 as they come
            self._graph.initializer.append(numpy_helper.from_array(array, twin))
        else:
            yield _cast(name, twin, half)
        return twin

    def _set_types(self, values: Iterable[onnx.ValueInfoProto]) -> None:
        for value in values:
            if value.name in self._half_ends:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16


def _float_tensors(model: ModelProto) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {name for name, kind in kinds.items() if kind == TensorProto.FLOAT}


def _cast(source: str, target: str, half: bool) -> NodeProto:
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    return helper.make_node("Cast", [source], [target], f"{target}/cast", to=kind)
