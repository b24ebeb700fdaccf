"""Runs the two graphs of a TensorRT engine on the CPU: what their precision does to words, seen without a GPU."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]
from onnx import ModelProto

from robustscanner.charset import Charset
from robustscanner.spec import ModelSpec

from ...graph.session import open_on_cpu
from ...graph.step import ALLOWED
from ...int8.calibration import CalibrationSet

Tensors = Mapping[str, npt.NDArray[np.generic]]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}


def read_simulated(encoder: ModelProto, decoder: ModelProto, spec: ModelSpec, calibration: CalibrationSet) -> list[str]:
    """Reads the calibration crops with an encoder and a step of `split`, typed or not; texts in order."""
    run_encoder, run_step = open_on_cpu(encoder), open_on_cpu(decoder)
    charset, names = Charset(spec.charset), [value.name for value in encoder.graph.output]
    texts = []
    for batch in calibration.batches():
        memory = dict(zip(names, run_encoder.run(names, dict(batch)), strict=True))
        memory[ALLOWED] = everything_allowed(spec)
        tokens, scores = decode(run_step, memory, first_state(run_step, memory, spec))
        texts += [charset.decode(*row)[0] for row in zip(tokens, scores, strict=True)]
    return texts


def first_state(
    step: onnxruntime.InferenceSession, memory: Tensors, spec: ModelSpec
) -> dict[str, npt.NDArray[np.generic]]:
    """What the first step begins with: zeros, but for the text and who goes on."""
    begin = {"tokens": spec.charset.pad_id, "scores": 1, "token": spec.charset.start_id, "running": 1}
    sizes: dict[object, int] = {}  # of open dimensions, by name
    for value in step.get_inputs():
        if value.name in memory:
            sizes |= zip(value.shape, memory[value.name].shape, strict=True)
    return {
        value.name: np.full(
            [sizes.get(size, size) for size in value.shape], begin.get(value.name, 0), _TYPES[value.type]
        )
        for value in step.get_inputs()
        if value.name not in memory
    }


def everything_allowed(spec: ModelSpec) -> npt.NDArray[np.float32]:
    """What a step is given where nothing is constrained, (T, K)."""
    return np.zeros((spec.network.max_length, spec.charset.class_count), np.float32)


def decode(
    step: onnxruntime.InferenceSession, memory: Tensors, state: Tensors
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Repeats the step until every row has ended: tokens and scores (N, T); what is allowed is part of the memory."""
    names = [f"{name}_next" for name in state]
    for _ in range(state["tokens"].shape[1]):
        *values, going = step.run([*names, "going"], {**memory, **state})
        state = dict(zip(state, values, strict=True))
        if not going[0]:
            break
    return state["tokens"], state["scores"]  # type: ignore[return-value]
