"""The decoding step: one character for every word, written once for both graphs that hold it.

ONNX Runtime runs it as the body of a Loop, where every node costs microseconds, whatever it computes: there are as few
as possible. TensorRT runs it as a graph of its own, launched again and again: three dimensions throughout, no
reshaping, and each state tensor `X` comes out as `X_next`, so that a runtime repeats it by swapping two buffers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper

from robustscanner.errors import EngineError
from robustscanner.session import STEP_LOGITS

# N words, T characters at most, P positions of the feature map, D hidden size, F twice the channels of a glimpse,
# K classes, U columns that CTC reads, the one before the picture included.
MEMORY = {  # what the encoder hands to every step
    "keys": "float[N, D, P]",
    "values": "float[N, P, F]",
    "mask": "float[N, 1, P]",
    "position": "float[N, T, F]",
}
RECURRENT = dict.fromkeys(("h0", "c0", "h1", "c1"), "float[N, D]")  # outputs and cells of both LSTM layers
STATE = {  # what a step changes
    "tokens": "int32[N, T]",
    "scores": "float[N, T]",
    "step": "int32[1]",
    "token": "int32[N]",
    "running": "int32[N]",
    **RECURRENT,
}
# Where CTC has a say, see training/model/joint.py.
CTC_MEMORY = {
    "ctc_following": "float[N, U, K]",  # what the next column says; the last row says that the word ends
    "ctc_sums": "float[N, K, U]",  # sums of logarithms of what the columns say
    "ctc_stays": "float[N, U, U]",  # [r, t]: the probability that columns r + 1 … t say nothing
    "ctc_order": "float[N, U, U]",  # [r, t]: 0 where r < t, else a large negative number
}
CTC_RECURRENT = {  # the prefix so far, as training/model/joint.py keeps it
    "ctc_ends": "float[N, 2, U]",
    "ctc_signs": "float[N, 2, K]",
}
# Weights are transposed for x · W. `table` is the embedding already multiplied into the first LSTM layer, biases
# included. Gates lie in the order input, forget, output, cell, so that one sigmoid covers three. Where CTC has a
# say, the classifier is already multiplied by attention's weight in the choice.
TRAINED = ("table", "hidden0", "hidden1", "bias1", "classifier", "classifier_bias")


def memory_types(*, ctc: bool) -> dict[str, str]:
    """What the encoder hands to every step, types by name."""
    return {**MEMORY, **(CTC_MEMORY if ctc else {})}


def memory_names(graph: GraphProto) -> list[str]:
    """Those of a whole graph's memory; where CTC has a say, what only it reads as well."""
    made = {name for node in graph.node for name in node.output}
    return list(memory_types(ctc=not made.isdisjoint(CTC_MEMORY)))


def state_types(*, ctc: bool) -> dict[str, str]:
    """What a step changes, types by name; the recurrent ones begin at zero."""
    return {**STATE, **(CTC_RECURRENT if ctc else {})}


def _carried_types(*, ctc: bool) -> dict[str, str]:
    """What the Loop carries: tokens as ONNX's ArgMax gives them."""
    recurrent = {**RECURRENT, **(CTC_RECURRENT if ctc else {})}
    text = {"tokens": "int64[N, T]", "scores": "float[N, T]"}
    return {"token": "int64[N]", "running": "int32[N]", **recurrent, **text}


# An input of the step and an optional one of the whole graph, float[T, K], alike for all words: added to what a
# character is chosen by, so 0 allows it and a large negative number does not. It does not count in probabilities: they
# say how much was forced.
ALLOWED = "allowed"

CTC_DOUBT, CTC_TINY = 1e-6, 1e-30  # as training/model/joint.py

