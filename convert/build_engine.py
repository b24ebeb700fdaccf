"""Builds an engine: a model, made ready for this machine, with a record of how it was made."""

import argparse
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.errors import EngineError, ImageError
from robustscanner.labels import DataError
from robustscanner.program import exit_status

from .accuracy.gate import GateOptions, add_gate_arguments, gate_options
from .quantize import QuantizeOptions, add_calibration_arguments, quantize_options, report_unreadable, whole_number

if TYPE_CHECKING:
    from robustscanner.engine import EngineAccuracy, EngineManifest

    from .engine.product import Product
    from .engine.source import Source
    from .int8.calibration import CalibrationSet
    from .trt.backend import TensorRTOptions
    from .trt.library import Library

EPILOG = """examples:
  build_engine.py --int8 -o edge-int8.engine                         the shipped model
  build_engine.py runs/edge/best.safetensors --int8 -o edge.engine   a checkpoint (needs PyTorch)
  build_engine.py r31.onnx --int8 -o r31.engine --calib-data crops/ --calib-method max
  build_engine.py r31.onnx --int8 -o r31.engine --max-drop 0.3 --repair    layers go back to FP32 until it reads as well
  build_engine.py r31.onnx --fp16 -o r31.engine --max-batch 64       on a machine with an NVIDIA GPU and TensorRT
  build_engine.py r31.onnx --int8 -o r31.engine --backend tensorrt-rtx --target sm_86,sm_89    on any machine
  build_engine.py r31.onnx --int8 --backend tensorrt --dry-run       what would run in which precision
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """What to build from what."""

    model: Path | None  # NAME.onnx or a checkpoint NAME.safetensors; None: the model that ships with the library
    output: Path | None  # NAME.engine; None: a dry run
    precision: str  # one of robustscanner.engine.PRECISIONS
    backend: str  # one of robustscanner.engine.BACKENDS
    calib_data: Path  # folder with labels.tsv; also measures the engine's accuracy
    calib_images: int  # crops to draw from it
    quantize: QuantizeOptions = QuantizeOptions()
    tensorrt: "TensorRTOptions | None" = None  # None: for ONNX Runtime
    gate: GateOptions | None = None  # None: any accuracy will do
    force: bool = False  # replace an existing engine


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parsed = _parse(arguments)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return exit_status(lambda: _run(parsed), interrupted="interrupted; nothing was written")
    finally:
        signal.signal(signal.SIGTERM, previous)


def build(options: BuildOptions) -> "EngineManifest":
    """Load, convert, measure, write, and say what came out.

    Raises:
        RobustScannerError: anything the user can fix; then nothing was written.
    """
    from .engine.bundle import writing_bundle

    assert options.output is not None
    library = _load_library(options)
    with TemporaryDirectory() as scratch, writing_bundle(options.output, force=options.force) as folder:
        source, calibration = _load(options, Path(scratch))
        product, accuracy = _make_and_measure(source, calibration, library, options, folder)
        if options.gate is not None:
            restored: Sequence[str] = ()
            if options.gate.repair and not options.gate.lets_pass(accuracy):
                mended = _mend(source, calibration, options)
                restored = mended.quantize.exclude[len(options.quantize.exclude) :]
                _remove(product, folder)
                product, accuracy = _make_and_measure(source, calibration, library, mended, folder)
            options.gate.check(accuracy, options.precision)
            product = replace(product, steps=[*product.steps, options.gate.step(accuracy, restored)])
        manifest = _write_manifest(source, options.precision, product, accuracy, folder)
    _print_summary(options.output, manifest, product)
    return manifest


def preview(options: BuildOptions) -> None:
    """Say what would run in which precision, and write nothing but the list of layers.

    Raises:
        RobustScannerError: anything the user can fix.
    """
    from .trt.backend import describe_layers, preview, save_layers

    library = _load_library(options)
    if library is None or options.tensorrt is None:
        raise EngineError("--dry-run: only TensorRT decides what runs how; give --backend tensorrt or tensorrt-rtx")
    with TemporaryDirectory() as scratch:
        summary, layers = preview(*_load(options, Path(scratch)), library, options.tensorrt)
    print(f"would build with {library.title}; before layers are fused:")
    _print_lines(summary)
    for line in describe_layers(layers):
        logger.info("  %s", line)
    if options.tensorrt.save_layers:
        save_layers(options.tensorrt.save_layers, layers, library, "network before the build")


def measure(source: Path, folder: Path, product: "Product", calibration: "CalibrationSet") -> "EngineAccuracy":
    """Reads the calibration crops with the source and the engine, as serving does, or as near to it as possible."""
    from robustscanner.engine import EngineAccuracy
    from robustscanner.metrics import score_words

    expected = _read_crops(source, calibration)
    # The plans were made a moment ago: what code they carry is the library's own.
    got = _read_crops(folder, calibration, host_code=True) if product.simulate is None else product.simulate()
    labels = [crop.label for crop in calibration.crops]
    before, after = score_words(expected, labels), score_words(got, labels)
    alike = sum(a == b for a, b in zip(expected, got, strict=True)) / len(got)
    return EngineAccuracy(after.words, before.rate, after.rate, alike, simulated=product.simulate is not None)


def _run(parsed: argparse.Namespace) -> None:
    options = _options(parsed)
    if parsed.dry_run:
        preview(options)
    else:
        build(options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    from robustscanner.engine import BACKENDS, PRECISIONS

    parser = argparse.ArgumentParser(
        prog="build_engine.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", nargs="?", type=Path, metavar="MODEL", help="NAME.onnx or checkpoint (default: the shipped one)"
    )
    precision = parser.add_mutually_exclusive_group(required=True)
    for name in PRECISIONS:
        precision.add_argument(f"--{name}", dest="precision", action="store_const", const=name)
    parser.add_argument("-o", "--output", type=Path, metavar="NAME.engine")
    parser.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        help="auto: TensorRT or TensorRT-RTX where it is installed and builds for the GPU here, else ONNX Runtime",
    )
    parser.add_argument("--dry-run", action="store_true", help="TensorRT: parse only and list what would run how")
    add_calibration_arguments(parser)
    add_gate_arguments(parser)
    _add_tensorrt_arguments(parser)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing engine")
    parser.add_argument("-v", "--verbose", action="store_true", help="name layers, and convolutions that stay FP32")
    parsed = parser.parse_args(arguments)
    if not parsed.output and not parsed.dry_run:
        parser.error("the following arguments are required: -o/--output")
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    return parsed


def _add_tensorrt_arguments(parser: argparse.ArgumentParser) -> None:
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
    group.add_argument("--int8-calibrator", action="store_true", help="TensorRT 8 to 10: its own calibration, no Q/DQ")
    group.add_argument("--calibration-cache", type=Path, metavar="FILE", help="of that calibrator, to build again")
    group.add_argument("--save-layers", type=Path, metavar="FILE.json", help="list of layers and their precision")


def _options(parsed: argparse.Namespace) -> BuildOptions:
    options = BuildOptions(
        model=parsed.model,
        output=parsed.output,
        precision=parsed.precision,
        backend=_choose_backend(parsed),
        calib_data=parsed.calib_data,
        calib_images=parsed.calib_images,
        quantize=quantize_options(parsed),
        gate=gate_options(parsed),
        force=parsed.force,
    )
    if options.backend == "onnxruntime":
        _refuse_tensorrt_arguments(parsed)
        return options
    return replace(options, tensorrt=_tensorrt_options(parsed, options.quantize))


def _choose_backend(parsed: argparse.Namespace) -> str:
    if parsed.backend != "auto":
        return str(parsed.backend)
    if parsed.target:
        return "tensorrt-rtx"
    from .trt.library import library_for_this_gpu

    return library_for_this_gpu() or "onnxruntime"


def _refuse_tensorrt_arguments(parsed: argparse.Namespace) -> None:
    """An option that would silently do nothing is an error."""
    if parsed.precision == "fp16":
        raise EngineError(
            "--fp16: needs TensorRT and an NVIDIA GPU, or --backend tensorrt-rtx --target sm_86 for a GPU elsewhere; "
            "on a CPU use --fp32 or --int8"
        )
    given = {
        "--target": parsed.target,
        "--workspace-mib": parsed.workspace_mib,
        "--timing-cache": parsed.timing_cache,
        "--optimization-level": parsed.optimization_level is not None,
        "--version-compatible": parsed.version_compatible,
        "--int8-calibrator": parsed.int8_calibrator,
        "--calibration-cache": parsed.calibration_cache,
        "--save-layers": parsed.save_layers,
        "--min-batch": parsed.min_batch != 1,
        "--opt-batch": parsed.opt_batch != 1,
        "--max-batch": parsed.max_batch != 16,
        "--row-lstm": parsed.row_lstm != "wavefront",
    }
    if names := [name for name, value in given.items() if value]:
        raise EngineError(f"{names[0]}: does nothing with ONNX Runtime; leave it out, or give --backend tensorrt")


def _tensorrt_options(parsed: argparse.Namespace, quantize: QuantizeOptions) -> "TensorRTOptions":
    from robustscanner.engine import BatchRange

    from .trt.backend import TensorRTOptions
    from .trt.builder import BuilderOptions

    if quantize.reduce_range:
        raise EngineError("--reduce-range: is for x86 CPUs and does nothing with TensorRT; leave it out")
    builder = BuilderOptions(
        precision=parsed.precision,
        batch=BatchRange(parsed.min_batch, parsed.opt_batch, parsed.max_batch),
        typing="weak" if parsed.int8_calibrator and parsed.typing == "auto" else parsed.typing,
        workspace_mib=parsed.workspace_mib,
        optimization_level=parsed.optimization_level,
        version_compatible=parsed.version_compatible,
        targets=tuple(filter(None, (parsed.target or "").split(","))),
    )
    if parsed.repair and parsed.int8_calibrator:
        raise EngineError("--repair: TensorRT's own calibrator knows no layers to spare; leave out --int8-calibrator")
    if parsed.calibration_cache and not parsed.int8_calibrator:
        raise EngineError(
            "--calibration-cache: is TensorRT's own calibrator's; give --int8-calibrator, or leave it out"
        )
    return TensorRTOptions(
        builder=builder,
        quantize=quantize,
        row_lstm=parsed.row_lstm,
        calibrator=parsed.int8_calibrator,
        calibration_cache=parsed.calibration_cache,
        timing_cache=parsed.timing_cache,
        save_layers=parsed.save_layers,
    )


def _interrupt(*_: object) -> None:
    """SIGTERM cleans up as Ctrl-C does."""
    raise KeyboardInterrupt


def _load_library(options: BuildOptions) -> "Library | None":
    """The TensorRT that is to build, after a look whether it can; None for ONNX Runtime."""
    if options.tensorrt is None:
        return None
    from .trt.builder import check_options, check_reading
    from .trt.library import load_library

    library, wanted = load_library(options.backend), options.tensorrt
    check_options(library, wanted.builder, calibrator=wanted.calibrator, timing_cache=wanted.timing_cache is not None)
    if options.output is not None:
        check_reading(library, wanted.builder, calibrator=wanted.calibrator)
    return library


def _load(options: BuildOptions, scratch: Path) -> "tuple[Source, CalibrationSet]":
    from robustscanner.engine import default_engine

    from .engine.source import load_source
    from .int8.calibration import load_calibration

    source = load_source(options.model or default_engine(), scratch)
    calibration = load_calibration(options.calib_data, source.spec.input, images=options.calib_images)
    report_unreadable(calibration)
    return source, calibration


def _make(
    source: "Source", calibration: "CalibrationSet", library: "Library | None", options: BuildOptions, folder: Path
) -> "Product":
    from .cpu.backend import make as make_for_cpu

    if library is None or options.tensorrt is None:
        chosen = options.quantize if options.precision == "int8" else None
        return make_for_cpu(source, calibration, chosen, folder)
    from .trt.backend import make as make_for_tensorrt

    return make_for_tensorrt(source, calibration, library, options.tensorrt, folder)


def _make_and_measure(
    source: "Source", calibration: "CalibrationSet", library: "Library | None", options: BuildOptions, folder: Path
) -> "tuple[Product, EngineAccuracy]":
    product = _make(source, calibration, library, options, folder)
    _write_manifest(source, options.precision, product, None, folder)
    return product, measure(source.path, folder, product, calibration)


def _mend(source: "Source", calibration: "CalibrationSet", options: BuildOptions) -> BuildOptions:
    """The same, with more layers in FP32."""
    from .accuracy.gate import repair

    assert options.gate is not None
    chosen = repair(source, calibration, options.quantize, options.gate, for_tensorrt=options.tensorrt is not None)
    tensorrt = replace(options.tensorrt, quantize=chosen) if options.tensorrt else None
    return replace(options, quantize=chosen, tensorrt=tensorrt)


def _remove(product: "Product", folder: Path) -> None:
    for name in product.files:
        (folder / name).unlink()


def _write_manifest(
    source: "Source", precision: str, product: "Product", accuracy: "EngineAccuracy | None", folder: Path
) -> "EngineManifest":
    from robustscanner.engine import MANIFEST_NAME, EngineManifest, file_sha256, read_manifest

    from .graph.model_file import file_step

    build_step = file_step("build", "convert/build_engine.py", source.path)
    manifest = EngineManifest(
        model=source.spec,
        precision=precision,
        batch=product.batch,
        backend=product.backend,
        versions={**_versions(), **product.versions},
        device=product.device,
        accuracy=accuracy,
        history=(*source.history, *product.steps, build_step),
        files={name: file_sha256(folder / name) for name in product.files},
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return read_manifest(folder)  # as serving will


def _read_crops(model: Path, calibration: "CalibrationSet", *, host_code: bool = False) -> list[str]:
    from tqdm import tqdm  # type: ignore[import-untyped]

    from robustscanner.recognizer import Recognizer
    from robustscanner.session import GpuOptions, SessionOptions

    texts = []
    options = SessionOptions(spinning=False, gpu=GpuOptions(host_code=host_code))
    with Recognizer(model, options=options) as recognizer:
        paths = [crop.path for crop in calibration.crops]
        for path, result in tqdm(recognizer.read_each(paths), "reading", len(paths), leave=False, disable=None):
            if isinstance(result, ImageError):  # it could be read a minute ago
                raise DataError(f"{path}: changed while the engine was built ({result}); start again")
            texts.append(result.text)
    return texts


def _versions() -> dict[str, str]:
    import numpy
    import onnx

    from robustscanner import __version__
    from robustscanner.preprocess import cv2

    libraries = {"onnx": onnx, "opencv": cv2, "numpy": numpy}
    return {"robustscanner": __version__, **{name: library.__version__ for name, library in libraries.items()}}


def _print_summary(output: Path, manifest: "EngineManifest", product: "Product") -> None:
    titles = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
    runtime = f"{titles[manifest.backend]} {manifest.versions[manifest.backend]}"
    where = manifest.device.get("targets") or manifest.device["name"]
    print(f"{output}: {manifest.model.name}, {manifest.precision.upper()} for {runtime} on {where}")
    _print_lines(product.summary)
    if accuracy := manifest.accuracy:
        text = (
            f"{accuracy.engine_rate:.1%} of {accuracy.words} calibration words "
            f"(FP32 {accuracy.fp32_rate:.1%}); {accuracy.agreement:.1%} read alike"
        )
        _print_lines([("accuracy", text + ("; simulated, no GPU here runs it" if accuracy.simulated else ""))])
    allow = " --allow-host-code" if manifest.device.get("version_compatible") == "true" else ""
    _print_lines([("try it", f"python runtime/recognize.py --engine {shlex.quote(str(output))}{allow} IMAGE")])
    for line in product.details:
        logger.info("  %s", line)


def _print_lines(lines: "Sequence[tuple[str, str]]") -> None:
    for what, text in lines:
        print(f"  {what:<13}{text}")


if __name__ == "__main__":
    sys.exit(main())
