"""The graph contract in ONNX: an encoder traced from PyTorch, and the decoding loop written out.

Between the two lie tensors with fixed names: `keys`, `values`, `mask`, `position`. TensorRT gets an engine for each.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from robustscanner.errors import RobustScannerError
from robustscanner.session import COLUMNS, STEP_LOGITS
from training.checkpoint import load_checkpoint, load_ranges
from training.model.robustscanner import RobustScanner

from .model_file import file_step, prepare_output, save_model, with_metadata
from .session import open_on_cpu
from .step import (
    ALLOWED,
    CTC_RECURRENT,
    RECURRENT,
    collect_logits,
    ctc_constants,
    loop_body,
    memory_types,
    split_sizes,
)

OPSET = 17  # the newest that TensorRT 8.5 and 8.6 read


class ExportError(RobustScannerError):
    """A graph that could not be made, or does not compute what the model does."""


class _Encoder(nn.Module):
    """Pixels to the decoder's memory, all of it independent of the text."""

    def __init__(self, model: RobustScanner, fold_values: bool) -> None:
        super().__init__()
        self.model, self.fold_values = model, fold_values

    def forward(self, images: Tensor, valid_width: Tensor) -> tuple[Tensor, ...]:
        seen = self.model.see(images)
        memory = self.model.remember(seen, valid_width, self.model.spec.network.max_length)
        values = memory.values
        if self.fold_values:  # W · Σ aᵢvᵢ = Σ aᵢ(W · vᵢ)
            values = values @ self.model.decoder.fusion.weight[:, : values.shape[2]].T  # (N, P, 2C)
        named = (memory.keys, values, memory.mask, memory.position)
        ctc = self.model.align(self.model.columns(seen, memory))
        return named if ctc is None else (*named, *ctc)


def export(checkpoint: Path, output: Path, *, fold_values: bool, force: bool) -> float:
    """Load, build, simplify, compare, save.

    Returns:
        the largest difference of a score from PyTorch's.

    Raises:
        RobustScannerError: a checkpoint that cannot be used, an existing output, or a graph that reads differently.
    """
    prepare_output(output, force=force)
    model, history = load_checkpoint(checkpoint)
    graph = simplify(build_graph(model, fold_values=fold_values))
    offer_constraint(graph)
    difference = compare(graph, model)
    step = file_step("export", "convert/export_onnx.py", checkpoint) | {"fold_values": fold_values}
    step["largest_score_difference"] = difference
    graph = with_metadata(graph, model.spec, [*history, step], ranges=load_ranges(checkpoint))
    save_model(graph, output, force=force)
    return difference


def build_graph(model: RobustScanner, *, fold_values: bool) -> onnx.ModelProto:
    """The whole graph, not yet simplified."""
    graph = _trace_encoder(_Encoder(model, fold_values).eval())
    ctc = model.ctc_head is not None
    body, weights = loop_body(fold_values=fold_values, ctc=ctc), _step_weights(model, fold_values)
    charset, size = model.spec.charset, model.spec.network
    start = _constants(
        steps=np.int64(size.max_length),
        going=np.bool_(True),
        start=np.int64(charset.start_id),
        text_axis=np.int64(1),
        state_width=np.int64([size.hidden_size]),
        row_width=np.int64([size.max_length]),
    )
    loop = onnx.parser.parse_graph(_around_the_loop(ctc=ctc))
    loop_node = next(node for node in loop.node if node.op_type == "Loop")
    loop_node.attribute.append(helper.make_attribute("body", body))
    graph.graph.node.extend(loop.node)
    collect_logits(graph.graph)
    graph.graph.initializer.extend([*start, *weights])
    del graph.graph.output[:]
    for name, kind in (("tokens", TensorProto.INT32), ("scores", TensorProto.FLOAT)):
        graph.graph.output.append(helper.make_tensor_value_info(name, kind, ["batch", size.max_length]))
    for name, free in {STEP_LOGITS: ["steps", "batch"], **({COLUMNS: ["batch", "columns"]} if ctc else {})}.items():
        shape = [*free, charset.class_count]
        graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph.graph.name = "robustscanner"
    return graph


def offer_constraint(graph: onnx.ModelProto) -> None:
    """Makes an input of what is allowed; whoever leaves it out allows everything."""
    default = next(tensor for tensor in graph.graph.initializer if tensor.name == ALLOWED)
    graph.graph.input.append(helper.make_tensor_value_info(ALLOWED, TensorProto.FLOAT, list(default.dims)))


