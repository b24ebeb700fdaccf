// NVIDIA's driver on the CPU: the decode kernel is the real one, compiled for the CPU; see standin.hpp.
#include "driver.hpp"

#include <dlfcn.h>

#include <cstring>
#include <map>

#include "call.hpp"
#include "robustscanner/errors.hpp"
#include "standin.hpp"

using robustscanner::cuda::DecodeCall;

struct CUmod_st {};
struct CUfunc_st {
    bool half = false;
};

namespace {

CUfunc_st functions[2] = {{false}, {true}};

using Decode = int (*)(const DecodeCall* call, int config, int half, int clusters);

Decode emulation() {
    static void* const library = dlopen(STANDIN_EMULATION, RTLD_NOW);
    static const auto decode = reinterpret_cast<Decode>(library ? dlsym(library, "robustscanner_decode") : nullptr);
    return decode;
}

CUresult status_of(const char* name) { return standin::fails(name) ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS; }

template <typename Pointer>
void bring_home(Pointer& pointer) {
    if (pointer) pointer = reinterpret_cast<Pointer>(standin::contents(pointer, 1));
}

// With addresses that the host can use.
cudaError_t run(DecodeCall call, bool half) {
    bring_home(call.keys), bring_home(call.values), bring_home(call.mask), bring_home(call.position);
    bring_home(call.labels), bring_home(call.blanks), bring_home(call.allowed);
    bring_home(call.table), bring_home(call.lower), bring_home(call.upper), bring_home(call.bias);
    bring_home(call.classifier), bring_home(call.classifier_bias);
    bring_home(call.tokens), bring_home(call.scores), bring_home(call.lengths), bring_home(call.scratch);
    if (!call.keys || !call.values || !call.tokens || !call.table) return cudaErrorIllegalAddress;
    return emulation()(&call, 0, half, call.scratch_slots == 0) > 0 ? cudaSuccess : cudaErrorLaunchFailure;
}

CUresult launch(const char* name, CUfunction function, unsigned blocks, unsigned shared_bytes, CUstream stream,
                void** parameters) {
    if (const auto status = status_of(name)) return status;
    const auto call = *static_cast<const DecodeCall*>(parameters[0]);
    if (blocks != static_cast<unsigned>(call.groups) * 8 || !shared_bytes) standin::note("a launch of another size");
    return static_cast<CUresult>(standin::queue(stream, {[call, half = function->half] { return run(call, half); }}));
}

}  // namespace

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    if (const auto status = status_of(__func__)) return status;
    if (std::memcmp(image, "compiled", 8) != 0) return CUDA_ERROR_INVALID_IMAGE;
    *module = new CUmod_st;
    standin::made("modules", *module);
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
    standin::gone("modules", module);
    delete module;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
    *function = &functions[std::strcmp(name, "robustscanner_decode_half") == 0];
    return status_of(__func__);
}

CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return status_of(__func__); }

CUresult cuOccupancyMaxActiveClusters(int* clusters, CUfunction, const CUlaunchConfig* config) {
    *clusters = 1;
    if (config->numAttrs != 1 || config->attrs->value.clusterDim.x != 8) standin::note("clusters of another size");
    return status_of(__func__);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters, void**) {
    if (!standin::options().clusters) standin::note("clusters, which this GPU does not have");
    return launch(__func__, function, config->gridDimX, config->sharedMemBytes, config->hStream, parameters);
}

CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned blocks, unsigned, unsigned, unsigned, unsigned,
                                   unsigned, unsigned shared_bytes, CUstream stream, void** parameters) {
    return launch(__func__, function, blocks, shared_bytes, stream, parameters);
}

namespace robustscanner {

void* driver_function(const char* name) {
#define FUNCTION(name) \
    { #name, reinterpret_cast < void*>(&name) }
    static const std::map<std::string, void*> known = {FUNCTION(cuModuleLoadData),
                                                       FUNCTION(cuModuleUnload),
                                                       FUNCTION(cuModuleGetFunction),
                                                       FUNCTION(cuFuncSetAttribute),
                                                       FUNCTION(cuOccupancyMaxActiveClusters),
                                                       FUNCTION(cuLaunchKernelEx),
                                                       FUNCTION(cuLaunchCooperativeKernel)};
    if (standin::fails("driver_function")) throw EngineError(std::string("this driver has no ") + name + "; update it");
    return known.at(name);
}

}  // namespace robustscanner
