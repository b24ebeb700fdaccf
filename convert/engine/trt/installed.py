"""One of NVIDIA's two TensorRT libraries, and what the installed version of it can do."""

import ctypes
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from robustscanner.errors import EngineError
from robustscanner.gpu.device import load_lazily

_INSTALL = {
    "tensorrt": "pip install tensorrt, or on a Jetson apt install python3-libnvinfer and a virtual environment made "
    "with --system-site-packages",
    "tensorrt-rtx": "pip install tensorrt-rtx",
}

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…


@dataclass(frozen=True)
class Features:
    """What this version has, found by looking for the names: version numbers do not tell, least of all on a Jetson."""

    weak_typing: bool  # precision is what builder flags allow; gone from TensorRT 11 and TensorRT-RTX
    strong_typing: bool  # precision is what the graph says
    int8_flag: bool  # weak typing knows INT8
    calibrator: bool  # IInt8EntropyCalibrator2 can be attached; gone from TensorRT 11
    explicit_batch_flag: bool  # and so must be set; gone from TensorRT 11
    progress_monitor: bool  # a build tells how far it is and can be stopped; from TensorRT 10 on
    timing_cache: bool
    version_compatible: bool
    optimization_level: bool  # from TensorRT 8.6 on
    targets: tuple[str, ...]  # "sm_86", …: GPUs it builds for on any machine; TensorRT-RTX only


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT."""

    module: Any  # tensorrt or tensorrt_rtx
    backend: str  # "tensorrt" or "tensorrt-rtx", as in `engine.json`
    version: str
    features: Features

    @property
    def title(self) -> str:
        """For messages: «TensorRT 10.3.0»."""
        return f"{'TensorRT-RTX' if self.backend == 'tensorrt-rtx' else 'TensorRT'} {self.version}"

    def is_strong(self, typing: str) -> bool:
        """Whether networks are to be strongly typed.

        Args:
            typing: "strong", "weak", or "auto", which is strong where the library has it.

        Raises:
            EngineError: this version has no such typing.
        """
        if typing == "auto":
            return self.features.strong_typing
        if not getattr(self.features, f"{typing}_typing"):
            raise EngineError(f"{typing} typing: {self.title} does not have it; leave the choice to the kit")
        return typing == "strong"


def load_library(backend: str) -> TensorRT:
    """Imports "tensorrt" or "tensorrt-rtx".

    Raises:
        EngineError: not installed, or its shared libraries are not found.
    """
    try:
        if backend == "tensorrt":
            import tensorrt as module  # type: ignore[import-not-found]
        else:
            import tensorrt_rtx as module  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:
        raise EngineError(f"{backend} cannot be imported ({error}); {_INSTALL[backend]}") from None
    return describe(module, backend)


def describe(module: Any, backend: str) -> TensorRT:
    """Finds out what an imported module can do."""
    flags, config = module.BuilderFlag, module.IBuilderConfig
    weak = hasattr(flags, "FP16")
    rtx = backend == "tensorrt-rtx"
    features = Features(
        strong_typing=hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or not weak,
        weak_typing=weak,
        int8_flag=hasattr(flags, "INT8"),
        calibrator=hasattr(module, "IInt8EntropyCalibrator2") and hasattr(config, "int8_calibrator"),
        explicit_batch_flag=hasattr(module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"),
        progress_monitor=hasattr(module, "IProgressMonitor"),
        timing_cache=not rtx,  # TensorRT-RTX has the names, but they do nothing: it chooses kernels where it runs
        version_compatible=hasattr(flags, "VERSION_COMPATIBLE") and not rtx,  # its lean runtime is not in the wheels
        optimization_level=hasattr(config, "builder_optimization_level"),
        targets=_targets(module),
    )
    return TensorRT(module, backend, str(module.__version__), features)


def local_gpu() -> str | None:
    """The first GPU's compute capability, e.g. "sm_87"; None without one.

    Asks NVIDIA's driver, as TensorRT says it only in a log.
    """
    load_lazily()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    device, major, minor = (ctypes.c_int() for _ in range(3))
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device) or driver.cuDeviceGetAttribute(
        ctypes.byref(minor), _MINOR, device
    ):
        return None
    return f"sm_{major.value}{minor.value}"


def backend_for_this_gpu() -> str | None:
    """ "tensorrt" or "tensorrt-rtx", whichever is installed and builds for the GPU here; None if neither does."""
    here = local_gpu()
    if here is None:
        return None
    if find_spec("tensorrt"):
        return "tensorrt"
    if find_spec("tensorrt_rtx") and here in load_library("tensorrt-rtx").features.targets:
        return "tensorrt-rtx"
    return None


def _targets(module: Any) -> tuple[str, ...]:
    """Of the enum's SM75, SM86, …, in the order of their numbers."""
    found = re.findall(r"\bSM(\d+)\b", " ".join(dir(getattr(module, "ComputeCapability", None))))
    return tuple(f"sm_{number}" for number in sorted(found, key=int))
