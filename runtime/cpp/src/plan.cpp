#include "plan.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "file.hpp"
#include "wording.hpp"

#define TENSORRT_AT_LEAST(major, minor) \
    (NV_TENSORRT_MAJOR > (major) || (NV_TENSORRT_MAJOR == (major) && NV_TENSORRT_MINOR >= (minor)))

namespace robustscanner {
namespace {

using nvinfer1::DataType;

// What TensorRT logs. Its errors are kept, for the message of the call that failed. One for the process: TensorRT keeps
// the first it is given, and writes to it until the end.
class Complaints : public nvinfer1::ILogger {
   public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity > Severity::kERROR) return;
        try {
            const std::lock_guard<std::mutex> lock(mutex_);
            lines_.push_back(first_line(message));
            if (lines_.size() > 3) lines_.pop_front();
        } catch (...) {  // no memory for the words
        }
    }

    // The latest errors, in words; they are forgotten.
    std::string take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto text = joined({lines_.begin(), lines_.end()}, " / ");
        lines_.clear();
        return text.empty() ? "it does not say why" : text;
    }

   private:
    std::mutex mutex_;
    std::deque<std::string> lines_;
};

Complaints& complaints() {
    static Complaints logger;
    return logger;
}

std::string type_name(DataType type) {
    switch (type) {
        case DataType::kFLOAT:
            return "float32";
        case DataType::kHALF:
            return "float16";
        case DataType::kINT8:
            return "int8";
        case DataType::kINT32:
            return "int32";
        case DataType::kBOOL:
            return "bool";
        case DataType::kUINT8:
            return "uint8";
        default:
            return "type " + std::to_string(static_cast<int>(type));
    }
}

// Of the types that our plans have.
std::size_t item_bytes(DataType type) {
    switch (type) {
        case DataType::kFLOAT:
        case DataType::kINT32:
            return 4;
        case DataType::kHALF:
            return 2;
        default:
            return 1;
    }
}

std::string in_text(const Shape& shape) { return "[" + joined(shape) + "]"; }

std::string in_text(const Tensor& tensor) { return type_name(tensor.type) + " " + in_text(tensor.shape); }

nvinfer1::Dims dims_of(const Shape& shape) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        dims.d[axis] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(shape[axis]);
    }
    return dims;
}

Shape shape_of(const nvinfer1::Dims& dims) { return {dims.d, dims.d + std::max(dims.nbDims, 0)}; }

// A dimension that one of the two leaves open may turn out right.
bool fits(const Shape& found, const Shape& wanted) {
    return std::equal(found.begin(), found.end(), wanted.begin(), wanted.end(),
                      [](std::int64_t is, std::int64_t needed) { return is == -1 || needed == -1 || is == needed; });
}

std::set<std::string> names_of(const Tensors& tensors) {
    std::set<std::string> names;
    for (const auto& [name, tensor] : tensors) names.insert(name);
    return names;
}

void check_tensor(const Plan& plan, const Tensors& tensors, const std::string& name, const Tensor& wanted) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
        const auto names = names_of(tensors);
        throw EngineError(plan.name() + ": has no " + name + ", only " + joined({names.begin(), names.end()}, ", ") +
                          "; " + rebuild);
    }
    if (!fits(found->second.shape, wanted.shape) || found->second.type != wanted.type) {
        throw EngineError(plan.name() + ": " + name + " is " + in_text(found->second) + ", but its spec needs " +
                          in_text(wanted) + "; " + rebuild);
    }
}