def simplify(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Runs onnx-simplifier and checks the result.

    Raises:
        ExportError: onnx-simplifier failed.
    """
    simplified, valid = onnxsim.simplify(graph)
    if not valid:
        raise ExportError("onnx-simplifier changed what the graph computes; please report this checkpoint")
    onnx.checker.check_model(simplified, full_check=True)
    return simplified


def compare(graph: onnx.ModelProto, model: RobustScanner) -> float:
    """Reads the same noise with ONNX Runtime and PyTorch, in batches of one and of several widths.

    Returns:
        the largest difference of a score.

    Raises:
        ExportError: another token, or scores further apart than float32 rounding explains.
    """
    session = open_on_cpu(graph)
    worst = 0.0
    for batch in (1, 5):
        images, widths = _noise_batch(model, batch)
        logits, tokens = model.greedy(torch.from_numpy(images), torch.from_numpy(widths))
        got, scores = session.run(["tokens", "scores"], {"images": images, "valid_width": widths})
        expected = logits.softmax(-1).amax(-1).numpy()
        for row in range(batch):
            ends = np.flatnonzero(got[row] == model.spec.charset.end_id)
            length = int(ends[0]) + 1 if ends.size else got.shape[1]  # after the end, the graph writes pad
            if not np.array_equal(got[row, :length], tokens[row, :length].numpy()):
                raise ExportError("the ONNX graph reads another text than PyTorch; not written")
            worst = max(worst, float(np.abs(scores[row, :length] - expected[row, :length]).max()))
    if not worst < 1e-3:
        raise ExportError(f"the ONNX graph's scores differ from PyTorch's by {worst:.2g}; not written")
    return worst


def _noise_batch(model: RobustScanner, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Blotches rather than white noise, so that texts differ; uint8 (N, H, W, 3) and widths int32 (N)."""
    size, rng = model.spec.input, np.random.default_rng(batch)
    coarse = rng.integers(0, 256, (batch, size.height_px // 8, size.width_px // 8, 3), np.uint8)
    images = np.ascontiguousarray(coarse.repeat(8, 1).repeat(8, 2))
    choices = np.arange(size.min_width_px, size.width_px + 1, size.width_multiple_px)
    widths = rng.choice(choices, batch).astype(np.int32)
    for image, width in zip(images, widths, strict=True):
        image[:, width:] = 0
    return images, widths


def _trace_encoder(encoder: _Encoder) -> onnx.ModelProto:
    size = encoder.model.spec.input
    example = (
        torch.zeros(2, size.height_px, size.width_px, 3, dtype=torch.uint8),
        torch.tensor([160, 80], dtype=torch.int32),
    )
    file = io.BytesIO()
    memory = list(memory_types(ctc=encoder.model.ctc_head is not None))
    axes = {name: {0: "batch"} for name in ["images", "valid_width", *memory]}
    if size.canvas_step_px:  # the width is open
        axes["images"][2] = "width"
        for name, axis in _WIDTH_AXES.items():
            axes.setdefault(name, {}).update(axis)
    with warnings.catch_warnings():
        # The newer exporter begins at opset 18, which TensorRT 8 cannot read. The LSTM warning is about traced states:
        # ours are computed from the batch size inside the graph, and `compare` runs two batch sizes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder,
            example,
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["images", "valid_width"],
            output_names=memory,
            dynamic_axes={name: axis for name, axis in axes.items() if name in ("images", "valid_width", *memory)},
        )
    return onnx.load_from_string(file.getvalue())


# What depends on the width of the canvas: axes of the memory.
_WIDTH_AXES = {
    "keys": {2: "places"},
    "values": {1: "places"},
    "mask": {2: "places"},
    "ctc_following": {1: "columns"},
    "ctc_sums": {2: "columns"},
    "ctc_stays": {1: "columns", 2: "columns"},
    "ctc_order": {1: "columns", 2: "columns"},
}


# The state begins at zero, the text with the start token. The loop carries buffers of [N, T]: scan outputs would be
# shorter, but not every one of TensorRT 8 to 11 and ONNX Runtime can leave a loop early with them. A row that has ended
# goes on writing while others are read; that is overwritten once, after the loop.
_AROUND_THE_LOOP = """
around () => (int32[batch, T] tokens, float[batch, T] scores) {
  batch_size = Shape <start = 0, end = 1> (valid_width)
  start_token = Expand (start, batch_size)
  all_running = ConstantOfShape <value = int32[1] {1}> (batch_size)
  state_shape = Concat <axis = 0> (batch_size, state_width)
  zeros = ConstantOfShape <value = float[1] {0.0}> (state_shape)
  text_shape = Concat <axis = 0> (batch_size, row_width)
  no_tokens = Expand (pad, text_shape)
  no_scores = ConstantOfShape <value = float[1] {1.0}> (text_shape)
CTC_START
  last_token, last_running, LAST, said, sureness =
    Loop (steps, going, start_token, all_running, FIRST, no_tokens, no_scores)
  is_end = Equal (said, end)
  end_count = Cast <to = 6> (is_end)
  ends_before = CumSum <exclusive = 1> (end_count, text_axis)
  is_over = Cast <to = 9> (ends_before)
  said_until_end = Where (is_over, pad, said)
  tokens = Cast <to = 6> (said_until_end)
  scores = Where (is_over, certain, sureness)
}
"""


_CTC_START = """
  ctc_start = Gather <axis = 1> (ctc_stays, ctc_first)
  ctc_start_ends = Mul (ctc_start, ctc_start_signs)
  signs_shape = Concat <axis = 0> (batch_size, ctc_signs_size)
  ctc_first_signs = Expand (ctc_start_signs, signs_shape)
"""


def _around_the_loop(*, ctc: bool) -> str:
    first = {**dict.fromkeys(RECURRENT, "zeros"), "ctc_ends": "ctc_start_ends", "ctc_signs": "ctc_first_signs"}
    carried = [*RECURRENT, *(CTC_RECURRENT if ctc else ())]
    return (
        _AROUND_THE_LOOP.replace("CTC_START\n", _CTC_START if ctc else "")
        .replace("LAST", ", ".join(f"last_{name}" for name in carried))
        .replace("FIRST", ", ".join(first[name] for name in carried))
    )


def _step_weights(model: RobustScanner, fold_values: bool) -> list[TensorProto]:
    decoder, charset, steps = model.decoder, model.spec.charset, model.spec.network.max_length
    rnn, hidden = decoder.rnn, model.spec.network.hidden_size
    channels = decoder.prediction.in_features
    with torch.no_grad():
        first = decoder.embedding.weight @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0
        weights = {
            "table": _gates_in_order(first),
            "hidden0": _gates_in_order(rnn.weight_hh_l0.T),
            "hidden1": _gates_in_order(torch.cat([rnn.weight_ih_l1.T, rnn.weight_hh_l1.T])),
            "bias1": _gates_in_order(rnn.bias_ih_l1 + rnn.bias_hh_l1),
            "classifier": (1 - model.spec.network.ctc_weight) * decoder.prediction.weight.T,
            "classifier_bias": (1 - model.spec.network.ctc_weight) * decoder.prediction.bias,
        }
        if not fold_values:
            weights["fusion"] = decoder.fusion.weight[:, :channels].T
    return _constants(
        **{name: weight.detach().contiguous().numpy() for name, weight in weights.items()},
        **split_sizes(hidden, channels),
        columns=np.arange(steps, dtype=np.int64)[None],
        pad=np.int64(charset.pad_id),
        end=np.int64(charset.end_id),
        certain=np.float32(1),
        stopped=np.int32(0),
        **{ALLOWED: np.zeros((steps, charset.class_count), np.float32)},
        **(_ctc_weights(model) if model.ctc_head else {}),
    )


def _ctc_weights(model: RobustScanner) -> dict[str, np.ndarray]:
    constants = ctc_constants(model.spec.charset.class_count, model.spec.network.ctc_weight, np.int64)
    return {**constants, "ctc_first": np.int64([0]), "ctc_signs_size": np.int64([2, model.spec.charset.class_count])}


def _gates_in_order(weight: Tensor) -> Tensor:
    """Columns from PyTorch's input, forget, cell, output to input, forget, output, cell."""
    into, forget, cell, out = weight.chunk(4, -1)
    return torch.cat([into, forget, out, cell], -1)


def _constants(**arrays: np.ndarray | np.generic) -> list[TensorProto]:
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
