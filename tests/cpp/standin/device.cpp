// CUDA's runtime on the CPU; see standin.hpp.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "standin.hpp"

using standin::Work;

struct CUstream_st {
    std::deque<Work> queue;
    std::vector<Work> recorded;
    bool recording = false, broken = false;
    std::thread::id recorder;
    int device = 0;
};
struct CUevent_st {
    CUstream_st* stream = nullptr;
    std::uint64_t wanted = 0, reached = 0;
};
struct CUgraph_st {
    std::vector<Work> works;
};
struct CUgraphExec_st {
    std::vector<Work> works;
};

namespace standin {
namespace {

constexpr std::uint8_t poison = 0xAB;  // of memory that nobody has written
constexpr std::size_t page_bytes = 4096;

using Bytes = std::vector<std::uint8_t>;

// Addresses that nobody may touch.
class Addresses {
   public:
    explicit Addresses(std::size_t size_bytes)
        : size_bytes_(size_bytes),
          base_(mmap(nullptr, size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
    Addresses(const Addresses&) = delete;
    Addresses& operator=(const Addresses&) = delete;
    ~Addresses() { munmap(base_, size_bytes_); }

    std::uint8_t* base() const { return static_cast<std::uint8_t*>(base_); }

   private:
    std::size_t size_bytes_;
    void* base_;
};

struct Memory {
    explicit Memory(std::size_t size) : addresses(size), bytes(size + page_bytes, poison) {}

    // As the host sees page-locked memory.
    std::uint8_t* data() {
        const auto start = reinterpret_cast<std::uintptr_t>(bytes.data());
        return bytes.data() + (page_bytes - start % page_bytes) % page_bytes;
    }
    std::size_t size() const { return bytes.size() - page_bytes; }

    Addresses addresses;
    Bytes bytes;
    bool is_host = false;
};

struct Failure {
    int at = 0;  // call, from 1; -1: each
    cudaError_t status = cudaErrorUnknown;
};

struct Machine {
    Options options;
    Counts calls;
    std::map<std::string, Failure> failures;
    std::vector<std::string> problems;
    std::map<std::uint8_t*, std::unique_ptr<Memory>> memory;  // by device address
    std::map<std::string, std::set<const void*>> objects;
    std::map<const void*, std::map<std::string, const void*>> used;
    std::map<int, cudaError_t> lost;           // devices, by what broke them
    std::map<int, std::deque<Work>> arriving;  // copies of a device that its streams do not wait for
};

std::recursive_mutex lock;
Machine machine;
thread_local int current = 0;
thread_local cudaError_t last = cudaSuccess;

using Guard = std::lock_guard<std::recursive_mutex>;

cudaError_t said(cudaError_t status) {
    if (status != cudaSuccess) last = status;
    return status;
}

bool is_due(const char* name, cudaError_t& status) {
    const int call = ++machine.calls[name];
    const auto found = machine.failures.find(name);
    if (found == machine.failures.end() || (found->second.at != -1 && found->second.at != call)) return false;
    status = found->second.status;
    return true;
}

// Counts a call; whether it is to fail, which may be for good.
bool is_failing(const char* name, cudaError_t& status) {
    if (!is_due(name, status)) return false;
    if (status == cudaErrorIllegalAddress) machine.lost[current] = status;
    return true;
}

// Counts a call; what it has to answer at once, if it cannot do its work.
cudaError_t enter(const char* name) {
    cudaError_t status = cudaSuccess;
    if (is_failing(name, status)) return said(status);
    const auto lost = machine.lost.find(current);
    return said(lost == machine.lost.end() ? cudaSuccess : lost->second);
}

cudaError_t run_next(CUstream_st& stream) {
    const auto work = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (work.owner && !machine.objects["contexts"].count(work.owner)) note("work outlived its context");
    const auto status = work.run();
    if (status != cudaSuccess) {
        note("work touched memory that is not there");
        machine.lost[stream.device] = status;
    }
    return status;
}

cudaError_t drain(CUstream_st& stream) {
    if (machine.lost.count(stream.device)) stream.queue.clear();  // nothing will ever run
    while (!stream.queue.empty()) {
        if (const auto status = run_next(stream); status != cudaSuccess) return said(status);
    }
    return cudaSuccess;
}

// Until the device has nothing to do.
cudaError_t drain_device() {
    auto& arriving = machine.arriving[current];
    for (; !arriving.empty(); arriving.pop_front()) arriving.front().run();
    for (const void* object : machine.objects["streams"]) {
        auto& stream = *static_cast<CUstream_st*>(const_cast<void*>(object));
        if (stream.device != current) continue;
        if (const auto status = drain(stream); status != cudaSuccess) return status;
    }
    return cudaSuccess;
}

// What may not be called while this thread records breaks the recording.
cudaError_t unless_recording() {
    for (const void* object : machine.objects["streams"]) {
        auto& stream = *static_cast<CUstream_st*>(const_cast<void*>(object));
        if (!stream.recording || stream.recorder != std::this_thread::get_id()) continue;
        stream.broken = true;
        return said(cudaErrorStreamCaptureUnsupported);
    }
    return cudaSuccess;
}

cudaError_t allocate(const char* name, std::size_t size_bytes, bool is_host, std::uint8_t** address, void** seen) {
    if (const auto status = enter(name); status != cudaSuccess) return status;
    if (const auto status = unless_recording(); status != cudaSuccess) return status;
    auto made = std::make_unique<Memory>(size_bytes);
    made->is_host = is_host;
    *address = made->addresses.base();
    *seen = is_host ? made->data() : *address;
    machine.memory[*address] = std::move(made);
    return cudaSuccess;
}

// Frees by device address; CUDA waits for all work first.
cudaError_t release(std::uint8_t* address) {
    drain_device();
    const auto found = machine.memory.find(address);
    if (found == machine.memory.end()) return said(cudaErrorInvalidValue);
    const auto* end = address + found->second->size();
    for (const auto& [owner, addresses] : machine.used) {
        for (const auto& [name, at] : addresses) {
            if (at >= address && at < end) note("memory was freed before the context that uses it as " + name);
        }
    }
    machine.memory.erase(found);
    return cudaSuccess;
}

// The device address of page-locked memory; nullptr: it is other memory of the host's.
std::uint8_t* device_view(const void* seen) {
    for (const auto& [address, memory] : machine.memory) {
        const auto* start = memory->data();
        if (memory->is_host && seen >= start && seen < start + memory->size()) {
            return address + (static_cast<const std::uint8_t*>(seen) - start);
        }
    }
    return nullptr;
}

// Copies what is there when it runs.
Work copying(std::uint8_t* to, const std::uint8_t* from, std::size_t size_bytes) {
    return {[=] {
        auto* target = contents(to, size_bytes);
        const auto* source = contents(from, size_bytes);
        if (!target || !source) return cudaErrorIllegalAddress;
        std::memmove(target, source, size_bytes);
        return cudaSuccess;
    }};
}

// The allocation of the device that holds an address, and its own; nullptr: none does.
std::pair<Memory*, std::uint8_t*> holder(const void* address) {
    auto after = machine.memory.upper_bound(static_cast<std::uint8_t*>(const_cast<void*>(address)));
    if (after == machine.memory.begin()) return {};
    const auto& [base, memory] = *--after;
    return address < base + memory->size() ? std::pair(memory.get(), base) : std::pair<Memory*, std::uint8_t*>{};
}

bool is_on_host(const void* address) { return !holder(address).first; }

template <typename Object>
cudaError_t destroy(const char* what, Object* object) {
    gone(what, object);
    delete object;
    return cudaSuccess;
}

void fail_as_asked() {
    const char* asked = std::getenv("STANDIN_FAILS");
    const std::string text = asked ? asked : "";
    if (const auto colon = text.find(':'); colon != text.npos) {
        fail(text.substr(0, colon), std::atoi(text.c_str() + colon + 1) - 1);
    }
}

const bool begun = (plug_in(), true);  // for programs, which do not know that the GPU is none

}  // namespace

void plug_in(const Options& options) {
    const Guard guard(lock);
    machine = Machine{};
    machine.options = options;
    fail_as_asked();
}

void fail(const std::string& name, int after, cudaError_t status) {
    const Guard guard(lock);
    machine.failures[name] = {after < 0 ? -1 : machine.calls[name] + after + 1, status};
}

Counts calls() {
    const Guard guard(lock);
    return machine.calls;
}

std::vector<std::string> complaints() {
    const Guard guard(lock);
    auto found = machine.problems;
    if (!machine.memory.empty()) found.push_back(std::to_string(machine.memory.size()) + " allocations left");
    for (const auto& [what, objects] : machine.objects) {
        if (!objects.empty()) found.push_back(std::to_string(objects.size()) + " " + what + " left");
    }
    return found;
}

const Options& options() { return machine.options; }

bool fails(const char* name) {
    const Guard guard(lock);
    cudaError_t unused = cudaSuccess;
    return is_failing(name, unused);
}

void note(const std::string& problem) {
    const Guard guard(lock);
    machine.problems.push_back(problem);
}

void made(const char* what, const void* object) {
    const Guard guard(lock);
    machine.objects[what].insert(object);
}

void gone(const char* what, const void* object) {
    const Guard guard(lock);
    if (!machine.objects[what].erase(object)) note(std::string(what) + ": destroyed what is not there");
    machine.used.erase(object);
}

bool is_recording(cudaStream_t stream) { return stream->recording; }

void break_recording(cudaStream_t stream) { stream->broken = true; }

cudaError_t queue(cudaStream_t stream, Work work) {
    const Guard guard(lock);
    if (stream->device != current) return said(cudaErrorInvalidResourceHandle);
    if (stream->recording) {
        stream->recorded.push_back(std::move(work));
    } else {
        stream->queue.push_back(std::move(work));
    }
    return cudaSuccess;
}

std::uint8_t* contents(const void* address, std::size_t size_bytes) {
    const Guard guard(lock);
    const auto [memory, base] = holder(address);
    if (!memory) return nullptr;
    const auto offset = static_cast<std::size_t>(static_cast<const std::uint8_t*>(address) - base);
    return offset + size_bytes > memory->size() ? nullptr : memory->data() + offset;
}

void uses(const void* owner, const std::string& name, const void* address) {
    const Guard guard(lock);
    machine.used[owner][name] = address;
}

}  // namespace standin

using namespace standin;

// Counts the call, and goes no further where it fails.
#define ENTER()              \
    const Guard guard(lock); \
    if (const auto status = enter(__func__); status != cudaSuccess) return status

const char* cudaGetErrorName(cudaError_t status) {
    return status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
           : status == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress"
                                               : "cudaErrorUnknown";
}

const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorMemoryAllocation ? "out of memory"
           : status == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
                                               : "unknown error";
}

cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }

