"""Builds an engine: a model, made ready for this machine, with a record of how it was made."""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.program import exit_status
from robustscanner.scoring import Scorer, add_protocol_argument

from .engine.accuracy.arguments import add_gate_arguments, gate_options
from .engine.trt.arguments import add_tensorrt_arguments, refuse_tensorrt_arguments, tensorrt_options
from .int8.arguments import add_calibration_arguments, load_crops, recipe_of

if TYPE_CHECKING:
    from robustscanner.engine import EngineAccuracy, EngineManifest

    from .engine.accuracy.gate import GateOptions
    from .engine.backend import Backend
    from .engine.model_source import Source
    from .engine.product import Product
    from .int8.calibration import CalibrationSet
    from .int8.recipe import Recipe

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
    backend: "Backend"
    recipe: "Recipe | None"  # None: nothing is quantised
    calib_data: Path  # folder with labels.tsv; also measures the engine's accuracy
    calib_images: int  # crops to draw from it
    gate: "GateOptions | None"  # None: any accuracy will do
    protocol: str  # what counts when words are scored, see robustscanner.scoring
    force: bool  # replace an existing engine


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parsed = _parse(arguments)
    return exit_status(lambda: _run(parsed), interrupted="interrupted; nothing was written")


def build(options: BuildOptions) -> "EngineManifest":
    """Load, make, measure, repair if need be, write, and say what came out.

    Raises:
        RobustScannerError: anything the user can fix; then nothing was written.
    """
    from .engine.bundle import write_manifest, writing_bundle

    output = options.output
    assert output is not None
    with TemporaryDirectory() as scratch, writing_bundle(output, force=options.force) as folder:
        source, calibration = _load(options, Path(scratch))
        options = _settled(options, source)
        scorer = Scorer.of(source.spec, [crop.label for crop in calibration.crops], options.protocol)
        product, accuracy = _make_and_measure(source, calibration, scorer, options, folder)
        if gate := options.gate:
            gate.check_measured(accuracy, scorer)
            restored: tuple[str, ...] = ()
            if gate.repair and not gate.lets_pass(accuracy):
                options, restored = _repair(source, calibration, options, gate)
                _remove(product, folder)
                product, accuracy = _make_and_measure(source, calibration, scorer, options, folder)
            gate.check(accuracy, options.precision, saturates=_saturates(options))
            product = replace(product, steps=[*product.steps, gate.step(accuracy, restored)])
        manifest = write_manifest(source, options.precision, product, accuracy, folder)
        if product.compare is not None:
            product = replace(product, summary=[*product.summary, product.compare(folder)])
    _print_summary(output, manifest, product)
    return manifest


def preview(options: BuildOptions) -> None:
    """Say what would run in which precision, and write nothing but the list of layers.

    Raises:
        RobustScannerError: anything the user can fix.
    """
    with TemporaryDirectory() as scratch:
        source, calibration = _load(options, Path(scratch))
        found = options.backend.preview(source, calibration, _settled(options, source).recipe)
    print(f"would build with {found.title}:")
    _print_lines(found.summary)
    for line in found.details:
        logger.info("  %s", line)


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
    parser.add_argument("--dry-run", action="store_true", help="build nothing; say what would run in which precision")
    add_calibration_arguments(parser)
    add_protocol_argument(parser)
    add_gate_arguments(parser)
    add_tensorrt_arguments(parser)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing engine")
    parser.add_argument("-v", "--verbose", action="store_true", help="name layers, and convolutions that stay FP32")
    parsed = parser.parse_args(arguments)
    if not parsed.output and not parsed.dry_run:
        parser.error("the following arguments are required: -o/--output")
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    return parsed


def _options(parsed: argparse.Namespace) -> BuildOptions:
    gate, backend = gate_options(parsed), _open_backend(parsed)
    quantised = parsed.precision == "int8" and not parsed.int8_calibrator
    recipe = recipe_of(parsed)
    return BuildOptions(
        model=parsed.model,
        output=parsed.output,
        precision=parsed.precision,
        backend=backend,
        recipe=recipe if quantised else None,
        calib_data=parsed.calib_data,
        calib_images=parsed.calib_images,
        gate=gate,
        protocol=parsed.protocol,
        force=parsed.force,
    )


def _open_backend(parsed: argparse.Namespace) -> "Backend":
    name = _backend_name(parsed)
    if name == "onnxruntime":
        refuse_tensorrt_arguments(parsed)
        from .engine.cpu.backend import CpuBackend

        return CpuBackend()
    from .engine.trt.backend import TensorRTBackend

    return TensorRTBackend.open(name, tensorrt_options(parsed), reads=not parsed.dry_run)


def _backend_name(parsed: argparse.Namespace) -> str:
    if parsed.backend != "auto":
        return str(parsed.backend)
    if parsed.target:
        return "tensorrt-rtx"
    from .engine.trt.installed import backend_for_this_gpu

    return backend_for_this_gpu() or "onnxruntime"


def _load(options: BuildOptions, scratch: Path) -> "tuple[Source, CalibrationSet]":
    from robustscanner.engine import default_engine

    from .engine.model_source import load_source

    source = load_source(options.model or default_engine(), scratch)
    return source, load_crops(options.calib_data, options.calib_images, source.spec.input)


def _settled(options: BuildOptions, source: "Source") -> BuildOptions:
    recipe = options.recipe and options.backend.settle(options.recipe, source.spec)
    return replace(options, recipe=recipe)


def _make_and_measure(
    source: "Source", calibration: "CalibrationSet", scorer: Scorer, options: BuildOptions, folder: Path
) -> "tuple[Product, EngineAccuracy]":
    from .engine.accuracy.measure import measure
    from .engine.bundle import write_manifest

    product = options.backend.make(source, calibration, options.recipe, folder)
    write_manifest(source, options.precision, product, None, folder)
    return product, measure(source.path, folder, product, calibration, scorer)


def _saturates(options: BuildOptions) -> bool:
    """Whether 8-bit weights were asked for on a CPU that adds their products wrongly."""
    from robustscanner.cpu import int8_saturates

    asked = options.recipe is not None and not options.recipe.reduce_range
    return options.backend.narrow_weights and asked and int8_saturates()


def _repair(
    source: "Source", calibration: "CalibrationSet", options: BuildOptions, gate: "GateOptions"
) -> tuple[BuildOptions, tuple[str, ...]]:
    """The same with more layers in FP32, and those layers."""
    from .engine.accuracy.gate import repair

    assert options.recipe is not None  # --repair is for INT8
    restored = repair(options.backend.quantise, source, calibration, options.recipe, gate, protocol=options.protocol)
    return replace(options, recipe=options.recipe.sparing(restored)), restored


def _remove(product: "Product", folder: Path) -> None:
    for name in product.files:
        (folder / name).unlink()


def _print_summary(output: Path, manifest: "EngineManifest", product: "Product") -> None:
    titles = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
    runtime = f"{titles[manifest.backend]} {manifest.versions[manifest.backend]}"
    where = manifest.device.get("targets") or manifest.device["name"]
    print(f"{output}: {manifest.model.name}, {manifest.precision.upper()} for {runtime} on {where}")
    _print_lines(product.summary)
    if accuracy := manifest.accuracy:
        text = (
            f"{accuracy.engine_rate:.1%} of {accuracy.words} calibration words "
            f"(FP32 {accuracy.fp32_rate:.1%}); {accuracy.agreement:.1%} read alike; protocol: {accuracy.protocol}"
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
