"""The FP32 model an engine is built from: an ONNX file, or a checkpoint that is exported first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper

from robustscanner.engine import open_engine
from robustscanner.errors import EngineError
from robustscanner.session import SessionOptions
from robustscanner.spec import ModelSpec

from ..graph.model_file import load_model

MIN_OPSET = 13  # the first with scales per channel

_EXPORT_AGAIN = "export it again with convert/export_onnx.py"


@dataclass(frozen=True, eq=False)  # each is itself, and may be the key of a cache
class Source:
    """A float model and where it comes from."""

    path: Path  # of the ONNX file
    model: ModelProto
    spec: ModelSpec
    history: Sequence[dict[str, Any]]


def load_source(path: Path, scratch: Path | None = None) -> Source:
    """Reads NAME.onnx, or exports NAME.safetensors into the scratch folder and reads that.

    Raises:
        RobustScannerError: unreadable, not of ours, a graph that does not fit its spec, beyond this ONNX Runtime, too
            old for Q/DQ, quantised already, or with weights that are not finite; a checkpoint where PyTorch is missing.
    """
    if scratch and path.suffix == ".safetensors":
        path = _export(path, scratch)
    model, spec, history = load_model(path)
    _check_graph(model, path)
    open_engine(path, SessionOptions()).close()  # it checks the graph against the spec
    return Source(path, model, spec, history)


def _export(checkpoint: Path, scratch: Path) -> Path:
    output = scratch / f"{checkpoint.stem}.onnx"
    try:
        from ..graph.export import export

        export(checkpoint, output, fold_values=False, force=False)
    except ImportError as error:
        raise EngineError(
            f"{checkpoint}: exporting a checkpoint needs {error.name}, which is not installed; "
            "pip install -e '.[train]' in a checkout of the kit, or export it elsewhere with convert/export_onnx.py"
        ) from None
    return output


def _check_graph(model: ModelProto, path: Path) -> None:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < MIN_OPSET:
        raise EngineError(f"{path}: made with opset {opset}, needs {MIN_OPSET} or newer; {_EXPORT_AGAIN}")
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise EngineError(f"{path}: quantised already; give the FP32 model that it came from")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise EngineError(f"{path}: {tensor.name} holds NaN or infinity; train or download the checkpoint again")
