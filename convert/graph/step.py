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
from onnx import GraphProto

# N words, T characters at most, P positions of the feature map, D hidden size, F twice the channels of a glimpse.
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
# Weights are transposed for x · W. `table` is the embedding already multiplied into the first LSTM layer, biases
# included. Gates lie in the order input, forget, output, cell, so that one sigmoid covers three.
TRAINED = ("table", "hidden0", "hidden1", "bias1", "classifier", "classifier_bias")

# Loops carry tokens as ONNX's ArgMax gives them.
_CARRIED = {
    "token": "int64[N]",
    "running": "int32[N]",
    **RECURRENT,
    "tokens": "int64[N, T]",
    "scores": "float[N, T]",
}

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
  probabilities = Softmax <axis = -1> (logits)
  {choose}
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

    def write(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> GraphProto:
        """The graph; inputs and outputs are types by name."""
        names = {name: self.before.format(name) for name in STATE}
        names |= {f"{name}_after": self.after.format(name) for name in STATE}
        body = _STEP.format(
            **names,
            gates0=self._linear("gates0", "recalled0", names["h0"], "hidden0", "embedded"),
            gates1=self._linear("gates1", "recalled1", "both", "hidden1", "bias1"),
            classify=self._linear("logits", "classified", "gated", "classifier", "classifier_bias"),
            cell0=_cell(0, names),
            cell1=_cell(1, names),
            fuse=self.fuse,
            choose=self.choose,
        )
        return onnx.parser.parse_graph(f"step ({_typed(inputs)}) => ({_typed(outputs)}) {{{body}}}")

    def _linear(self, result: str, product: str, x: str, weight: str, bias: str) -> str:
        return self.linear.format(result=result, product=product, x=x, weight=weight, bias=bias)


_LAUNCHED = _Dialect(
    before="{}",
    after="{}_next",
    linear="{product} = MatMul ({x}, {weight})\n  {result} = Add ({product}, {bias})",
    fuse="""
  here = Gather <axis = 1> (position, step)
  fused = Add (glimpse, here)
""",
    choose="""
  best = ArgMax <axis = -1, keepdims = 0> (logits)
  said = Cast <to = 6> (best)
  certainty = ReduceMax <axes = [-1], keepdims = 0> (probabilities)

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
  best = ArgMax <axis = -1> (logits)
  certainty = ReduceMax <axes = [-1]> (probabilities)

  is_here = Equal (columns, t)
  tokens_out = Where (is_here, best, tokens_in)
  scores_out = Where (is_here, certainty, scores_in)
  token_out = Squeeze (best, axis1)
  ends_now = Equal (token_out, end)
  running_out = Where (ends_now, stopped, running_in)
  any_running = ReduceMax <keepdims = 0> (running_out)
  going_out = Cast <to = 9> (any_running)
""",
)


def launched_step() -> GraphProto:
    """MEMORY and STATE -> each of STATE with `_next`, and `going`, 1 while any word runs; values are folded."""
    return _LAUNCHED.write({**MEMORY, **STATE}, {**_named("{}_next", STATE), "going": "int32[1]"})


def loop_body(*, fold_values: bool) -> GraphProto:
    """The body of a Loop around the step; it reads MEMORY and the weights from the graph outside.

    Args:
        fold_values: values arrive multiplied by the fusion layer's weights.
    """
    body = _LOOPED.write(
        {"t": "int64", "going_in": "bool", **_named("{}_in", _CARRIED)},
        {"going_out": "bool", **_named("{}_out", _CARRIED)},
    )
    if fold_values:
        fuse = next(node for node in body.node if "fused" in node.output)
        fuse.op_type = "Add"
        fuse.input.remove("fusion")
    return body


def split_sizes(hidden: int, channels: int) -> dict[str, Any]:
    """Constants that say how gates and the fusion layer's output are divided, int64."""
    sizes = {"gate_split": [3 * hidden, hidden], "open_split": [hidden] * 3, "glu_split": [channels] * 2, "axis1": [1]}
    return {name: np.array(size, np.int64) for name, size in sizes.items()}


def _cell(layer: int, names: Mapping[str, str]) -> str:
    """The LSTM's gates to its cell and output."""
    own = {key: names[f"{key[0]}{layer}{key[1:]}"] for key in ("c", "c_after", "h_after")}
    return _CELL.format(n=layer, **own)


def _named(pattern: str, types: Mapping[str, str]) -> dict[str, str]:
    return {pattern.format(name): kind for name, kind in types.items()}


def _typed(types: Mapping[str, str]) -> str:
    return ", ".join(f"{kind} {name}" for name, kind in types.items())
