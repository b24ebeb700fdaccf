#include "decode_kernel.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "file.hpp"
#include "letters.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

using nvinfer1::DataType;

constexpr const char* memory_names[] = {"keys", "values", "mask", "position"};  // what the kernel reads
constexpr const char* ctc_blanks = "ctc_stays";  // with joint scoring, besides CTC's columns
constexpr int first_with_clusters = 9;           // compute capability

int dimension(const Tensor& tensor, std::size_t axis) { return static_cast<int>(tensor.shape.at(axis)); }

// Whether keys are (N, P, D) and values (N, 2C, P), not (N, D, P) and (N, P, 2C).
bool is_turned(const Tensors& memory) {
    const auto& keys = memory.at("keys");
    return dimension(keys, 2) == kernel_hidden_size && dimension(memory.at("values"), 2) == dimension(keys, 1);
}

bool is_float(const Tensors& memory, const char* name) { return memory.at(name).type == DataType::kFLOAT; }

// Whether this is a memory that the kernel can read. Throws EngineError.
void check_memory(const Tensors& memory, const ModelSpec& spec) {
    std::vector<const char*> wanted(std::begin(memory_names), std::end(memory_names));
    const bool joint = spec.network.ctc_weight != 0;
    if (joint) wanted.insert(wanted.end(), {ctc_columns, ctc_blanks});
    for (const auto* name : wanted) {
        if (!memory.count(name)) throw EngineError(std::string("the encoder gives no ") + name + "; " + rebuild);
    }
    const auto value_type = memory.at("values").type;
    const bool floats = is_float(memory, "keys") && is_float(memory, "mask") &&
                        (!joint || (is_float(memory, ctc_columns) && is_float(memory, ctc_blanks)));
    const bool known = value_type == DataType::kFLOAT || value_type == DataType::kHALF;
    if (!floats || !known || value_type != memory.at("position").type) {
        throw EngineError(std::string("the decode kernel cannot read the encoder's types; ") + rebuild);
    }
}

int channels_of(const Tensors& memory) { return dimension(memory.at("values"), is_turned(memory) ? 1 : 2) / 2; }

DecodeSizes sizes_of(const Size& size, const Tensors& memory, const ModelSpec& spec) {
    const int places = dimension(memory.at("keys"), is_turned(memory) ? 1 : 2);
    const int columns = spec.network.ctc_weight != 0 ? dimension(memory.at(ctc_columns), 1) - 1 : 0;
    return {size.pictures, places, channels_of(memory), spec.charset.class_count, spec.network.max_length, columns};
}

Room room_of(int device) {
    const auto attribute = [device](cudaDeviceAttr which) {
        int value = 0;
        check_cuda(cudaDeviceGetAttribute(&value, which, device));
        return value;
    };
    return {attribute(cudaDevAttrMultiProcessorCount) / blocks_of_group,
            attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
            attribute(cudaDevAttrComputeCapabilityMajor) >= first_with_clusters};
}

std::vector<std::uint8_t> contents_of(const std::string& folder, const char* name) {
    try {
        return read_bytes(folder + "/" + name, std::numeric_limits<std::size_t>::max());
    } catch (const FileError& error) {
        throw EngineError(std::string(name) + ": " + reason(error.code()) + "; " + rebuild);
    }
}

