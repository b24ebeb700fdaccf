"""Command-line options: how TensorRT and TensorRT-RTX build."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from robustscanner.errors import EngineError
from robustscanner.program import whole_number

if TYPE_CHECKING:
    from .backend import TensorRTOptions


def add_tensorrt_arguments(parser: argparse.ArgumentParser) -> None:
    """How TensorRT and TensorRT-RTX build."""
    group = parser.add_argument_group("TensorRT")
    group.add_argument("--min-batch", type=whole_number, default=1, metavar="PICTURES", help="default: %(default)s")
    group.add_argument(
        "--opt-batch", type=whole_number, default=1, metavar="PICTURES", help="tuned for; default: %(default)s"
    )
    group.add_argument("--max-batch", type=whole_number, default=16, metavar="PICTURES", help="default: %(default)s")
    group.add_argument("--workspace-mib", type=whole_number, metavar="MIB", help="scratch memory of a layer")
    group.add_argument("--timing-cache", type=Path, metavar="FILE", help="makes a second build quick")
    group.add_argument("--optimization-level", type=int, metavar="0…5", help="how long to look for fast kernels")
    group.add_argument("--version-compatible", action="store_true", help="newer TensorRT versions can load it")
    group.add_argument("--target", metavar="sm_86,…", help="TensorRT-RTX: GPUs to build for, none needed here")
    group.add_argument("--typing", choices=("auto", "strong", "weak"), default="auto", help=argparse.SUPPRESS)
    group.add_argument(
        "--row-lstm",
        choices=("wavefront", "loop", "kernel"),
        default="wavefront",
        help="the encoder's LSTM: unrolled with both layers at once, TensorRT's loops, or one launch of a CUDA kernel, "
        "with --decoder kernel (default: %(default)s)",
    )
    group.add_argument(
        "--decoder",
        choices=("steps", "kernel"),
        default="steps",
        help="decode step by step, or in one launch of a CUDA kernel, which nvcc compiles (default: %(default)s)",
    )
    group.add_argument("--int8-calibrator", action="store_true", help="TensorRT 8 to 10: its own calibration, no Q/DQ")
    group.add_argument("--calibration-cache", type=Path, metavar="FILE", help="of that calibrator, to build again")
    group.add_argument("--save-layers", type=Path, metavar="FILE.json", help="list of layers and their precision")


def refuse_tensorrt_arguments(parsed: argparse.Namespace) -> None:
    """Raises `EngineError`, with ONNX Runtime, for an option that would silently do nothing."""
    if parsed.precision == "fp16":
        raise EngineError(
            "--fp16: needs TensorRT and an NVIDIA GPU, or --backend tensorrt-rtx --target sm_86 for a GPU elsewhere; "
            "on a CPU use --fp32 or --int8"
        )
    parser = argparse.ArgumentParser(add_help=False)
    add_tensorrt_arguments(parser)
    for name, default in vars(parser.parse_args([])).items():
        if getattr(parsed, name) != default:
            option = f"--{name.replace('_', '-')}"
            raise EngineError(f"{option}: does nothing with ONNX Runtime; leave it out, or give --backend tensorrt")


def tensorrt_options(parsed: argparse.Namespace) -> "TensorRTOptions":
    """How to build with TensorRT.

    Raises:
        EngineError: options that do not go together.
    """
    from robustscanner.engine import BatchRange

    from .backend import TensorRTOptions
    from .builder import BuilderOptions

    if parsed.reduce_range is not None:
        raise EngineError("--reduce-range: is for x86 CPUs and does nothing with TensorRT; leave it out")
    if parsed.repair and parsed.int8_calibrator:
        raise EngineError("--repair: TensorRT's own calibrator knows no layers to spare; leave out --int8-calibrator")
    if parsed.calibration_cache and not parsed.int8_calibrator:
        raise EngineError(
            "--calibration-cache: is TensorRT's own calibrator's; give --int8-calibrator, or leave it out"
        )
    builder = BuilderOptions(
        precision=parsed.precision,
        batch=BatchRange(parsed.min_batch, parsed.opt_batch, parsed.max_batch),
        typing="weak" if parsed.int8_calibrator and parsed.typing == "auto" else parsed.typing,
        workspace_mib=parsed.workspace_mib,
        optimization_level=parsed.optimization_level,
        version_compatible=parsed.version_compatible,
        targets=tuple(filter(None, (parsed.target or "").split(","))),
    )
    return TensorRTOptions(
        builder=builder,
        row_lstm=parsed.row_lstm,
        decoder=parsed.decoder,
        calibrator=parsed.int8_calibrator,
        calibration_cache=parsed.calibration_cache,
        timing_cache=parsed.timing_cache,
        save_layers=parsed.save_layers,
    )
