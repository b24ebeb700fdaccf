"""Command-line options that programs share, group by group, and what was said with them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from robustscanner.errors import EngineError

if TYPE_CHECKING:
    from robustscanner.spec import InputSpec

    from .accuracy.gate import GateOptions
    from .int8.calibration import CalibrationSet
    from .int8.recipe import Recipe
    from .trt.backend import TensorRTOptions

CALIB_DATA = Path(__file__).parents[1] / "calib_data"  # of the checkout
MEASURED = ("max", "entropy", "percentile", "mse")  # methods of choosing ranges that look at calibration crops
METHODS = (*MEASURED, "qat")
AUTO = "auto"  # as int8/recipe.py


def add_crop_arguments(parser: argparse.ArgumentParser) -> None:
    """What to calibrate with."""
    parser.add_argument(
        "--calib-data",
        type=Path,
        default=CALIB_DATA,
        metavar="DIR",
        help="folder with labels.tsv (default: calib_data)",
    )
    parser.add_argument(
        "--calib-images", type=whole_number, default=512, metavar="N", help="crops to draw (default: 512)"
    )
    parser.add_argument(
        "--calib-method",
        choices=(AUTO, *METHODS),
        default=AUTO,
        help="how ranges are chosen; auto: mse for small, else max; qat: as quantisation-aware training left them "
        "(default: %(default)s)",
    )


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """What to calibrate with, and what to put into 8 bits."""
    add_crop_arguments(parser)
    parser.add_argument(
        "--exclude",
        action="append",
        metavar="NAME",
        help="layer that stays FP32, a pattern of names; repeatable; '' for none (default: what attention compares)",
    )
    parser.add_argument(
        "--reduce-range",
        action=argparse.BooleanOptionalAction,
        help="7-bit weights, right on every CPU, or 8-bit ones, which x86 without VNNI adds wrongly "
        "(default: 8 for small where this CPU can, else 7)",
    )


def load_crops(folder: Path, images: int, spec: "InputSpec") -> "CalibrationSet":
    """The crops asked for, with one line on stderr when some had to be left out.

    Raises:
        DataError: there are none.
    """
    from .int8.calibration import load_calibration

    calibration = load_calibration(folder, spec, images=images)
    if bad := calibration.unreadable:
        print(f"warning: {len(bad)} unreadable pictures left out; the first: {bad[0]}", file=sys.stderr)
    return calibration


def recipe_of(parsed: argparse.Namespace) -> "Recipe":
    """How to quantise, some of it perhaps left open; see `Recipe.settled`."""
    from .int8.recipe import Recipe

    exclude = (AUTO,) if parsed.exclude is None else tuple(filter(None, parsed.exclude))
    return Recipe(parsed.calib_method, exclude, parsed.reduce_range)


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """What an engine may lose."""
    parser.add_argument(
        "--max-drop",
        type=_points,
        metavar="POINTS",
        help="refuse an engine that reads fewer calibration words than FP32, by more than this many percentage points",
    )
    parser.add_argument(
        "--repair", action="store_true", help="with --max-drop: restore layers to FP32 until it fits, instead"
    )


def gate_options(parsed: argparse.Namespace) -> "GateOptions | None":
    """What the gate asks for; None where any accuracy will do.

    Raises:
        EngineError: `--repair` where there is nothing to repair.
    """
    from .accuracy.gate import GateOptions

    if parsed.repair and (parsed.max_drop is None or parsed.precision != "int8"):
        what = "has no bound to reach; give --max-drop POINTS" if parsed.max_drop is None else "is for --int8 only"
        raise EngineError(f"--repair: {what}, or leave it out")
    return None if parsed.max_drop is None else GateOptions(parsed.max_drop, parsed.repair)


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
        choices=("wavefront", "loop"),
        default="wavefront",
        help="the encoder's LSTM: unrolled with both layers at once, or TensorRT's loops (default: %(default)s)",
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

    from .trt.backend import TensorRTOptions
    from .trt.builder import BuilderOptions

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


def whole_number(text: str) -> int:
    """A count, from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = -1
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of percentage points, 0 to 100")
    return points