_STEP = """
  embedded = Gather (table, {token})
  {gates0}{cell0}
  both = Concat <axis = -1> ({h0_after}, {h1})
  {gates1}{cell1}
  query = Unsqueeze ({h1_after}, axis1)
  similarity = MatMul (query, keys)
  masked = Add (similarity, mask)
  attention = Softmax <axis = -1> (masked)
  glimpse = MatMul (attention, values)
  {fuse}
  content, gate = Split <axis = -1> (fused, glu_split)
  gate_open = Sigmoid (gate)
  gated = Mul (content, gate_open)
  {classify}
  {join}
  probabilities = Softmax <axis = -1> (logits)
  {choose}
  {extend}
"""

# CTC's distribution of the next character, multiplied with attention's.
_JOIN = """
  {start}
  ctc_followed = MatMul (ctc_ends_here, ctc_following)
  ctc_signed = Mul (ctc_followed, ctc_signs_here)
  ctc_sum = ReduceSum <keepdims = {keep}> (ctc_signed, axis1)
  ctc_likely = Max (ctc_sum, ctc_doubt)
  ctc_log = Log (ctc_likely)
  ctc_weighed = Mul (ctc_log, ctc_weight)
  logits = Add (attention_logits, ctc_weighed)
"""

# The prefix with the chosen character at its end.
_EXTEND = """
  said_column = Unsqueeze ({token_after}, ctc_axes)
  last_column = Unsqueeze ({token}, ctc_axes)
  is_again = Equal (said_column, last_column)
  ctc_turn = Where (is_again, ctc_again, ctc_any)
  ctc_before = MatMul (ctc_turn, ctc_ends_here)
  is_said = Equal (classes, said_column)
  {ctc_signs_after} = Where (is_said, ctc_own_signs, ctc_start_signs)
  said_row = Cast <to = 1> (is_said)
  said_sums = MatMul (said_row, ctc_sums)
  said_sums_column = Transpose <perm = [0, 2, 1]> (said_sums)
  said_logs = Sub (said_sums, said_sums_column)
  said_ordered = Add (said_logs, ctc_order)
  said_paths = Exp (said_ordered)
  ctc_label = MatMul (ctc_before, said_paths)
  ctc_both = MatMul (ctc_label, ctc_stays)
  ctc_largest = ReduceMax <axes = [-1]> (ctc_both)
  ctc_scale = Max (ctc_largest, ctc_tiny)
  ctc_ends_new = Concat <axis = 1> (ctc_both, ctc_label)
  {ctc_ends_after} = Div (ctc_ends_new, ctc_scale)
"""

_CELL = """
  open{n}, new{n} = Split <axis = -1> (gates{n}, gate_split)
  open{n}s = Sigmoid (open{n})
  new{n}t = Tanh (new{n})
  in{n}, forget{n}, out{n} = Split <axis = -1> (open{n}s, open_split)
  kept{n} = Mul (forget{n}, {c})
  added{n} = Mul (in{n}, new{n}t)
  {c_after} = Add (kept{n}, added{n})
  c{n}t = Tanh ({c_after})
  {h_after} = Mul (out{n}, c{n}t)
"""


@dataclass(frozen=True)
class _Dialect:
    """How one of the two graphs writes what both compute."""

    before: str  # name of a state tensor as a step finds it
    after: str  # and as it leaves it
    linear: str  # a matrix product and a sum
    fuse: str
    choose: str  # the most likely character, and what follows from it
    start: str  # CTC's state as the step uses it
    keep: int  # dimensions of CTC's share of the logits: 1 for all three

    def write(self, inputs: Mapping[str, str], outputs: Mapping[str, str], *, ctc: bool) -> GraphProto:
        """The graph; inputs and outputs are types by name."""
        state = state_types(ctc=True)
        names = {name: self.before.format(name) for name in state}
        names |= {f"{name}_after": self.after.format(name) for name in state}
        logits = "attention_logits" if ctc else "logits"
        body = _STEP.format(
            **names,
            join=_JOIN.format(start=self.start.format(**names), keep=self.keep) if ctc else "",
            extend=_EXTEND.format(**names) if ctc else "",
            gates0=self._linear("gates0", "recalled0", names["h0"], "hidden0", "embedded"),
            gates1=self._linear("gates1", "recalled1", "both", "hidden1", "bias1"),
            classify=self._linear(logits, "classified", "gated", "classifier", "classifier_bias"),
            cell0=_cell(0, names),
            cell1=_cell(1, names),
            fuse=self.fuse,
            choose=self.choose,
        )
        return onnx.parser.parse_graph(f"step ({_typed(inputs)}) => ({_typed(outputs)}) {{{body}}}")

    def _linear(self, result: str, product: str, x: str, weight: str, bias: str) -> str:
        return self.linear.format(result=result, product=product, x=x, weight=weight, bias=bias)


