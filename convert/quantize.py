"""Quantises the convolutions of an encoder to INT8: runs calibration crops through it and writes Q/DQ nodes."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.errors import EngineError
from robustscanner.program import exit_status

if TYPE_CHECKING:
    from onnx import ModelProto

    from robustscanner.spec import ModelSpec

    from .int8.calibration import CalibrationSet, Collect, Ranges
    from .int8.qdq_onnxruntime import Placement

EPILOG = """examples:
  python convert/quantize.py edge.onnx -o edge-int8.onnx
  python convert/quantize.py r31.onnx -o r31-int8.onnx --calib-data crops/ --calib-method entropy
  python convert/quantize.py edge.onnx -o all-int8.onnx --exclude ''
"""

CALIB_DATA = Path(__file__).parents[1] / "calib_data"  # of the checkout
MEASURED = ("max", "entropy", "percentile", "mse")  # methods that look at calibration crops
METHODS = (*MEASURED, "qat")
# These layers make the keys of both branches. Attention is not scaled, so softmax magnifies what keys lose: in 8 bits,
# the position branch's glimpses drop from 36 to 13 dB above the noise. The edge model would gain 0.8 of 4.1 ms.
DEFAULT_EXCLUDE = ("/encoder/*", "/position/*")
MIN_OPSET = 13  # the first with scales per channel

_EXPORT_AGAIN = "export it again with convert/export_onnx.py"


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise."""

    method: str = "max"  # of choosing activation ranges, one of METHODS
    exclude: Sequence[str] = DEFAULT_EXCLUDE  # patterns of node names that stay FP32
    reduce_range: bool = False  # 7 bits for weights


@dataclass(frozen=True)
class Quantized:
    """A quantised graph and how it came about."""

    model: "ModelProto"
    placement: "Placement"
    details: dict[str, Any]  # for the history


def quantize(
    model: "ModelProto",
    calibration: "CalibrationSet",
    options: QuantizeOptions,
    *,
    for_tensorrt: bool = False,
    collect: "Collect | None" = None,
) -> Quantized:
    """Chooses convolutions, measures ranges, writes Q/DQ nodes as ONNX Runtime or TensorRT wants them.

    x86 CPUs without VNNI (before Ice Lake and Zen 4) add pairs of uint8 x int8 products in 16 bits, where they can
    saturate: ONNX Runtime's AVX2 and AVX-512 kernels use vpmaddubsw. `reduce_range` makes the weights small enough.

    Args:
        model: a whole graph, or an encoder of `split`.
        calibration: crops that the ranges come from.
        options: how to quantise.
        for_tensorrt: whose Q/DQ nodes.
        collect: stands in for `collect_ranges`, for whoever has measured already.

    Raises:
        EngineError: an exclude pattern that matches nothing, or nothing left to quantise.
    """
    from .int8.calibration import collect_ranges
    from .int8.qdq_onnxruntime import place, write_qdq
    from .int8.qdq_tensorrt import readers_in_8_bits, write_qdq_tensorrt

    placement = place(model.graph, options.exclude)
    _check_patterns(options.exclude, placement, [node.name for node in model.graph.node])
    tensors = tuple(readers_in_8_bits(model.graph, placement)) if for_tensorrt else placement.tensors
    if options.method == "qat":
        ranges = _trained_ranges(model, tensors, placement.pooled)
    else:
        ranges = (collect or collect_ranges)(
            model, tensors, calibration.batches(), method=options.method, images=len(calibration.crops)
        )
    weight_bits = 7 if options.reduce_range else 8
    details = {
        "method": options.method,
        "images": ranges.images,
        **_data_digests(calibration.folder),
        "excluded": list(placement.excluded),
        "weight_bits": weight_bits,
    }
    if for_tensorrt:
        return Quantized(write_qdq_tensorrt(model, placement, ranges), placement, details)
    return Quantized(write_qdq(model, placement, ranges, weight_bits=weight_bits), placement, details)