void check_state(const Plan& encoder, const Plan& decoder) {
    std::set<std::string> wanted = {"going"};
    for (const auto& [name, tensor] : decoder.inputs()) {
        if (encoder.outputs().count(name) || name == allowed_input) continue;
        const auto next = decoder.outputs().find(name + "_next");
        wanted.insert(name + "_next");
        if (next != decoder.outputs().end() && next->second.type != tensor.type) {
            throw EngineError(decoder.name() + ": " + name + " is " + type_name(tensor.type) + ", but " + name +
                              "_next is not; " + rebuild);
        }
    }
    const auto found = names_of(decoder.outputs());
    if (found != wanted) {
        throw EngineError(decoder.name() + ": gives " + shown(found) + ", not " + shown(wanted) + "; " + rebuild);
    }
}

}  // namespace

std::size_t Tensor::size_bytes() const {
    const auto count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    return static_cast<std::size_t>(count) * item_bytes(type);
}

std::string tensorrt_version() {
    // 8601 is 8.6.1; from 10 on, 100300 is 10.3.0.
    const int number = getInferLibVersion(), unit = number < 10000 ? 10 : 100;
    return std::to_string(number / (unit == 10 ? 1000 : 10000)) + "." +
           std::to_string(number / 100 % (unit == 10 ? 10 : 100)) + "." + std::to_string(number % 100);
}

Context::Context(const Plan& plan, std::unique_ptr<nvinfer1::IExecutionContext> context, cudaStream_t stream)
    : plan_(plan), context_(std::move(context)), stream_(stream) {}

bool Context::takes_profile() {
    return context_->getOptimizationProfile() == 0 || context_->setOptimizationProfileAsync(0, stream_);
}

Tensors Context::outputs(const Tensors& inputs) {
    wired_ = nullptr;
    for (const auto& [name, tensor] : inputs) {
        if (!context_->setInputShape(name.c_str(), dims_of(tensor.shape))) {
            throw plan_.failure("refuses " + name + " " + in_text(tensor.shape));
        }
    }
    Tensors found = plan_.outputs();
    for (auto& [name, tensor] : found) {
        const auto dims = context_->getTensorShape(name.c_str());
        tensor.shape = shape_of(dims);
        const bool unknown = std::any_of(tensor.shape.begin(), tensor.shape.end(), [](auto size) { return size < 0; });
        if (dims.nbDims < 0 || unknown) throw plan_.failure("cannot tell the shape of " + name);
    }
    return found;
}

void Context::execute(const Tensors& inputs, const Wiring& wiring) {
    if (wired_ != &wiring) {
        outputs(inputs);
        for (const auto& [name, address] : wiring) {
            if (!context_->setTensorAddress(name.c_str(), address)) {
                throw plan_.failure("refuses the address of " + name);
            }
        }
        wired_ = &wiring;
    }
    if (!context_->enqueueV3(stream_)) throw plan_.failure("failed to run");
}

Plan::Plan(nvinfer1::IRuntime& runtime, const std::string& path, std::string name, cudaStream_t stream)
    : name_(std::move(name)), stream_(stream) {
    std::vector<std::uint8_t> data;
    try {
        data = read_bytes(path, std::numeric_limits<std::size_t>::max());
    } catch (const FileError& error) {
        throw EngineError(name_ + ": " + reason(error.code()) + "; " + rebuild);
    }
    complaints().take();
    engine_.reset(runtime.deserializeCudaEngine(data.data(), data.size()));
    if (!engine_) throw failure("TensorRT " + tensorrt_version() + " cannot open it");
    for (std::int32_t index = 0; index < engine_->getNbIOTensors(); ++index) {
        const char* tensor = engine_->getIOTensorName(index);
        const bool is_input = engine_->getTensorIOMode(tensor) == nvinfer1::TensorIOMode::kINPUT;
        (is_input ? inputs_ : outputs_)[tensor] = {shape_of(engine_->getTensorShape(tensor)),
                                                   engine_->getTensorDataType(tensor)};
    }
}

std::size_t Plan::scratch_bytes() const {
#if TENSORRT_AT_LEAST(10, 1)
    return static_cast<std::size_t>(engine_->getDeviceMemorySizeV2());
#else
    return engine_->getDeviceMemorySize();
#endif
}

