"""The CUDA kernels in an engine's folder: compiled by nvcc for the GPUs of the engine, and their weights."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

import robustscanner
from robustscanner.engine import KERNELS_NAME, ROWS_NAME, WEIGHTS_NAME
from robustscanner.errors import EngineError
from robustscanner.gpu.kernels import HIDDEN_SIZE, pack_row_weights, pack_weights, sources_sha256
from robustscanner.spec import ModelSpec

from .kernel_weights import decode_weights
from .row_cut import SHARES, RowCut

_STEPS = "build without --decoder kernel"
_CUDA = Path("/usr/local/cuda/bin/nvcc")  # where a Jetson has it, not on PATH


def check_kernels(spec: ModelSpec) -> None:
    """Looks, before minutes of work, whether the kernel can read this model and be compiled here.

    Raises:
        EngineError: it cannot.
    """
    if spec.network.hidden_size != HIDDEN_SIZE:
        found = spec.network.hidden_size
        raise EngineError(
            f"the decode kernel is for hidden size {HIDDEN_SIZE}, not {found}; build without --decoder kernel"
        )
    _find_nvcc()


def write_kernels(
    folder: Path, model: ModelProto, encoder: ModelProto, spec: ModelSpec, targets: Sequence[str]
) -> dict[str, object]:
    """Writes both files for a whole graph and the encoder that is built of it.

    Returns:
        A line of the engine's history.

    Raises:
        EngineError: nvcc fails.
    """
    compile_kernels(targets, folder / KERNELS_NAME)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = next(value for value in encoder.graph.output if value.name == "values")
    half = values.type.tensor_type.elem_type == TensorProto.FLOAT16
    packed = pack_weights(decode_weights(weights, np.float16 if half else np.float32), spec)
    (folder / WEIGHTS_NAME).write_bytes(packed)
    return {
        "step": "decode kernel",
        "tool": "convert/build_engine.py",
        "targets": ",".join(targets),
        "sources_sha256": sources_sha256(sources()),
        "precision": "fp16" if half else "fp32",
    }


def write_row_weights(folder: Path, rows: RowCut) -> None:
    """Of the row kernel, in the precision of the plan before it."""
    shares = next(value for value in rows.front.graph.output if value.name == SHARES)
    half = shares.type.tensor_type.elem_type == TensorProto.FLOAT16
    (folder / ROWS_NAME).write_bytes(pack_row_weights(rows.typed(np.float16 if half else np.float32)))


def compile_kernels(targets: Sequence[str], output: Path) -> None:
    """For "sm_87" and the like, into one file that the driver takes its own from; raises as `write_kernels`."""
    numbers = [target.removeprefix("sm_") for target in targets]
    wanted = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    command = [_find_nvcc(), "-std=c++17", "-fatbin", *wanted, str(sources() / "kernels.cu"), "-o", str(output)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        said = (run.stdout.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        raise EngineError(f"nvcc cannot compile the decode kernel for {','.join(targets)}: {said}; {_STEPS}")


def sources() -> Path:
    """The folder of the kernels, in a checkout or an installed package."""
    library = Path(robustscanner.__file__).parent
    inside = library / "cuda"
    return inside if inside.is_dir() else library.parent / "cuda"


def _find_nvcc() -> str:
    if found := shutil.which("nvcc") or (str(_CUDA) if _CUDA.exists() else None):
        return found
    cure = f"install the CUDA toolkit, or {_STEPS}"
    raise EngineError(f"the decode kernel is compiled by nvcc, which is not on PATH; {cure}")
