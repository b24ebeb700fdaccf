"""Runs the two graphs of a TensorRT engine on the CPU: what their precision does to words, seen without a GPU."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]
from onnx import ModelProto

from robustscanner.charset import Charset
from robustscanner.spec import ModelSpec

from ..graph.session import open_on_cpu
from ..graph.step import ALLOWED, MEMORY, RECURRENT, STATE
from ..int8.calibration import CalibrationSet

Tensors = Mapping[str, npt.NDArray[np.generic]]


def read_simulated(encoder: ModelProto, decoder: ModelProto, spec: ModelSpec, calibration: CalibrationSet) -> list[str]:
    """Reads the calibration crops with an encoder and a step of `split`, typed or not; texts in order."""
    run_encoder, run_step = open_on_cpu(encoder), open_on_cpu(decoder)
    charset, everything = Charset(spec.charset), {ALLOWED: everything_allowed(spec)}
    texts = []
    for batch in calibration.batches():
        memory = dict(zip(MEMORY, run_encoder.run(list(MEMORY), dict(batch)), strict=True)) | everything
        tokens, scores = decode(run_step, memory, first_state(spec, len(batch["images"])))
        texts += [charset.decode(*row)[0] for row in zip(tokens, scores, strict=True)]
    return texts


def first_state(spec: ModelSpec, rows: int) -> dict[str, npt.NDArray[np.generic]]:
    """What the first step begins with."""
    size, charset = spec.network, spec.charset
    zeros = {name: np.zeros((rows, size.hidden_size), np.float32) for name in RECURRENT}
    return {
        "tokens": np.full((rows, size.max_length), charset.pad_id, np.int32),
        "scores": np.ones((rows, size.max_length), np.float32),
        "step": np.zeros(1, np.int32),
        "token": np.full(rows, charset.start_id, np.int32),
        "running": np.ones(rows, np.int32),
        **zeros,
    }


def everything_allowed(spec: ModelSpec) -> npt.NDArray[np.float32]:
    """What a step is given where nothing is constrained, (T, K)."""
    return np.zeros((spec.network.max_length, spec.charset.class_count), np.float32)


def decode(
    step: onnxruntime.InferenceSession, memory: Tensors, state: Tensors
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Repeats the step until every row has ended: tokens and scores (N, T); what is allowed is part of the memory."""
    names = [f"{name}_next" for name in STATE]
    for _ in range(state["tokens"].shape[1]):
        *values, going = step.run([*names, "going"], {**memory, **state})
        state = dict(zip(STATE, values, strict=True))
        if not going[0]:
            break
    return state["tokens"], state["scores"]  # type: ignore[return-value]
