"""Builds an engine: a model, made ready for this machine, with its papers."""

import argparse
import logging
import platform
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.errors import EngineError, ImageError
from robustscanner.labels import DataError
from robustscanner.program import exit_status

from .quantize import (
    Quantized,
    QuantizeOptions,
    add_calibration_arguments,
    describe,
    load_float_model,
    quantize,
    quantize_options,
    report_unreadable,
)

if TYPE_CHECKING:
    from onnx import ModelProto

    from robustscanner.engine import EngineAccuracy, EngineManifest
    from robustscanner.spec import ModelSpec

    from .calibration import CalibrationSet

EPILOG = """examples:
  build_engine.py --int8 -o edge-int8.engine                         the shipped model
  build_engine.py runs/edge/best.safetensors --int8 -o edge.engine   a checkpoint (needs PyTorch)
  build_engine.py r31.onnx --int8 -o r31.engine --calib-data crops/ --calib-method max
  build_engine.py r31.onnx --fp32 -o r31.engine
"""

_MAX_BATCH = 64  # pictures; ONNX Runtime takes any number, but memory grows and speed does not

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """What to build from what."""

    model: Path | None  # NAME.onnx or a checkpoint NAME.safetensors; None: the model that ships with the library
    output: Path  # NAME.engine
    precision: str  # "fp32" or "int8"
    calib_data: Path  # folder with labels.tsv; also measures the engine's accuracy
    calib_images: int  # crops to draw from it
    quantize: QuantizeOptions = QuantizeOptions()
    backend: str = "auto"  # which is ONNX Runtime
    force: bool = False  # replace an existing engine