# TensorRT has a kernel of its own for ArgMax; the lowest of the ids with the highest number is fused with what stands
# around. Numbers that are none choose the last id; the score says so.
_LAUNCHED = _Dialect(
    before="{}",
    after="{}_next",
    linear="{product} = MatMul ({x}, {weight})\n  {result} = Add ({product}, {bias})",
    fuse="""
  here = Gather <axis = 1> (position, step)
  fused = Add (glimpse, here)
""",
    choose="""
  allowed_here = Gather <axis = 0> (allowed, step)
  open_logits = Add (logits, allowed_here)
  highest = ReduceMax <axes = [-1], keepdims = 1> (open_logits)
  is_highest = Equal (open_logits, highest)
  candidates = Where (is_highest, ids, last_id)
  best = ReduceMin <axes = [-1], keepdims = 0> (candidates)
  said = Cast <to = 6> (best)
  open_probabilities = Add (probabilities, allowed_here)
  certainty = ReduceMax <axes = [-1], keepdims = 0> (open_probabilities)

  is_here = Equal (columns, step)
  was_running = Unsqueeze (running, axis1)
  runs = Cast <to = 9> (was_running)
  said_until_end = Where (runs, said, pad)
  sure_until_end = Where (runs, certainty, certain)
  tokens_next = Where (is_here, said_until_end, tokens)
  scores_next = Where (is_here, sure_until_end, scores)
  token_next = Squeeze (said, axis1)
  ends_now = Equal (token_next, end)
  running_next = Where (ends_now, stopped, running)
  running_float = Cast <to = 1> (running_next)
  any_running = ReduceMax <axes = [0], keepdims = 1> (running_float)
  going = Cast <to = 6> (any_running)
  step_next = Add (step, one)
""",
    start="""
  is_first = Equal (step, ctc_first)
  ctc_start = Gather <axis = 1> (ctc_stays, ctc_first)
  ctc_start_ends = Mul (ctc_start, ctc_start_signs)
  ctc_ends_here = Where (is_first, ctc_start_ends, {ctc_ends})
  ctc_signs_here = Where (is_first, ctc_start_signs, {ctc_signs})
""",
    keep=1,
)

_LOOPED = _Dialect(
    before="{}_in",
    after="{}_out",
    linear="{result} = Gemm ({x}, {weight}, {bias})",
    fuse="""
  glimpse_row = Squeeze (glimpse, axis1)
  here = Gather <axis = 1> (position, t)
  fused = Gemm (glimpse_row, fusion, here)
""",
    choose="""
  allowed_here = Gather <axis = 0> (allowed, t)
  open_logits = Add (logits, allowed_here)
  best = ArgMax <axis = -1> (open_logits)
  certainty = GatherElements <axis = -1> (probabilities, best)

  is_here = Equal (columns, t)
  tokens_out = Where (is_here, best, tokens_in)
  scores_out = Where (is_here, certainty, scores_in)
  token_out = Squeeze (best, axis1)
  ends_now = Equal (token_out, end)
  running_out = Where (ends_now, stopped, running_in)
  any_running = ReduceMax <keepdims = 0> (running_out)
  going_out = Cast <to = 9> (any_running)
""",
    start="""
  ctc_ends_here = Identity ({ctc_ends})
  ctc_signs_here = Identity ({ctc_signs})
""",
    keep=0,
)


