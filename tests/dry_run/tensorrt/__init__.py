"""TensorRT 10.3 for a dry run of `make gpu` on the stand-in driver: found before any other on PYTHONPATH.

It builds what the real TensorRT-RTX can build, too, and refuses what that refuses. ONNX Runtime computes the plans.
"""

import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(_ROOT / "runtime"), str(_ROOT), str(_ROOT / "tests" / "runtime")]

import fake_gpu
import onnx

from tests.convert.engine.trt import fake_tensorrt

_TARGET = "SM80"  # of TensorRT-RTX, which builds for no GPU that also JetPack has


class _Gpu(fake_gpu.FakeGpu):
    """The machine that the driver was told to be when this process began."""

    def check_context(self) -> None:
        """TensorRT makes the primary context current by itself."""


def _build(model: bytes, notes: fake_tensorrt.Notes) -> bytes | None:
    try:
        import tensorrt_rtx as rtx  # type: ignore[import-untyped]
    except ImportError:
        print("TensorRT-RTX is not installed: nothing is really built", file=sys.stderr)
    else:
        if not _builds(rtx, model, notes):
            return None
    smallest, _, largest = next(iter(notes.profiles.values()))
    shapes = {name: [(-1, *shape[1:]) for shape in found] for name, found in notes.profiles.items()}
    return fake_gpu.plan(onnx.load_model_from_string(model), smallest[0], largest[0], shapes=shapes)


def _builds(rtx: Any, model: bytes, notes: fake_tensorrt.Notes) -> bool:
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, logger)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, shapes in notes.profiles.items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(rtx.ComputeCapability, _TARGET), 0)
    return bool(parser.parse(model)) and builder.build_serialized_network(network, config) is not None


_library, _notes = fake_tensorrt.load("10.3.0")
_notes.make_plan = _build
_gpu = _Gpu()
_gpu.driver.attach()
globals().update(vars(_library.module) | vars(fake_gpu._tensorrt(_gpu, "tensorrt")))
fake_gpu.ILogger.Severity = _library.module.ILogger.Severity  # type: ignore[attr-defined]
__version__ = _library.version