def load_float_model(path: Path) -> "tuple[ModelProto, ModelSpec, list[dict[str, Any]]]":
    """A model of ours that can be quantised and served, its spec and history.

    Raises:
        RobustScannerError: unreadable, not of ours, a graph that does not fit its spec, beyond this ONNX Runtime, too
            old for Q/DQ, quantised already, or with weights that are not finite.
    """
    from robustscanner.engine import open_engine
    from robustscanner.session import SessionOptions

    from .graph.model_file import load_model

    model, spec, history = load_model(path)
    _check_graph(model, path)
    open_engine(path, SessionOptions()).close()  # it checks the graph against the spec
    return model, spec, history


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that `build_engine.py` takes as well."""
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
        choices=METHODS,
        default=QuantizeOptions.method,
        help="how ranges are chosen; qat: as quantisation-aware training left them (default: %(default)s)",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        metavar="NAME",
        help=f"convolution that stays FP32, a pattern of node names; repeatable (default: {' '.join(DEFAULT_EXCLUDE)})",
    )
    parser.add_argument("--reduce-range", action="store_true", help="7-bit weights, for x86 CPUs without VNNI")


def quantize_options(arguments: argparse.Namespace) -> QuantizeOptions:
    """What `add_calibration_arguments` parsed; `--exclude ''` excludes nothing."""
    exclude = DEFAULT_EXCLUDE if arguments.exclude is None else tuple(filter(None, arguments.exclude))
    return QuantizeOptions(arguments.calib_method, exclude, arguments.reduce_range)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="of export_onnx.py")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.onnx")
    add_calibration_arguments(parser)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("-v", "--verbose", action="store_true", help="name the convolutions that stay FP32")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from .graph.model_file import file_step, prepare_output, save_model, with_metadata
    from .int8.calibration import load_calibration

    output = arguments.output
    prepare_output(output, force=arguments.force)
    model, spec, history = load_float_model(arguments.model)
    calibration = load_calibration(arguments.calib_data, spec.input, images=arguments.calib_images)
    report_unreadable(calibration)
    result = quantize(model, calibration, quantize_options(arguments))
    step = file_step("quantize", "convert/quantize.py", arguments.model) | result.details
    save_model(with_metadata(result.model, spec, [*history, step]), output, force=arguments.force)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {describe(result)}")
    if arguments.verbose:
        print(*(f"FP32: {name}" for name in result.placement.excluded), sep="\n")


def report_unreadable(calibration: "CalibrationSet") -> None:
    """One line on stderr when crops had to be left out."""
    if bad := calibration.unreadable:
        print(f"warning: {len(bad)} unreadable pictures left out; the first: {bad[0]}", file=sys.stderr)


def describe(result: Quantized) -> str:
    """What was quantised, for people."""
    done, left = len(result.placement.convolutions), len(result.placement.excluded)
    method, images = result.details["method"], result.details["images"]
    origin = "learnt in training" if method == "qat" else f"by {method} from {images} crops"
    return f"{done} of {done + left} convolutions, ranges {origin}"


def _trained_ranges(model: "ModelProto", tensors: Sequence[str], pooled: Mapping[str, str]) -> "Ranges":
    """What quantisation-aware training left in the model; a max pooling has the range of what it pools."""
    from .graph.model_file import trained_ranges
    from .int8.calibration import Ranges

    known = trained_ranges(model)
    if missing := [name for name in tensors if pooled.get(name, name) not in known]:
        cure = "train it with training/configs/qat.yaml, or take --calib-method max"
        raise EngineError(f"--calib-method qat: the model holds no range of {missing[0]}; {cure}")
    return Ranges("qat", 0, {name: known[pooled.get(name, name)] for name in tensors})


def _check_graph(model: "ModelProto", path: Path) -> None:
    import numpy as np
    from onnx import numpy_helper

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < MIN_OPSET:
        raise EngineError(f"{path}: made with opset {opset}, needs {MIN_OPSET} or newer; {_EXPORT_AGAIN}")
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise EngineError(f"{path}: quantised already; give the FP32 model that it came from")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise EngineError(f"{path}: {tensor.name} holds NaN or infinity; train or download the checkpoint again")


def _check_patterns(patterns: Sequence[str], placement: "Placement", names: Sequence[str]) -> None:
    from fnmatch import fnmatchcase

    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            names = ", ".join(placement.convolutions)
            raise EngineError(f"--exclude {pattern!r} matches no convolution; there are {names}")
    if not placement.convolutions:
        raise EngineError("no convolution is left to quantise; exclude fewer")


def _data_digests(folder: Path) -> dict[str, str]:
    from robustscanner.engine import file_sha256

    tables = {"labels_sha256": folder / "labels.tsv", "manifest_sha256": folder / "manifest.tsv"}
    return {key: file_sha256(path) for key, path in tables.items() if path.is_file()}


def whole_number(text: str) -> int:
    """A count on the command line, from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
