"""The graph for ONNX Runtime on a CPU: nearly the same arithmetic as the exported one, in fewer and cheaper nodes.

The exported graph follows the PyTorch model, as TensorRT wants it. This one does not turn layouts back and forth, does
not compute columns that no word reaches, and moves out of the decoding loop what the next step does not need.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from robustscanner.errors import EngineError
from robustscanner.session import STEP_LOGITS
from robustscanner.spec import ModelSpec

from ...graph.edit import (
    CONTRIB,
    copy_model,
    drop_dead_nodes,
    drop_unread_weights,
    inline_constants,
    set_nodes,
    use_contrib,
)
from ...graph.step import ALLOWED, collect_logits

Array = npt.NDArray[np.generic]
Arrays = dict[str, Array]

PREFIX = "cpu"  # of the names of new nodes and tensors

_MARGIN_PX = 16  # columns kept to the right of the widest word
_MASKED = np.float32(-1e30)  # what the exported graph adds to attention scores to the right of a word

_EXPORT_AGAIN = "export the model again with convert/export_onnx.py"

# `edge` models are trained on canvases that end with the widest word of a batch: they never saw what is cut off here.
# The last columns of a word also see a little of the black to their right, and that decides close calls. With a margin
# of 16 pixels, 677 of 684 held-out training crops read as on the whole canvas; without one, 625. As many are right.
_TRIM = """
trim (uint8[N, A, B, 3] images, int32[N] valid_width) => (uint8[N, A, E, 3] trimmed, int32[1, W] centres) {
  widest = ReduceMax <keepdims = 1> (valid_width)
  beyond = Add (widest, margin)
  columns = Div (beyond, column)
  right = Mul (columns, column)
  trimmed = Slice (images, begin, right, across)
  centres = Slice (all_centres, begin, columns, along)
}
"""

# From the backbone's feature map to what the decoder reads; positions are rows of every matrix. The mixer's second
# layer is linear, and its output is only multiplied by constant queries. So the queries are multiplied into its
# weights: it gives scores (T channels) instead of keys (D channels). Probabilities below 1e-20 become zero: products
# with them would be denormal numbers, which take a CPU ten times as long.
_TAIL = """
tail (float[N, C, H, W] feature_map, int32[N] valid_width, int32[1, W] centres)
  => (float[N, P, C] features, float[N, D, P] keys, float[N, 1, P] mask, float[N, T, F] position) {
  by_row = Transpose <perm = [0, 2, 3, 1]> (feature_map)
  features = Reshape (by_row, feature_shape)
  projected = MatMul (features, encoder_weight)
  encoded = Add (projected, encoder_bias)
  keys = Transpose <perm = [0, 2, 1]> (encoded)

  width_column = Unsqueeze (valid_width, second)
  is_outside = Greater (centres, width_column)
  closed = Where (is_outside, masked_score, open_score)
  closed_row = Unsqueeze (closed, second)
  mask = Tile (closed_row, row_repeats)

  grid = Reshape (encoded, grid_shape)
  by_column = Transpose <perm = [2, 0, 1, 3]> (grid)
  sequence = Reshape (by_column, sequence_shape)
  lower, lower_h, lower_c = LSTM <hidden_size = HIDDEN> (sequence, lower_into, lower_again, lower_bias)
  lower_sequence = Squeeze (lower, second)
  upper, upper_h, upper_c = LSTM <hidden_size = HIDDEN> (lower_sequence, upper_into, upper_again, upper_bias)
  columns_apart = Reshape (upper, columns_shape)
  placed = Transpose <perm = [1, 3, 2, 0]> (columns_apart)
  mixed = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (placed, mixer_weight, mixer_bias)
  mixed_open = Relu (mixed)
  similarity_map = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (mixed_open, query_weight, query_bias)
  similarity = Reshape (similarity_map, similarity_shape)
  similarity_masked = Add (similarity, mask)
  attention_soft = Softmax <axis = -1> (similarity_masked)
  attention = ThresholdedRelu <alpha = 1e-20> (attention_soft)
  glimpses = MatMul (attention, features)
  share = MatMul (glimpses, share_weight)
  position = Add (share, share_bias)
}
"""

# After the loop, which gives the logits (S, N, K) of the steps that ran: fewer than T once every word has ended.
_AFTER_THE_LOOP = """
after (float[S, N, K] step_logits) => (int32[N, T] tokens, float[N, T] scores) {
  probabilities = Softmax <axis = -1> (step_logits)
  steps_run = Shape <end = 1> (step_logits)
  allowed_steps = Slice (allowed, first_step, steps_run)
  allowed_words = Unsqueeze (allowed_steps, word_axis)
  open_logits = Add (step_logits, allowed_words)
  best = ArgMax <axis = -1> (open_logits)
  certainty_column = GatherElements <axis = -1> (probabilities, best)
  certainty = Squeeze (certainty_column, class_axis)
  said = Squeeze (best, class_axis)
  is_end = Equal (said, end_id)
  end_count = Cast <to = 6> (is_end)
  ends_before = CumSum <exclusive = 1> (end_count, step_axis)
  is_over = Cast <to = 9> (ends_before)
  said_until_end = Where (is_over, pad_id, said)
  sure_until_end = Where (is_over, sure, certainty)
  steps_left = Sub (all_steps, steps_run)
  padding = Concat <axis = 0> (no_padding, steps_left, no_word)
  padded_said = Pad (said_until_end, padding, pad_id)
  padded_sure = Pad (sure_until_end, padding, sure)
  said_by_word = Transpose <perm = [1, 0]> (padded_said)
  tokens = Cast <to = 6> (said_by_word)
  scores = Transpose <perm = [1, 0]> (padded_sure)
}
"""


def for_cpu(model: ModelProto, spec: ModelSpec) -> ModelProto:
    """A copy of a whole float graph, equal up to rounding; of `edge`, without columns beyond the widest word.

    Raises:
        EngineError: the graph is not built as this kit's exports are.
    """
    copy = copy_model(model)
    if spec.network.row_mixer == "lstm":
        _replace_tail(copy.graph, _Parts.of(copy.graph), _weights_of(copy.graph), spec)
        del copy.graph.value_info[:]  # widths are open now
    if any(node.op_type == "Erf" for node in copy.graph.node):
        inline_constants(copy.graph)
        _fuse_gelu(copy, _weights_of(copy.graph))
    if not any(tensor.name == ALLOWED for tensor in copy.graph.initializer):  # of an older export
        everything = np.zeros((spec.network.max_length, spec.charset.class_count), np.float32)
        copy.graph.initializer.append(numpy_helper.from_array(everything, ALLOWED))
    _shorten_loop(copy.graph, spec)
    drop_dead_nodes(copy.graph)
    return onnx.shape_inference.infer_shapes(copy)


def _weights_of(graph: GraphProto) -> Arrays:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@dataclass(frozen=True)
class _Parts:
    """The nodes of an export that matter here, found by walking from what the loop reads back to the feature map."""

    encoder: NodeProto  # Conv: feature map to keys
    lower: NodeProto  # LSTM
    upper: NodeProto  # LSTM
    grid: NodeProto  # Reshape of the upper layer's output to (W, N, H, D)
    mixer: NodeProto  # Conv
    last_mixer: NodeProto  # Conv
    queries: NodeProto  # MatMul of constant queries with the keys of the position branch
    glimpses: NodeProto  # MatMul of attention and features
    share: NodeProto  # MatMul with the position branch's part of the fusion layer
    bias: NodeProto  # Add, which gives `position`

    @classmethod
    def of(cls, graph: GraphProto) -> "_Parts":
        """Raises `EngineError` where a node is of another kind than it should be."""
        makers = {name: node for node in graph.node for name in node.output}

        def back(node: NodeProto, *kinds: str) -> NodeProto:
            for kind in kinds:
                found = [makers[name] for name in node.input if name in makers and makers[name].op_type == kind]
                if len(found) != 1:
                    raise EngineError(f"the graph has no {kind} where one is expected; {_EXPORT_AGAIN}")
                node = found[0]
            return node

        if "position" not in makers:
            raise EngineError(f"the graph has no tensor 'position'; {_EXPORT_AGAIN}")
        bias = makers["position"]
        share = back(bias, "MatMul")
        glimpses = back(share, "MatMul")
        queries = back(glimpses, "Softmax", "Add", "MatMul")
        last_mixer = back(queries, "Reshape", "Conv")
        mixer = back(last_mixer, "Relu", "Conv")
        grid = back(mixer, "Transpose", "Reshape")
        upper = back(grid, "LSTM")
        lower = back(upper, "Squeeze", "LSTM")
        encoder = back(lower, "Reshape", "Transpose", "Conv")
        return cls(encoder, lower, upper, grid, mixer, last_mixer, queries, glimpses, share, bias)


def _replace_tail(graph: GraphProto, parts: _Parts, weights: Arrays, spec: ModelSpec) -> None:
    """Writes all between the backbone and the loop anew, under the names that the loop reads."""
    columns, height = (int(weights[parts.grid.input[1]][index]) for index in (0, 2))
    hidden, steps, channels = (
        spec.network.hidden_size,
        spec.network.max_length,
        weights[parts.encoder.input[1]].shape[1],
    )
    column_px = spec.input.width_px // columns
    centres = (np.arange(columns, dtype=np.int32) * column_px + column_px // 2)[None]  # (1, W)
    names = {name: name for name in ("valid_width", "keys", "mask", "position")}
    names |= {"feature_map": parts.encoder.input[0], "features": parts.glimpses.input[1]}
    nodes = _write(
        graph,
        _TAIL.replace("HIDDEN", str(hidden)),
        names,
        **_weights(parts, weights),
        feature_shape=[0, -1, channels],
        grid_shape=[0, height, -1, hidden],
        sequence_shape=[0, -1, hidden],
        columns_shape=[0, -1, height, hidden],
        similarity_shape=[0, steps, -1],
        row_repeats=[1, 1, height],
        second=[1],
        masked_score=_MASKED,
        open_score=np.float32(0),
        **({} if _is_trimmed(spec) else {"centres": centres}),
    )
    _keep_names(nodes, parts)
    made = {name for node in nodes for name in node.output}
    kept = [node for node in graph.node if not made.intersection(node.output)]
    place = kept.index(parts.encoder)
    set_nodes(graph, [*kept[:place], *nodes, *kept[place:]])
    if _is_trimmed(spec):
        _trim(graph, centres, column_px)


def _keep_names(nodes: list[NodeProto], parts: _Parts) -> None:
    """Layers keep the names they were exported with: `--exclude` goes by them."""
    known = {
        "projected": parts.encoder,
        "lower": parts.lower,
        "upper": parts.upper,
        "mixed": parts.mixer,
        "similarity_map": parts.last_mixer,
    }
    for node in nodes:
        if exported := known.get(node.name.removeprefix(f"{PREFIX}/")):
            node.name = exported.name


def _is_trimmed(spec: ModelSpec) -> bool:
    """Whether a model is sure to have been trained on trimmed canvases: published `r31` weights were not."""
    return spec.network.backbone == "edge"


def _trim(graph: GraphProto, centres: npt.NDArray[np.int32], column_px: int) -> None:
    constants = {
        "all_centres": centres,
        "column": np.array([column_px], np.int32),
        "margin": np.array([_MARGIN_PX + column_px - 1], np.int32),
        "begin": np.array([0], np.int32),
        "across": np.array([2], np.int32),
        "along": np.array([1], np.int32),
    }
    nodes = _write(graph, _TRIM, {"images": "images", "valid_width": "valid_width"}, **constants)
    for node in graph.node:
        node.input[:] = [f"{PREFIX}/trimmed" if name == "images" else name for name in node.input]
    set_nodes(graph, [*nodes, *graph.node])


def _weights(parts: _Parts, weights: Arrays) -> Arrays:
    """The trained constants of the tail."""
    encoder, encoder_bias = (weights[name] for name in parts.encoder.input[1:3])  # (D, C, 1, 1), (D)
    queries = weights[parts.queries.input[0]][0]  # (T, D)
    mixer, mixer_bias = (weights[name] for name in parts.last_mixer.input[1:3])  # (D, D, 3, 3), (D)
    layers = {"lower": parts.lower, "upper": parts.upper}
    return {
        "encoder_weight": encoder[:, :, 0, 0].T,
        "encoder_bias": encoder_bias,
        **{f"{layer}_into": weights[node.input[1]] for layer, node in layers.items()},
        **{f"{layer}_again": weights[node.input[2]] for layer, node in layers.items()},
        **{f"{layer}_bias": weights[node.input[3]] for layer, node in layers.items()},
        "mixer_weight": weights[parts.mixer.input[1]],
        "mixer_bias": weights[parts.mixer.input[2]],
        "query_weight": np.tensordot(queries, mixer, 1),  # (T, D, 3, 3)
        "query_bias": queries @ mixer_bias,
        "share_weight": next(weights[name] for name in parts.share.input if name in weights),
        "share_bias": next(weights[name] for name in parts.bias.input if name in weights),
    }


def _fuse_gelu(model: ModelProto, weights: Arrays) -> None:
    """One node for GELU (arXiv:1606.08415) instead of four; its factor 1/2 stands in the convolution after it.

    ONNX Runtime would do this, but onnx-simplifier has moved the factor, so that it does not know the shape again.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    nodes = list(graph.node)
    for erf in [node for node in nodes if node.op_type == "Erf"]:
        plus = next(node for node in nodes if erf.output[0] in node.input)
        product = next(node for node in nodes if plus.output[0] in node.input)
        reader = next(node for node in nodes if product.output[0] in node.input)
        scaled = makers[erf.input[0]]
        if (scaled.op_type, plus.op_type, product.op_type, reader.op_type) != ("Div", "Add", "Mul", "Conv"):
            continue
        gelu = helper.make_node("Gelu", [scaled.input[0]], product.output, product.name, domain=CONTRIB)
        nodes = [gelu if node is product else node for node in nodes if node not in (scaled, erf, plus)]
        twice = f"{PREFIX}/{reader.input[1]}"
        graph.initializer.append(numpy_helper.from_array(2 * weights[reader.input[1]], twice))
        reader.input[1] = twice
    set_nodes(graph, nodes)
    drop_unread_weights(graph)
    use_contrib(model)


