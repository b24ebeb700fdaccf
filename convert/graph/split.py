"""One graph into two: the encoder, which runs once a batch, and one decoding step, which TensorRT repeats in place.

All that changes from step to step is an input and an output of the step, so a runtime can repeat it without looking at
any result until all words have ended.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, helper, numpy_helper
from onnx.utils import Extractor

from robustscanner.errors import EngineError
from robustscanner.spec import ModelSpec

from .edit import drop_value_info, inline_constants, set_nodes
from .step import TRAINED, ctc_constants, launched_step, memory_names, split_sizes

_EXPORT_AGAIN = "export the model again with convert/export_onnx.py"
_LOWEST = -3e4  # within half's range, and far below every score
_IR_VERSION = 8  # the newest that TensorRT 8.5's parser knows

Arrays = Mapping[str, npt.NDArray[np.generic]]


def split(model: ModelProto, spec: ModelSpec) -> tuple[ModelProto, ModelProto]:
    """Encoder and decoding step of a whole graph, in float32 and the model's opset.

    Returns:
        the encoder: `images`, `valid_width` -> the memory, see `step.memory_types`; and the step: the memory,
        `step.ALLOWED` and `step.state_types` -> each of the state with `_next`, and `going`, 1 while any row runs.

    Raises:
        EngineError: the graph lacks a tensor or weight that an export of this kit has.
    """
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    encoder = _encoder(model, weights)
    return encoder, _decoder(weights, spec, encoder.graph.output)


def _encoder(model: ModelProto, weights: Arrays) -> ModelProto:
    made = {name for node in model.graph.node for name in node.output}
    memory = memory_names(model.graph)
    if missing := [name for name in memory if name not in made]:
        raise EngineError(f"the graph has no tensor {missing[0]!r} to be split at; {_EXPORT_AGAIN}")
    encoder = Extractor(model).extract_model(["images", "valid_width"], memory)
    encoder.graph.name, encoder.ir_version = "encoder", _IR_VERSION
    encoder.metadata_props.extend(model.metadata_props)
    inline_constants(encoder.graph)
    _cast_pixels_first(encoder.graph)
    _bound_mask(encoder.graph)
    if "fusion" in weights:
        _fold_values(encoder.graph, weights["fusion"])
    return encoder


def _cast_pixels_first(graph: GraphProto) -> None:
    """TensorRT takes bytes as an input only if they are cast at once: Transpose, Cast becomes Cast, Transpose."""
    move, cast = graph.node[0], graph.node[1]
    if move.op_type != "Transpose" or cast.op_type != "Cast" or cast.input[0] != move.output[0]:
        raise EngineError(f"the graph does not begin with Transpose and Cast of its pixels; {_EXPORT_AGAIN}")
    middle, end = move.output[0], cast.output[0]
    cast.input[0], cast.output[0], move.input[0], move.output[0] = move.input[0], middle, middle, end
    set_nodes(graph, [cast, move, *list(graph.node)[2:]])
    drop_value_info(graph, middle)


def _bound_mask(graph: GraphProto) -> None:
    """Replaces -1e30, which is added to scores outside the word, by a number that half precision can hold.

    Weakly typed TensorRT may compute it in half, where -1e30 is -inf, and 0 · -inf is NaN.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for name in _ancestors(graph, "mask") & weights.keys():
        array = numpy_helper.to_array(weights[name])
        if array.dtype == np.float32 and array.min(initial=0) < _LOWEST:
            weights[name].CopyFrom(numpy_helper.from_array(np.maximum(array, np.float32(_LOWEST)), name))


def _ancestors(graph: GraphProto, name: str) -> set[str]:
    """All tensors that one depends on."""
    makers = {output: node for node in graph.node for output in node.output}
    found, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += makers[name].input if name in makers else []
    return found


def _fold_values(graph: GraphProto, fusion: npt.NDArray[np.generic]) -> None:
    """W · Σ aᵢvᵢ = Σ aᵢ(W · vᵢ): one matrix product for all steps instead of a launch in each."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["features" if name == "values" else name for name in names]
    drop_value_info(graph, "values")
    next(value for value in graph.output if value.name == "values").type.tensor_type.shape.dim[
        2
    ].dim_value = fusion.shape[1]
    graph.initializer.append(numpy_helper.from_array(fusion, "fusion"))
    graph.node.append(helper.make_node("MatMul", ["features", "fusion"], ["values"], "values"))


def _decoder(weights: Arrays, spec: ModelSpec, memory: Iterable[onnx.ValueInfoProto]) -> ModelProto:
    charset, steps, hidden = spec.charset, spec.network.max_length, spec.network.hidden_size
    try:
        trained = {name: weights[name] for name in TRAINED}
    except KeyError as error:
        raise EngineError(f"the graph has no weights {error} for the decoder; {_EXPORT_AGAIN}") from None
    channels = trained["classifier"].shape[0]
    constants: dict[str, npt.NDArray[np.generic]] = {
        **split_sizes(hidden, channels),
        "columns": np.arange(steps, dtype=np.int32)[None],
        "ids": np.arange(charset.class_count, dtype=np.float32)[None, None],  # (1, 1, K)
        "last_id": np.full((1, 1, 1), charset.class_count - 1, np.float32),
        "pad": np.array([[charset.pad_id]], np.int32),
        "end": np.array([charset.end_id], np.int32),
        "certain": np.ones((1, 1), np.float32),
        "stopped": np.zeros(1, np.int32),
        "one": np.ones(1, np.int32),
    }
    weight, classes = spec.network.ctc_weight, charset.class_count
    if weight:
        constants |= ctc_constants(classes, weight, np.int32) | {"ctc_first": np.zeros(1, np.int32)}
    graph = launched_step(ctc=weight > 0)
    for node in graph.node:
        node.name = node.output[0]
    sizes = {"D": hidden, "F": 2 * channels, "T": steps, "K": classes}
    if not spec.input.canvas_step_px:
        sizes["P"] = _places(memory)
    for value in [*graph.input, *graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    arrays = {**trained, **constants}
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=_IR_VERSION)


def _places(memory: Iterable[onnx.ValueInfoProto]) -> int:
    """Positions of the feature map: the last dimension of `keys`."""
    places = next(value for value in memory if value.name == "keys").type.tensor_type.shape.dim[2].dim_value
    if not places:
        raise EngineError(f"the graph does not say how large its feature map is; {_EXPORT_AGAIN}")
    return int(places)
