"""Runs a graph on this CPU, to see what it computes."""

import onnxruntime  # type: ignore[import-untyped]
from onnx import ModelProto

_FATAL = 4  # ONNX Runtime's log severity


def open_on_cpu(model: ModelProto) -> onnxruntime.InferenceSession:
    """A session that keeps its warnings to itself: graphs on their way to an engine give many."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
