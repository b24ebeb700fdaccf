// A borrowed NVIDIA GPU: memory, a stream, events, and recorded launches. The only file that uses CUDA's runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "robustscanner/engine.hpp"

namespace robustscanner {

inline constexpr std::size_t alignment_bytes = 256;  // of every allocation, and what TensorRT asks of every address
inline constexpr const char* on_cpu = "use an engine for ONNX Runtime: build_engine.py --backend onnxruntime";

// A call of CUDA that failed.
class CudaError : public std::runtime_error {
   public:
    explicit CudaError(cudaError_t status)
        : std::runtime_error(std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status)),
          status_(status) {}

    bool is_out_of_memory() const { return status_ == cudaErrorMemoryAllocation; }

   private:
    cudaError_t status_;
};

void check_cuda(cudaError_t status);

// Whether a fault broke this process's use of the GPU, which stays so until the process ends.
bool is_lost(int device) noexcept;

// Makes a GPU this thread's current one for as long as it lives.
class OnDevice {
   public:
    explicit OnDevice(int device);
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
    ~OnDevice();

   private:
    int before_ = 0;
};

struct FreeDevice {
    void operator()(std::uint8_t* memory) const { cudaFree(memory); }
};
struct FreeHost {
    void operator()(std::uint8_t* memory) const { cudaFreeHost(memory); }
};
using DeviceMemory = std::unique_ptr<std::uint8_t, FreeDevice>;
using HostMemory = std::unique_ptr<std::uint8_t, FreeHost>;  // page-locked, without which no copy is asynchronous

DeviceMemory device_memory(std::size_t size_bytes);
HostMemory host_memory(std::size_t size_bytes);  // the device can read and write it in place
std::uint8_t* device_address(const HostMemory& memory);

struct DestroyStream {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct DestroyEvent {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct DestroyGraph {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraph>;

Stream make_stream();
Event make_event(bool spinning);

// Records what `queue` queues, which does not run now. Throws CudaError, or what `queue` does.
Graph record(cudaStream_t stream, const std::function<void()>& queue);

// What a TensorRT engine has to fit here. Throws EngineError: no GPU of that number.
HostFacts gpu_facts(int device);

// Whether CPU and GPU share their memory, as on Jetson.
bool is_integrated(int device);

}  // namespace robustscanner
