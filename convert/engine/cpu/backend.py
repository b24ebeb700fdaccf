"""Engines for ONNX Runtime: the one graph, as it is or with layers in 8 bits."""

import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import onnxruntime  # type: ignore[import-untyped]
from onnx import ModelProto

from robustscanner.engine import ONNX_NAME, BatchRange
from robustscanner.spec import ModelSpec

from ...graph.model_file import file_step, save_model, with_metadata
from ...int8.calibration import CalibrationSet, Collect, collect_ranges
from ...int8.placement import quantisable
from ...int8.qdq_onnxruntime import quantise_convolutions
from ...int8.recipe import Quantized, Recipe
from ..backend import Preview
from ..model_source import Source
from ..product import Product
from .graph import for_cpu
from .int8 import byte_layers, to_bytes

_SECOND_LAYER = "/backbone/layers/layers.1/*"  # of `edge`
_MAX_BATCH = 64  # pictures; ONNX Runtime takes any number, but memory grows and speed does not


@dataclass(frozen=True)
class CpuBackend:
    """ONNX Runtime on a CPU."""

    # x86 without VNNI adds pairs of products in 16 bits, where they saturate (docs/cpus.md).
    narrow_weights: ClassVar[bool] = True

    @staticmethod
    def quantise(
        source: Source, calibration: CalibrationSet, recipe: Recipe, *, collect: Collect = collect_ranges
    ) -> Quantized:
        """The graph as CPUs like it, with convolutions, pixels and the rows' LSTMs in 8 bits; see `Quantise`."""
        model = _graph(source)
        layers = recipe.choose([*quantisable(model.graph), *byte_layers(model.graph)])
        quantised, ranges = quantise_convolutions(model, layers, recipe, calibration, collect)
        quantised = to_bytes(quantised, layers, recipe.weight_bits)
        return Quantized.of(quantised, layers, recipe, exported=source.model, calibration=calibration, ranges=ranges)

    def make(self, source: Source, calibration: CalibrationSet, recipe: Recipe | None, folder: Path) -> Product:
        """Writes `model.onnx`; see `Backend`."""
        target, steps = folder / ONNX_NAME, []
        quantized = self.quantise(source, calibration, recipe) if recipe else None
        if quantized is None:
            _write_float(source, target)
        else:
            steps = [file_step("quantize", "convert/build_engine.py", source.path) | quantized.details]
            save_model(with_metadata(quantized.model, source.spec, [*source.history, *steps]), target, force=False)
        before, after = (path.stat().st_size / 1e6 for path in (source.path, target))
        size = f"{after:.1f} MB" + (f" (FP32 {before:.1f} MB)" if quantized else "")
        told = [("quantised", f"{quantized}{_where(quantized)}")] if quantized else []
        return Product(
            "onnxruntime",
            files=[ONNX_NAME],
            batch=BatchRange(min=1, opt=1, max=_MAX_BATCH),
            versions={"onnxruntime": onnxruntime.__version__},
            device=_device(),
            steps=steps,
            summary=[*told, ("size", size)],
            details=[f"stays FP32: {name}" for name in quantized.excluded] if quantized else [],
        )

    def preview(self, source: Source, calibration: CalibrationSet, recipe: Recipe | None) -> Preview:
        """See `Backend`."""
        title = f"ONNX Runtime {onnxruntime.__version__}"
        if recipe is None:
            return Preview(title, [("layers", "all Float")], [])
        quantized = self.quantise(source, calibration, recipe)
        lines = [f"Int8   {name}" for name in quantized.layers] + [f"Float  {name}" for name in quantized.excluded]
        return Preview(title, [("quantised", str(quantized))], lines)

    def settle(self, recipe: Recipe, spec: ModelSpec) -> Recipe:
        """See `Backend`.

        The keys' layers stay FP32, as softmax magnifies what they lose; the position branch's first convolution and its
        LSTM lose nothing that counts: of 684 held-out training crops, 402 are right with or without. The second
        layer of `edge` gains no time and loses most: of 2,760 held-out and rendered words, FP32 reads 1,931, INT8
        1,919 with 8 bits there and 1,936 without. Training with rounding leaves ranges of the backbone only, and is
        used to them.

        Weights of 7 bits, which are right everywhere, cost `edge` and `r31` nothing that can be measured. They are too
        coarse for the layers that close the blocks of `small`, which stay FP32. With 8 bits throughout, it takes a
        quarter less time, but loses 0.6 instead of 0.2 points on 5,015 words (accuracy-small.json).
        """
        if recipe.method == "qat":
            return recipe.settled(spec, ("*/mixer.*",), narrow=self.narrow_weights)
        second = (_SECOND_LAYER,) if spec.network.backbone == "edge" else ()
        return recipe.settled(spec, ("*/mixer.2/*", *second), narrow=self.narrow_weights)


def _write_float(source: Source, target: Path) -> None:
    """Where every word has a canvas of its own width, no column is left out, and the graph for CPUs is the same one."""
    if source.spec.input.canvas_step_px:
        save_model(with_metadata(_graph(source), source.spec, source.history), target, force=False)
    else:
        shutil.copyfile(source.path, target)


@lru_cache(maxsize=1)
def _graph(source: Source) -> ModelProto:
    """Kept for the next time: repairs quantise one model again and again."""
    return for_cpu(source.model, source.spec)


def _where(quantized: Quantized) -> str:
    """Which CPUs an engine is right on, if not on all of them."""
    fits_all = quantized.details["weight_bits"] < 8
    return "" if fits_all else "; 8-bit weights, not for x86 without VNNI: --reduce-range is right on every CPU"


def _device() -> dict[str, str]:
    """The CPU: Linux names it in /proc/cpuinfo, on some ARM boards in the device tree only."""
    names = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    with suppress(OSError):
        names.append(Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n"))
    return {"name": (names or [platform.processor() or "CPU"])[0], "machine": platform.machine()}