def _shorten_loop(graph: GraphProto, spec: ModelSpec) -> None:
    """Takes the text out of the loop: it gives the logits of every step, and the rest happens once after it."""
    loop = next(node for node in graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    collect_logits(graph)
    for values in (loop.input, body.input):
        del values[-2:]  # tokens and scores so far
    for values in (loop.output, body.output):
        del values[-3:-1]
    _squeeze_choice(body)
    drop_dead_nodes(body)
    after = _write(
        graph,
        _AFTER_THE_LOOP,
        {name: name for name in (STEP_LOGITS, "tokens", "scores", ALLOWED)},
        end_id=np.int64(spec.charset.end_id),
        pad_id=np.int64(spec.charset.pad_id),
        sure=np.float32(1),
        step_axis=np.int64(0),
        first_step=[0],
        word_axis=[1],
        class_axis=[2],
        all_steps=[spec.network.max_length],
        no_padding=[0, 0],
        no_word=[0],
    )
    place = list(graph.node).index(loop) + 1
    set_nodes(graph, [*list(graph.node)[:place], *after])


def _squeeze_choice(body: GraphProto) -> None:
    """Chooses a token without the dimension that only the text needed."""
    best = next(node for node in body.node if node.op_type == "ArgMax")
    squeeze = next(node for node in body.node if node.op_type == "Squeeze" and node.input[0] == best.output[0])
    best.attribute.append(helper.make_attribute("keepdims", 0))
    best.output[0] = squeeze.output[0]
    body.node.remove(squeeze)


def _write(
    graph: GraphProto, text: str, names: dict[str, str], **constants: Array | np.generic | list[int]
) -> list[NodeProto]:
    """Nodes from ONNX's text, their constants added to the graph; all names get the prefix but those given."""
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), f"{PREFIX}/{name}"))
    nodes = list(onnx.parser.parse_graph(text).node)
    for node in nodes:
        node.input[:] = [names.get(name, f"{PREFIX}/{name}") for name in node.input]
        node.output[:] = [names.get(name, f"{PREFIX}/{name}") for name in node.output]
        node.name = node.output[0]
    return nodes