def launched_step(*, ctc: bool) -> GraphProto:
    """Memory, ALLOWED, state -> each of the state with `_next`; `going`, 1 while any word runs; values are folded."""
    memory, state = memory_types(ctc=ctc) | {ALLOWED: "float[T, K]"}, state_types(ctc=ctc)
    return _LAUNCHED.write({**memory, **state}, {**_named("{}_next", state), "going": "int32[1]"}, ctc=ctc)


def loop_body(*, fold_values: bool, ctc: bool) -> GraphProto:
    """The body of a Loop around the step; it reads MEMORY and the weights from the graph outside.

    Args:
        fold_values: values arrive multiplied by the fusion layer's weights.
        ctc: CTC has a say.
    """
    carried = _carried_types(ctc=ctc)
    body = _LOOPED.write(
        {"t": "int64", "going_in": "bool", **_named("{}_in", carried)},
        {"going_out": "bool", **_named("{}_out", carried)},
        ctc=ctc,
    )
    if fold_values:
        fuse = next(node for node in body.node if "fused" in node.output)
        fuse.op_type = "Add"
        fuse.input.remove("fusion")
    return body


def collect_logits(graph: GraphProto) -> None:
    """Has the Loop of a whole graph collect STEP_LOGITS, float[steps, N, K], if it does not yet.

    Raises:
        EngineError: the graph has no such loop.
    """
    loops = [node for node in graph.node if node.op_type == "Loop"]
    bodies = [attribute.g for node in loops for attribute in node.attribute if attribute.name == "body"]
    if len(bodies) != 1 or not any("logits" in node.output for node in bodies[0].node):
        raise EngineError("the graph has no decoding loop with logits; export the model again with export_onnx.py")
    if STEP_LOGITS not in loops[0].output:
        bodies[0].output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, None))
        loops[0].output.append(STEP_LOGITS)


def split_sizes(hidden: int, channels: int) -> dict[str, Any]:
    """Constants that say how gates and the fusion layer's output are divided, int64."""
    sizes = {"gate_split": [3 * hidden, hidden], "open_split": [hidden] * 3, "glu_split": [channels] * 2, "axis1": [1]}
    return {name: np.array(size, np.int64) for name, size in sizes.items()}


def ctc_constants(classes: int, weight: float, token: type[np.signedinteger[Any]]) -> dict[str, Any]:
    """Constants of a step in which CTC has a say; `token` is the type that its tokens have."""
    signs = {"ctc_start_signs": [1, 0], "ctc_own_signs": [1, -1]}
    turns = {"ctc_any": [1, 0], "ctc_again": [1, -1]}
    return {
        "classes": np.arange(classes, dtype=token)[None, None],  # (1, 1, K)
        "ctc_axes": np.array([1, 2], np.int64),
        "ctc_tiny": np.float32(CTC_TINY),
        "ctc_doubt": np.float32(CTC_DOUBT),
        "ctc_weight": np.float32(weight),
        **{name: np.array(values, np.float32)[None, :, None] for name, values in signs.items()},  # (1, 2, 1)
        **{name: np.array(values, np.float32)[None, None] for name, values in turns.items()},  # (1, 1, 2)
    }


def _cell(layer: int, names: Mapping[str, str]) -> str:
    """The LSTM's gates to its cell and output."""
    own = {key: names[f"{key[0]}{layer}{key[1:]}"] for key in ("c", "c_after", "h_after")}
    return _CELL.format(n=layer, **own)


def _named(pattern: str, types: Mapping[str, str]) -> dict[str, str]:
    return {pattern.format(name): kind for name, kind in types.items()}


def _typed(types: Mapping[str, str]) -> str:
    return ", ".join(f"{kind} {name}" for name, kind in types.items())