cudaError_t cudaGetDeviceCount(int* count) {
    ENTER();
    *count = machine.options.devices;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    ENTER();
    *device = current;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    const Guard guard(lock);
    cudaError_t status = cudaSuccess;
    if (is_due(__func__, status)) return said(status);
    if (device < 0 || device >= machine.options.devices) return said(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    ENTER();
    *properties = {"stand-in", 8, 7};
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    ENTER();
    const std::map<cudaDeviceAttr, int> known = {{cudaDevAttrMultiProcessorCount, machine.options.multiprocessors},
                                                 {cudaDevAttrIntegrated, machine.options.integrated},
                                                 {cudaDevAttrComputeCapabilityMajor, machine.options.clusters ? 9 : 8},
                                                 {cudaDevAttrMaxSharedMemoryPerBlockOptin, 99 << 10}};
    *value = known.at(attribute);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    ENTER();
    return drain_device();
}

cudaError_t cudaMalloc(void** memory, std::size_t size_bytes) {
    const Guard guard(lock);
    std::uint8_t* address = nullptr;
    return allocate(__func__, size_bytes, false, &address, memory);
}

cudaError_t cudaFree(void* memory) {
    const Guard guard(lock);
    return release(static_cast<std::uint8_t*>(memory));
}

cudaError_t cudaHostAlloc(void** memory, std::size_t size_bytes, unsigned) {
    const Guard guard(lock);
    std::uint8_t* address = nullptr;
    return allocate(__func__, size_bytes, true, &address, memory);
}

cudaError_t cudaFreeHost(void* memory) {
    const Guard guard(lock);
    return release(device_view(memory));
}

cudaError_t cudaHostGetDevicePointer(void** address, void* memory, unsigned) {
    ENTER();
    *address = device_view(memory);
    return *address ? cudaSuccess : said(cudaErrorInvalidValue);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind kind) {
    ENTER();
    if (const auto status = unless_recording(); status != cudaSuccess) return status;
    if (kind != cudaMemcpyHostToDevice || !is_on_host(from) || !contents(to, size_bytes)) {
        return said(cudaErrorInvalidValue);
    }
    // It returns as soon as CUDA holds a copy of memory that is not page-locked.
    const auto* start = static_cast<const std::uint8_t*>(from);
    machine.arriving[current].push_back({[to, held = Bytes(start, start + size_bytes)] {
        std::memcpy(contents(to, held.size()), held.data(), held.size());
        return cudaSuccess;
    }});
    return device_view(from) ? drain_device() : cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    ENTER();
    const bool to_host = is_on_host(to), from_host = is_on_host(from);
    if (kind == cudaMemcpyHostToDevice && (to_host || !from_host)) return said(cudaErrorInvalidValue);
    if (kind == cudaMemcpyDeviceToHost && (!to_host || from_host)) return said(cudaErrorInvalidValue);
    if (kind == cudaMemcpyDeviceToDevice && (to_host || from_host)) return said(cudaErrorInvalidValue);
    auto* target = to_host ? device_view(to) : static_cast<std::uint8_t*>(to);
    const auto* source = from_host ? device_view(from) : static_cast<const std::uint8_t*>(from);
    if (!target || !source) note("a copy of memory that is not page-locked, which the host would wait for");
    return queue(stream, copying(target, source, size_bytes));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    ENTER();
    if (flags != cudaStreamNonBlocking) note("a stream that waits for others");
    *stream = new CUstream_st;
    (*stream)->device = current;
    made("streams", *stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const Guard guard(lock);
    drain(*stream);
    return destroy("streams", stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    ENTER();
    if (const auto status = unless_recording(); status != cudaSuccess) return status;
    return drain(*stream);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    ENTER();
    *event = new CUevent_st;
    made("events", *event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const Guard guard(lock);
    if (event->reached != event->wanted) drain_device();
    return destroy("events", event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    ENTER();
    if (const auto status = unless_recording(); status != cudaSuccess) return status;
    event->stream = stream;
    const auto mark = ++event->wanted;
    return queue(stream, {[event, mark] {
                     event->reached = mark;
                     return cudaSuccess;
                 }});
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER();
    auto& work = event->stream->queue;
    for (int beyond = 0; !work.empty() && (event->reached < event->wanted || beyond++ < machine.options.hurry);) {
        if (const auto status = run_next(*event->stream); status != cudaSuccess) return said(status);
    }
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    ENTER();
    if (stream->recording) return said(cudaErrorInvalidValue);
    stream->recording = true;
    stream->recorder = std::this_thread::get_id();
    stream->broken = false;
    stream->recorded.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const Guard guard(lock);
    *graph = nullptr;
    stream->recording = false;  // in any case
    if (const auto status = enter(__func__); status != cudaSuccess) return status;
    if (stream->broken) return said(cudaErrorStreamCaptureInvalidated);
    *graph = new CUgraph_st{std::move(stream->recorded)};
    made("graphs", *graph);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* recorded, cudaGraph_t graph, unsigned long long) {
    ENTER();
    *recorded = new CUgraphExec_st{graph->works};
    made("recordings", *recorded);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    const Guard guard(lock);
    return destroy("graphs", graph);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t recorded, cudaStream_t stream) {
    ENTER();
    for (const auto& work : recorded->works) {
        if (const auto status = queue(stream, work); status != cudaSuccess) return status;
    }
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t recorded) {
    const Guard guard(lock);
    return destroy("recordings", recorded);
}
