// TensorRT as far as runtime/cpp uses it, written anew for the tests: names are NVIDIA's, and nvinfer.cpp does the
// work, with ONNX Runtime. As of 10.3, or with STANDIN_TENSORRT_8 as of 8.6.1.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#ifdef STANDIN_TENSORRT_8
#define NV_TENSORRT_MAJOR 8
#define NV_TENSORRT_MINOR 6
#else
#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 3
#endif

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class OptProfileSelector : std::int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };

struct Dims {
    std::int32_t nbDims;
#ifdef STANDIN_TENSORRT_8
    std::int32_t d[8];
#else
    std::int64_t d[8];
#endif
};

class ILogger {
   public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual ~ILogger() = default;
    virtual void log(Severity severity, const char* message) noexcept = 0;
};

class IExecutionContext {
   public:
    virtual ~IExecutionContext() = default;
    virtual std::int32_t getOptimizationProfile() const noexcept = 0;
    virtual bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) noexcept = 0;
    virtual bool setInputShape(const char* name, const Dims& shape) noexcept = 0;
    virtual Dims getTensorShape(const char* name) const noexcept = 0;
    virtual bool setTensorAddress(const char* name, void* address) noexcept = 0;
    virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
#ifdef STANDIN_TENSORRT_8
    virtual void setDeviceMemory(void* memory) noexcept = 0;
#else
    virtual void setDeviceMemoryV2(void* memory, std::int64_t size_bytes) noexcept = 0;
#endif
};

#ifndef STANDIN_TENSORRT_8
enum class ExecutionContextAllocationStrategy : std::int32_t { kSTATIC = 0, kON_PROFILE_CHANGE = 1, kUSER_MANAGED = 2 };
#endif

class ICudaEngine {
   public:
    virtual ~ICudaEngine() = default;
    virtual std::int32_t getNbIOTensors() const noexcept = 0;
    virtual const char* getIOTensorName(std::int32_t index) const noexcept = 0;
    virtual TensorIOMode getTensorIOMode(const char* name) const noexcept = 0;
    virtual Dims getTensorShape(const char* name) const noexcept = 0;
    virtual DataType getTensorDataType(const char* name) const noexcept = 0;
    virtual Dims getProfileShape(const char* name, std::int32_t profile, OptProfileSelector which) const noexcept = 0;
#ifdef STANDIN_TENSORRT_8
    virtual std::size_t getDeviceMemorySize() const noexcept = 0;
    virtual IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept = 0;
#else
    virtual std::int64_t getDeviceMemorySizeV2() const noexcept = 0;
    virtual IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept = 0;
#endif
};

class IRuntime {
   public:
    virtual ~IRuntime() = default;
    virtual void setEngineHostCodeAllowed(bool allowed) noexcept = 0;
    virtual ICudaEngine* deserializeCudaEngine(const void* data, std::size_t size_bytes) noexcept = 0;
};

IRuntime* createInferRuntime(ILogger& logger) noexcept;

}  // namespace nvinfer1

extern "C" std::int32_t getInferLibVersion() noexcept;
