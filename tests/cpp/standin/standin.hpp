// A GPU that is none: how tests choose what it is like, let its calls fail, and see what became of it.
//
// Device memory has addresses that the host cannot touch, and other contents until something is written there. Work is
// queued and runs only when somebody waits for it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace standin {

struct Options {
    int devices = 1;
    bool integrated = false;               // CPU and GPU share their memory
    bool one_context_per_profile = false;  // as TensorRT 8.5
    int hurry = 0;                         // pieces of work that are done beyond what the host waits for
    bool clusters = false;                 // of blocks, as from sm_90 on
    int multiprocessors = 16;
};

using Counts = std::map<std::string, int>;

// Begins anew with this machine. Of the environment variable STANDIN_FAILS, "cudaMalloc:3", the third call will fail.
void plug_in(const Options& options = {});

// Lets the call of that name fail that comes after `after` more of them: -1 all of them.
void fail(const std::string& name, int after, cudaError_t status = cudaErrorUnknown);

// Calls by name, of CUDA and TensorRT, since it was plugged in.
Counts calls();

// What nobody gave back, and what a GPU would have punished; empty where all is well.
std::vector<std::string> complaints();

// --- For nvinfer.cpp

struct Work {
    std::function<cudaError_t()> run;
    const void* owner = nullptr;  // what it needs until it has run
};

const Options& options();
bool fails(const char* name);  // counts the call
void note(const std::string& problem);
void made(const char* what, const void* object);
void gone(const char* what, const void* object);
bool is_recording(cudaStream_t stream);
void break_recording(cudaStream_t stream);
cudaError_t queue(cudaStream_t stream, Work work);

// Where what lies at a device address is kept; nullptr: there is no such memory.
std::uint8_t* contents(const void* address, std::size_t size_bytes);

// These addresses are used by `owner` until it is gone.
void uses(const void* owner, const std::string& name, const void* address);

}  // namespace standin
