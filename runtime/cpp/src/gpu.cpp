#include "gpu.hpp"

#include <algorithm>

#include "robustscanner/errors.hpp"

namespace robustscanner {
namespace {

// Of a fault after which CUDA answers every call with it.
bool is_lasting(cudaError_t status) {
    return (status >= cudaErrorIllegalAddress && status <= cudaErrorLaunchFailure) ||
           status == cudaErrorECCUncorrectable;
}

}  // namespace

void check_cuda(cudaError_t status) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // else the next call that succeeds would still report this one
    throw CudaError(status);
}

bool is_lost(int device) noexcept {
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(device);
    const auto status = cudaDeviceSynchronize();
    cudaSetDevice(before);
    cudaGetLastError();
    return is_lasting(status);
}

OnDevice::OnDevice(int device) {
    check_cuda(cudaGetDevice(&before_));
    check_cuda(cudaSetDevice(device));
}

OnDevice::~OnDevice() { cudaSetDevice(before_); }

DeviceMemory device_memory(std::size_t size_bytes) {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, std::max(size_bytes, alignment_bytes)));
    return DeviceMemory(static_cast<std::uint8_t*>(memory));
}

HostMemory host_memory(std::size_t size_bytes) {
    void* memory = nullptr;
    check_cuda(cudaHostAlloc(&memory, std::max(size_bytes, alignment_bytes), cudaHostAllocMapped));
    return HostMemory(static_cast<std::uint8_t*>(memory));
}

std::uint8_t* device_address(const HostMemory& memory) {
    void* address = nullptr;
    check_cuda(cudaHostGetDevicePointer(&address, memory.get(), 0));
    return static_cast<std::uint8_t*>(address);
}

Stream make_stream() {
    cudaStream_t stream = nullptr;
    // Work of others on the legacy stream would break a recording.
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return Stream(stream);
}

Event make_event(bool spinning) {
    cudaEvent_t event = nullptr;
    const unsigned flags = cudaEventDisableTiming | (spinning ? 0u : cudaEventBlockingSync);
    check_cuda(cudaEventCreateWithFlags(&event, flags));
    return Event(event);
}

Graph record(cudaStream_t stream, const std::function<void()>& queue) {
    cudaGraph_t graph = nullptr;
    // Thread-local: other threads of this process may allocate and wait meanwhile.
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
        queue();
    } catch (...) {
        // Ends the recording in any case, and a broken one with an error.
        if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
        cudaGetLastError();
        throw;
    }
    check_cuda(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t recorded = nullptr;
    const auto status = cudaGraphInstantiateWithFlags(&recorded, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(status);
    return Graph(recorded);
}

HostFacts gpu_facts(int device) {
    int count = 0;
    const auto status = cudaGetDeviceCount(&count);
    if (is_lasting(status)) check_cuda(status);  // it may tell of what went wrong before
    if (status != cudaSuccess || !count) {
        const std::string why = status == cudaSuccess ? "none is visible" : cudaGetErrorString(status);
        cudaGetLastError();
        throw EngineError("no NVIDIA GPU or driver here (" + why + "); " + on_cpu);
    }
    if (device >= count) {
        throw EngineError("there is no GPU " + std::to_string(device) + "; give a number from 0 to " +
                          std::to_string(count - 1));
    }
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device));
    return {"", "sm_" + std::to_string(properties.major) + std::to_string(properties.minor), properties.name};
}

bool is_integrated(int device) {
    int integrated = 0;
    check_cuda(cudaDeviceGetAttribute(&integrated, cudaDevAttrIntegrated, device));
    return integrated != 0;
}

}  // namespace robustscanner
