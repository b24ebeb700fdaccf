"""Engines for ONNX Runtime: the one graph, as it is or with Q/DQ nodes."""

import platform
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from robustscanner.engine import ONNX_NAME, BatchRange

from ..engine.product import Product
from ..engine.source import Source
from ..graph.model_file import file_step, save_model, with_metadata
from ..int8.calibration import CalibrationSet
from ..quantize import DEFAULT_EXCLUDE, Quantized, QuantizeOptions, describe, quantize
from .graph import for_cpu
from .int8 import to_bytes

# Instead of the default. Softmax magnifies what keys lose, so their layers stay FP32; the position branch's first
# convolution and its LSTM lose nothing that counts: of 684 held-out training crops, 402 are right with or without.
_EXCLUDE = ("/encoder/*", "*/mixer.2/*")
_MAX_BATCH = 64  # pictures; ONNX Runtime takes any number, but memory grows and speed does not


def make(source: Source, calibration: CalibrationSet, options: QuantizeOptions | None, folder: Path) -> Product:
    """Writes `model.onnx`; FP32 when there are no options for INT8."""
    import onnxruntime  # type: ignore[import-untyped]

    target = folder / ONNX_NAME
    quantized = _quantize(source, calibration, options) if options else None
    if quantized is None:
        shutil.copyfile(source.path, target)
    else:
        step = file_step("quantize", "convert/build_engine.py", source.path) | quantized.details
        save_model(with_metadata(quantized.model, source.spec, [*source.history, step]), target, force=False)
    return Product(
        "onnxruntime",
        files=[ONNX_NAME],
        batch=BatchRange(min=1, opt=1, max=_MAX_BATCH),
        versions={"onnxruntime": onnxruntime.__version__},
        device=_device(),
        steps=[step] if quantized else [],
        summary=_summary(source, quantized, target),
        details=[f"stays FP32: {name}" for name in quantized.placement.excluded] if quantized else [],
    )


def _quantize(source: Source, calibration: CalibrationSet, options: QuantizeOptions) -> Quantized:
    """With patterns of the user, just these stay float; by default, more than convolutions is computed in 8 bits."""
    model = for_cpu(source.model, source.spec)
    is_default = tuple(options.exclude) == DEFAULT_EXCLUDE
    if is_default and options.method != "qat":  # which knows ranges of the backbone only
        options = replace(options, exclude=_EXCLUDE)
    result = quantize(model, calibration, options)
    model, changed = to_bytes(result.model, result.details["weight_bits"]) if is_default else (result.model, ())
    exported = [node.name for node in source.model.graph.node if node.op_type == "Conv"]
    chosen = tuple(name for name in exported if name in (*changed, *result.placement.convolutions))
    excluded = tuple(name for name in exported if name not in chosen)
    details = {
        **result.details,
        "excluded": list(excluded),
        "also_int8": [name for name in changed if name not in exported],
    }
    return Quantized(model, replace(result.placement, convolutions=chosen, excluded=excluded), details)


def _summary(source: Source, quantized: Quantized | None, target: Path) -> list[tuple[str, str]]:
    before, after = (path.stat().st_size / 1e6 for path in (source.path, target))
    if quantized is None:
        return [("size", f"{after:.1f} MB")]
    return [("quantised", describe(quantized)), ("size", f"{after:.1f} MB (FP32 {before:.1f} MB)")]


def _device() -> dict[str, str]:
    """The CPU: Linux names it in /proc/cpuinfo, on some ARM boards in the device tree only."""
    names = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    with suppress(OSError):
        names.append(Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n"))
    return {"name": (names or [platform.processor() or "CPU"])[0], "machine": platform.machine()}
