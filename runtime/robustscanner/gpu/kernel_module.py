"""Compiled CUDA kernels on a GPU: how they are loaded, how much of it a launch takes, and how it is queued."""

import ctypes
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustscanner.errors import EngineError
from robustscanner.gpu.device import Gpu, call_driver, first_line
from robustscanner.gpu.kernels import (
    BLOCKS_OF_GROUP,
    SCRATCH_HEADER_BYTES,
    SLOT_BYTES,
    THREADS,
    DecodeCall,
    DecodeSizes,
    Launch,
    Room,
    RowsCall,
    RowsSizes,
    Weight,
    plan_launch,
)
from robustscanner.gpu.plan import REBUILD

_FIRST_WITH_CLUSTERS = 9  # compute capability


class KernelModule:
    """A file of compiled kernels, loaded.

    Args:
        gpu: whose context is current.
        image: the file.

    Raises:
        EngineError: no cuda.bindings, or kernels for another GPU.
    """

    def __init__(self, gpu: Gpu, image: Path) -> None:
        self.gpu, self.cuda = gpu, _bindings()
        self.call = partial(call_driver, self.cuda)
        self._module = self.call("cuModuleLoadData", image.read_bytes())
        gpu.own(self._unload)

    def kernel(self, name: str) -> "Kernel":
        """One of kernels.cu; raises EngineError where it is not in there."""
        return Kernel(self, self.call("cuModuleGetFunction", self._module, f"robustscanner_{name}".encode()))

    def scratch(self, slots: int) -> int:
        """Memory that launches without clusters keep between them."""
        return self.gpu.filled_memory({0: np.zeros(SCRATCH_HEADER_BYTES + SLOT_BYTES * slots, np.uint8)})[0]

    def place_weights(self, path: Path, layout: dict[str, Weight], size_bytes: int) -> dict[str, int]:
        """A file of weights into the GPU's memory: addresses by name."""
        packed = np.fromfile(path, np.uint8)
        if packed.nbytes != size_bytes:
            raise EngineError(f"{path.name} has {packed.nbytes} bytes, not {size_bytes}; {REBUILD}")
        base = self.gpu.filled_memory({0: packed})[0]
        return {name: base + weight.offset for name, weight in layout.items()}

    def room(self) -> Room:
        """Of this GPU."""
        names, device = self.cuda.CUdevice_attribute, self.call("cuCtxGetDevice")
        multiprocessors, shared, major = (
            int(self.call("cuDeviceGetAttribute", attribute, device))
            for attribute in (
                names.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                names.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            )
        )
        return Room(multiprocessors // BLOCKS_OF_GROUP, shared, clusters=major >= _FIRST_WITH_CLUSTERS)

    def _unload(self) -> None:
        with suppress(EngineError):  # of a GPU that failed
            self.call("cuModuleUnload", self._module)


class Kernel:
    """One of them."""

    def __init__(self, module: KernelModule, function: Any) -> None:
        self._module, self._function = module, function

    def plan(self, sizes: DecodeSizes | RowsSizes) -> Launch:
        """How it is launched for a batch; raises EngineError where that does not fit this GPU."""
        module, room = self._module, self._module.room()
        launch = plan_launch(sizes, room)
        attribute = module.cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        module.call("cuFuncSetAttribute", self._function, attribute, room.shared_bytes)
        if room.clusters:  # a GPC may have fewer multiprocessors left than clusters would need
            most = int(module.call("cuOccupancyMaxActiveClusters", self._function, self._config(launch)))
            launch = plan_launch(sizes, Room(min(most, room.groups), room.shared_bytes, clusters=True))
        return launch

    def queue(self, launch: Launch, call: DecodeCall | RowsCall) -> None:
        """Queues it."""
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(call))
        config = self._config(launch)
        self._module.call("cuLaunchKernelEx", config, self._function, ctypes.addressof(parameters), 0)

    def _config(self, launch: Launch) -> Any:
        """Blocks of a group have to run at once: as a cluster, or else all blocks of the launch."""
        cuda = self._module.cuda
        config, attribute = cuda.CUlaunchConfig(), cuda.CUlaunchAttribute()
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.groups * BLOCKS_OF_GROUP, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = THREADS, 1, 1
        config.sharedMemBytes, config.hStream = launch.shared_bytes, cuda.CUstream(self._module.gpu.stream.handle)
        ids = cuda.CUlaunchAttributeID
        if launch.scratch_slots:
            attribute.id = ids.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
            attribute.value.cooperative = 1
        else:
            attribute.id = ids.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            value = attribute.value
            value.clusterDim.x, value.clusterDim.y, value.clusterDim.z = BLOCKS_OF_GROUP, 1, 1
        config.attrs, config.numAttrs = [attribute], 1
        return config


def _bindings() -> Any:
    try:
        from cuda.bindings import driver as cuda  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except (ImportError, OSError, RuntimeError) as error:
        cure = "pip install cuda-bindings"
        raise EngineError(f"the kernels need cuda.bindings ({first_line(error)}); {cure}") from None
    return cuda