@dataclass(frozen=True)
class Source:
    """The FP32 model an engine is built from."""

    path: Path  # of the ONNX file
    model: "ModelProto"
    spec: "ModelSpec"
    history: Sequence[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to mend."""
    options = _parse(arguments)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return exit_status(lambda: build(options), interrupted="interrupted; nothing was written")
    finally:
        signal.signal(signal.SIGTERM, previous)


def build(options: BuildOptions) -> "EngineManifest":
    """Load, quantise, measure, write, and say what came out.

    Raises:
        RobustScannerError: whatever the user can mend; then nothing was written.
    """
    from robustscanner.engine import ONNX_NAME, default_engine

    from .bundle import writing_bundle

    _check_target(options)
    with TemporaryDirectory() as scratch, writing_bundle(options.output, force=options.force) as folder:
        source = _load_source(options.model or default_engine(), Path(scratch))
        calibration = _load_calibration(options, source.spec)
        quantized = quantize(source.model, calibration, options.quantize) if options.precision == "int8" else None
        history = _write_model(source, quantized, folder / ONNX_NAME)
        accuracy = measure(source.path, folder / ONNX_NAME, calibration)
        manifest = _write_manifest(source, options.precision, accuracy, history, folder)
        sizes = [path.stat().st_size for path in (source.path, folder / ONNX_NAME)]
    _print_summary(options, manifest, quantized, sizes)
    return manifest


def measure(source: Path, engine: Path, calibration: "CalibrationSet") -> "EngineAccuracy":
    """Reads the calibration crops with both models, as serving does."""
    from robustscanner.engine import EngineAccuracy
    from robustscanner.metrics import score_words

    expected, got = _read_crops(source, calibration), _read_crops(engine, calibration)
    labels = [crop.label for crop in calibration.crops]
    before, after = score_words(expected, labels), score_words(got, labels)
    alike = sum(a == b for a, b in zip(expected, got, strict=True)) / len(got)
    return EngineAccuracy(after.words, fp32_rate=before.rate, engine_rate=after.rate, agreement=alike)


def _parse(arguments: Sequence[str] | None) -> BuildOptions:
    from robustscanner.engine import BACKENDS

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
    for name in ("fp32", "fp16", "int8"):
        precision.add_argument(f"--{name}", dest="precision", action="store_const", const=name)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.engine")
    parser.add_argument("--backend", choices=("auto", *BACKENDS), default="auto", help="default: auto")
    add_calibration_arguments(parser)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing engine")
    parser.add_argument("-v", "--verbose", action="store_true", help="name the convolutions that stay FP32")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    return BuildOptions(
        model=parsed.model,
        output=parsed.output,
        precision=parsed.precision,
        backend=parsed.backend,
        calib_data=parsed.calib_data,
        calib_images=parsed.calib_images,
        quantize=quantize_options(parsed),
        force=parsed.force,
    )


def _interrupt(*_: object) -> None:
    """SIGTERM cleans up as Ctrl-C does."""
    raise KeyboardInterrupt


def _check_target(options: BuildOptions) -> None:
    if options.backend not in ("auto", "onnxruntime"):
        raise EngineError(f"--backend {options.backend}: comes with the next release; use --backend onnxruntime")
    if options.precision == "fp16":
        raise EngineError("--fp16: comes with the next release, for TensorRT; use --fp32 or --int8")


def _load_source(path: Path, scratch: Path) -> Source:
    onnx_path = _export(path, scratch) if path.suffix == ".safetensors" else path
    model, spec, history = load_float_model(onnx_path)
    return Source(onnx_path, model, spec, history)


def _export(checkpoint: Path, scratch: Path) -> Path:
    from .export_onnx import export

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


def _load_calibration(options: BuildOptions, spec: "ModelSpec") -> "CalibrationSet":
    from .calibration import load_calibration

    calibration = load_calibration(options.calib_data, spec.input, images=options.calib_images)
    report_unreadable(calibration)
    return calibration


def _write_model(source: Source, quantized: Quantized | None, target: Path) -> list[dict[str, Any]]:
    """Writes the graph that serving opens; returns its history."""
    from .artefact import file_step, save_model, with_metadata

    history = list(source.history)
    if quantized is None:
        shutil.copyfile(source.path, target)
        return history
    history.append(file_step("quantize", "convert/build_engine.py", source.path) | quantized.details)
    save_model(with_metadata(quantized.model, source.spec, history), target, force=False)
    return history


def _write_manifest(
    source: Source, precision: str, accuracy: "EngineAccuracy", history: Sequence[dict[str, Any]], folder: Path
) -> "EngineManifest":
    from robustscanner.engine import MANIFEST_NAME, ONNX_NAME, BatchRange, EngineManifest, file_sha256, read_manifest

    from .artefact import file_step

    manifest = EngineManifest(
        model=source.spec,
        precision=precision,
        batch=BatchRange(min=1, opt=1, max=_MAX_BATCH),
        backend="onnxruntime",
        versions=_versions(),
        device=_device(),
        accuracy=accuracy,
        history=(*history, file_step("build", "convert/build_engine.py", source.path)),
        files={ONNX_NAME: file_sha256(folder / ONNX_NAME)},
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return read_manifest(folder)  # as serving will


def _read_crops(model: Path, calibration: "CalibrationSet") -> list[str]:
    from tqdm import tqdm  # type: ignore[import-untyped]

    from robustscanner.recognizer import Recognizer
    from robustscanner.session import SessionOptions

    texts = []
    with Recognizer(model, options=SessionOptions(spinning=False)) as recognizer:
        paths = [crop.path for crop in calibration.crops]
        for path, result in tqdm(recognizer.read_each(paths), "reading", len(paths), leave=False, disable=None):
            if isinstance(result, ImageError):  # it could be read a minute ago
                raise DataError(f"{path}: changed while the engine was built ({result}); start again")
            texts.append(result.text)
    return texts


def _versions() -> dict[str, str]:
    import numpy
    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    from robustscanner import __version__
    from robustscanner.preprocess import cv2

    libraries = {"onnxruntime": onnxruntime, "onnx": onnx, "opencv": cv2, "numpy": numpy}
    return {"robustscanner": __version__, **{name: library.__version__ for name, library in libraries.items()}}


def _device() -> dict[str, str]:
    """The CPU: Linux names it in /proc/cpuinfo, on some ARM boards in the device tree only."""
    names = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    with suppress(OSError):
        names.append(Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n"))
    return {"name": (names or [platform.processor() or "CPU"])[0], "machine": platform.machine()}


def _print_summary(
    options: BuildOptions, manifest: "EngineManifest", quantized: Quantized | None, sizes: Sequence[int]
) -> None:
    before, after = (size / 1e6 for size in sizes)
    accuracy = manifest.accuracy
    kind, runtime = manifest.precision.upper(), f"ONNX Runtime {manifest.versions['onnxruntime']}"
    print(f"{options.output}: {manifest.model.name}, {kind} for {runtime} on {manifest.device['name']}")
    if quantized:
        print(f"  quantised  {describe(quantized)}")
        print(f"  size       {after:.1f} MB (FP32 {before:.1f} MB)")
    else:
        print(f"  size       {after:.1f} MB")
    if accuracy:
        print(
            f"  accuracy   {accuracy.engine_rate:.1%} of {accuracy.words} calibration words "
            f"(FP32 {accuracy.fp32_rate:.1%}); {accuracy.agreement:.1%} read alike"
        )
    print(f"  try it     python runtime/recognize.py --engine {shlex.quote(str(options.output))} IMAGE")
    for name in quantized.placement.excluded if quantized else ():
        logger.info("  stays FP32: %s", name)


if __name__ == "__main__":
    sys.exit(main())