std::pair<std::int64_t, std::int64_t> Plan::extent(const std::string& name, std::size_t axis) const {
    const auto length = inputs_.at(name).shape.at(axis);
    if (length > 0) return {length, length};
    const auto smallest = shape_of(engine_->getProfileShape(name.c_str(), 0, nvinfer1::OptProfileSelector::kMIN));
    const auto largest = shape_of(engine_->getProfileShape(name.c_str(), 0, nvinfer1::OptProfileSelector::kMAX));
    if (std::min(smallest.size(), largest.size()) <= axis) throw failure("has no optimisation profile for " + name);
    return {smallest[axis], largest[axis]};
}

std::shared_ptr<Context> Plan::context() {
    if (!shares_context_) {
        const auto context = std::make_shared<Context>(*this, create_context(), stream_);
        if (context->takes_profile()) {
            if (!first_) first_ = context;
            return context;
        }
        shares_context_ = true;
    }
    if (!first_) throw failure("grants no execution context");
    return first_;
}

EngineError Plan::failure(const std::string& what) const {
    return EngineError(name_ + ": " + what + ": " + complaints().take() + "; " + rebuild);
}

std::unique_ptr<nvinfer1::IExecutionContext> Plan::create_context() {
#if TENSORRT_AT_LEAST(10, 0)
    const auto managed = nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED;
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine_->createExecutionContext(managed));
#else
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine_->createExecutionContextWithoutDeviceMemory());
#endif
    if (!context) throw failure("no execution context");
#if TENSORRT_AT_LEAST(10, 1)
    context->setDeviceMemoryV2(scratch_, static_cast<std::int64_t>(scratch_bytes()));
#else
    context->setDeviceMemory(scratch_);
#endif
    return context;
}

std::unique_ptr<nvinfer1::IRuntime> make_runtime(bool host_code) {
    std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(complaints()));
    if (!runtime) {
        throw EngineError("TensorRT " + tensorrt_version() + " does not start: " + complaints().take() + "; " + on_cpu);
    }
#if TENSORRT_AT_LEAST(8, 6)
    runtime->setEngineHostCodeAllowed(host_code);
#else
    static_cast<void>(host_code);  // no plan of this version carries code
#endif
    return runtime;
}

void check_plans(const Plan& encoder, const Plan& decoder, const ModelSpec& spec) {
    const std::int64_t steps = spec.network.max_length;
    const Tensor ids{{-1}, DataType::kINT32}, one{{1}, DataType::kINT32};
    check_tensor(encoder, encoder.inputs(), "images",
                 {{-1, spec.input.height_px, spec.input.width_px, 3}, DataType::kUINT8});
    check_tensor(encoder, encoder.inputs(), "valid_width", ids);
    check_tensor(decoder, decoder.inputs(), "tokens", {{-1, steps}, DataType::kINT32});
    check_tensor(decoder, decoder.inputs(), "scores", {{-1, steps}, DataType::kFLOAT});
    check_tensor(decoder, decoder.inputs(), "step", one);
    check_tensor(decoder, decoder.inputs(), "token", ids);
    check_tensor(decoder, decoder.inputs(), "running", ids);
    if (decoder.inputs().count(allowed_input)) {
        const std::int64_t classes = spec.charset.class_count;
        check_tensor(decoder, decoder.inputs(), allowed_input, {{steps, classes}, DataType::kFLOAT});
    }
    check_tensor(decoder, decoder.outputs(), "going", one);
    for (const auto& [name, tensor] : encoder.outputs()) {
        const auto taken = decoder.inputs().find(name);
        if (taken == decoder.inputs().end() || taken->second.type != tensor.type) {
            throw EngineError(decoder.name() + ": takes no " + name + " of " + type_name(tensor.type) +
                              ", which the encoder gives; " + rebuild);
        }
    }
    check_state(encoder, decoder);
}

}  // namespace robustscanner
