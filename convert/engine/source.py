"""The FP32 model an engine is built from: an ONNX file, or a checkpoint that is exported first."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from robustscanner.errors import EngineError
from robustscanner.spec import ModelSpec

from ..quantize import load_float_model


@dataclass(frozen=True)
class Source:
    """A float model and where it comes from."""

    path: Path  # of the ONNX file
    model: ModelProto
    spec: ModelSpec
    history: Sequence[dict[str, Any]]


def load_source(path: Path, scratch: Path) -> Source:
    """Reads NAME.onnx, or exports NAME.safetensors into the scratch folder and reads that.

    Raises:
        RobustScannerError: see `load_float_model`; also a checkpoint where PyTorch is missing.
    """
    onnx_path = _export(path, scratch) if path.suffix == ".safetensors" else path
    return Source(onnx_path, *load_float_model(onnx_path))


def _export(checkpoint: Path, scratch: Path) -> Path:
    from ..export_onnx import export

    output = scratch / f"{checkpoint.stem}.onnx"
    try:
        with redirect_stdout(None):  # its line names a file that is gone a moment later
            export(checkpoint, output, fold_values=False, force=False)
    except ImportError as error:
        raise EngineError(
            f"{checkpoint}: exporting a checkpoint needs {error.name}, which is not installed; "
            "pip install -e '.[train]' in a checkout of the kit, or export it elsewhere with convert/export_onnx.py"
        ) from None
    return output