DeviceMemory on_device(const std::vector<std::uint8_t>& bytes) {
    auto memory = device_memory(bytes.size());
    check_cuda(cudaMemcpy(memory.get(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
    return memory;
}

#if CUDA_VERSION >= 11080
// Blocks of a group run at once, as a cluster.
void with_clusters(const Launch& launch, CUstream stream, const std::function<void(const CUlaunchConfig&)>& use) {
    CUlaunchAttribute attribute{};
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim.x = blocks_of_group;
    attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1;
    CUlaunchConfig config{};
    config.gridDimX = static_cast<unsigned>(launch.groups * blocks_of_group);
    config.blockDimX = kernel_threads;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.sharedMemBytes = static_cast<unsigned>(launch.shared_bytes);
    config.hStream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    use(config);
}
#endif

}  // namespace

void UnloadModule::operator()(CUmodule module) const noexcept {
    try {
        CALL_DRIVER(cuModuleUnload, module);
    } catch (const std::exception&) {  // of a GPU that failed
    }
}

DecodeKernel::DecodeKernel(Rig& rig, const std::string& folder, int device) : rig_(rig) {
    if (rig.spec.network.hidden_size != kernel_hidden_size) {
        throw EngineError("the decode kernel is for hidden size " + std::to_string(kernel_hidden_size) + ", not " +
                          std::to_string(rig.spec.network.hidden_size));
    }
    const auto& memory = rig.layouts.begin()->second.memory.tensors;
    check_memory(memory, rig.spec);
    channels_ = channels_of(memory);
    half_ = !is_float(memory, "values");
    CUmodule module = nullptr;
    CALL_DRIVER(cuModuleLoadData, &module, contents_of(folder, kernels_name).data());
    module_.reset(module);
    CALL_DRIVER(cuModuleGetFunction, &function_, module,
                half_ ? "robustscanner_decode_half" : "robustscanner_decode_float");
    weight_layout_ = weight_layout(rig.spec, channels_, half_);
    const auto weights = contents_of(folder, weights_name);
    if (weights.size() != weight_layout_.size_bytes) {
        throw EngineError(std::string(weights_name) + " has " + std::to_string(weights.size()) + " bytes, not " +
                          std::to_string(weight_layout_.size_bytes) + "; " + rebuild);
    }
    weights_ = on_device(weights);
    const auto room = room_of(device);
    std::size_t most = 0;
    for (const auto& [size, layouts] : rig.layouts) {
        launches_[size] = plan(sizes_of(size, layouts.memory.tensors, rig.spec), room);
        scratch_slots_ = std::max(scratch_slots_, launches_[size].scratch_slots);
        most = std::max(most, static_cast<std::size_t>(size.pictures));
    }
    const auto slots = static_cast<std::size_t>(scratch_slots_);
    scratch_ = on_device(std::vector<std::uint8_t>(scratch_header_bytes + slot_bytes * slots));
    results_host_ = host_memory(4 * most * (2 * static_cast<std::size_t>(rig.steps) + 1));
    results_ = device_address(results_host_);
    check_cuda(cudaDeviceSynchronize());  // a copy of memory that is not page-locked may still be under way
}

Launch DecodeKernel::plan(const DecodeSizes& sizes, const Room& room) const {
    auto launch = plan_launch(sizes, room);
    CALL_DRIVER(cuFuncSetAttribute, function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, room.shared_bytes);
    if (!room.clusters) return launch;
#if CUDA_VERSION >= 11080
    int most = 0;  // a GPC may have fewer multiprocessors left than clusters would need
    with_clusters(launch, rig_.stream.get(), [&](const CUlaunchConfig& config) {
        CALL_DRIVER(cuOccupancyMaxActiveClusters, &most, function_, &config);
    });
    return plan_launch(sizes, {std::min(most, room.groups), room.shared_bytes, true});
#else
    throw EngineError("compiled with a CUDA that knows no clusters; compile the library with CUDA 11.8 or newer");
#endif
}

cuda::DecodeCall DecodeKernel::call(const Size& size, bool constrained) const {
    const auto& layouts = rig_.layouts.at(size);
    const auto& memory = layouts.memory.tensors;
    const auto sizes = sizes_of(size, memory, rig_.spec);
    const auto& launch = launches_.at(size);
    const auto& charset = rig_.spec.charset;
    const auto addresses = layouts.memory.at(rig_.memory.get());
    const auto floats = [&](const char* name) { return reinterpret_cast<const float*>(addresses.at(name)); };
    const auto weight = [&](const char* name) { return weights_.get() + weight_layout_.offsets.at(name); };
    cuda::DecodeCall call{};
    call.words = sizes.words, call.groups = launch.groups, call.tile = launch.tile, call.places = sizes.places;
    call.channels = sizes.channels, call.classes = sizes.classes, call.steps = sizes.steps;
    call.columns = sizes.columns;
    call.start_id = charset.start_id, call.end_id = charset.end_id, call.pad_id = charset.pad_id;
    const bool turned = is_turned(memory);
    call.key_unit = turned ? 1 : sizes.places, call.key_place = turned ? kernel_hidden_size : 1;
    call.value_place = turned ? 1 : 2 * sizes.channels, call.value_channel = turned ? sizes.places : 1;
    call.keys = floats("keys"), call.values = addresses.at("values");
    call.mask = floats("mask"), call.position = addresses.at("position");
    if (sizes.columns) {  // before the first column there is one more, see training/model/joint.py
        const int aligned = sizes.columns + 1;
        call.ctc_weight = static_cast<float>(rig_.spec.network.ctc_weight);
        call.labels = floats(ctc_columns), call.label_step = sizes.classes, call.label_word = aligned * sizes.classes;
        call.blanks = floats(ctc_blanks) + 1;  // [r, r + 1]: column r + 1 says nothing
        call.blank_step = aligned + 1, call.blank_word = aligned * aligned;
    }
    call.table = reinterpret_cast<const float*>(weight("table"));
    call.lower = weight("lower"), call.upper = weight("upper");
    call.bias = reinterpret_cast<const float*>(weight("bias"));
    call.classifier = weight("classifier");
    call.classifier_bias = reinterpret_cast<const float*>(weight("classifier_bias"));
    call.allowed_rows = constrained ? sizes.steps : 0;
    call.allowed = constrained ? reinterpret_cast<const float*>(rig_.allowed.get()) : nullptr;
    const auto letters = static_cast<std::size_t>(sizes.words) * static_cast<std::size_t>(sizes.steps);
    call.tokens = reinterpret_cast<int*>(results_);
    call.scores = reinterpret_cast<float*>(results_) + letters;
    call.lengths = reinterpret_cast<int*>(results_) + 2 * letters;
    call.scratch = scratch_.get(), call.scratch_slots = scratch_slots_;
    return call;
}

void DecodeKernel::queue(const Size& size, cuda::DecodeCall call) const {
    const auto& launch = launches_.at(size);
    void* parameters[] = {&call};
    const auto stream = rig_.stream.get();
    if (launch.scratch_slots) {  // all blocks of the launch run at once
        CALL_DRIVER(cuLaunchCooperativeKernel, function_, static_cast<unsigned>(launch.groups * blocks_of_group), 1, 1,
                    kernel_threads, 1, 1, static_cast<unsigned>(launch.shared_bytes), stream, parameters);
        return;
    }
#if CUDA_VERSION >= 11080
    with_clusters(launch, stream, [&](const CUlaunchConfig& config) {
        CALL_DRIVER(cuLaunchKernelEx, &config, function_, parameters, nullptr);
    });
#endif
}

KernelBucket::KernelBucket(Rig& rig, const DecodeKernel& kernel, const Size& size)
    : rig_(rig),
      kernel_(kernel),
      size_(size),
      layouts_(rig.layouts.at(size)),
      encoder_(rig.encoder.context()),
      wiring_(layouts_.inputs.at(rig.inputs_address)),
      calls_{kernel.call(size, false), kernel.call(size, rig.can_constrain())} {
    for (const auto& [name, address] : layouts_.memory.at(rig.memory.get())) wiring_[name] = address;
}

void KernelBucket::prepare(const Schedule&) {
    queue();
    check_cuda(cudaStreamSynchronize(rig_.stream.get()));
    const bool constrained = rig_.constrained;
    for (const bool kind : {false, true}) {
        rig_.constrained = kind;
        rig_.try_to_record(graphs_[kind], rig_.record_encoder, rig_.encoder, [&] { queue(); });
    }
    rig_.constrained = constrained;
}

void KernelBucket::read(Result& result, std::size_t start, std::size_t count) {
    const auto stream = rig_.stream.get();
    if (const auto& graph = graphs_[rig_.constrained]) {
        check_cuda(cudaGraphLaunch(graph.get(), stream));
    } else {
        queue();
    }
    const auto done = rig_.events.front().get();
    check_cuda(cudaEventRecord(done, stream));
    check_cuda(cudaEventSynchronize(done));
    const auto steps = static_cast<std::size_t>(rig_.steps), row = 4 * steps;
    const auto* tokens = kernel_.results();
    const auto* scores = tokens + static_cast<std::size_t>(size_.pictures) * row;
    std::memcpy(&result.tokens[start * steps], tokens, count * row);
    std::memcpy(&result.scores[start * steps], scores, count * row);
}

void KernelBucket::queue() {
    rig_.queue_inputs(size_);
    encoder_->execute(layouts_.inputs.tensors, wiring_);
    kernel_.queue(size_, calls_[rig_.constrained]);
}

}  // namespace robustscanner
