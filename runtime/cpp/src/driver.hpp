// Functions of NVIDIA's driver for which CUDA's runtime has none: loading and launching compiled kernels. They are
// looked up when they are needed, so that nothing of ours is linked with the driver.
#pragma once

#include <cuda.h>

#include "gpu.hpp"

namespace robustscanner {

// Throws EngineError: there is none, the driver is too old.
void* driver_function(const char* name);

// Calls one by its name. Throws as `driver_function` does, and CudaError: it failed.
#define CALL_DRIVER(name, ...) \
    check_cuda(static_cast<cudaError_t>(reinterpret_cast<decltype(&name)>(driver_function(#name))(__VA_ARGS__)))

}  // namespace robustscanner
