// TensorRT on ONNX Runtime; see standin.hpp. A plan is a line of JSON and an ONNX file.
#include <NvInfer.h>
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "standin.hpp"

namespace nvinfer1 {
namespace {

using Shape = std::vector<std::int64_t>;  // -1: the batch, until it is known
using Shapes = std::map<std::string, Shape>;
using Addresses = std::map<std::string, void*>;

constexpr std::size_t scratch_bytes = 5000;
constexpr std::size_t alignment_bytes = 256;

struct Node {
    std::string name;
    ONNXTensorElementDataType type;
    Shape shape;
};

std::size_t item_bytes(ONNXTensorElementDataType type) {
    switch (type) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
            return 1;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
            return 2;
        default:
            return 4;
    }
}

std::size_t size_bytes(const Node& node, const Shape& shape) {
    const auto count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    return static_cast<std::size_t>(count) * item_bytes(node.type);
}

// What a plan computes; kept for the next that opens the same plan.
class Model {
   public:
    Model(Ort::Env& environment, const std::string& data) : session_(environment, data.data(), data.size(), quiet()) {
        Ort::AllocatorWithDefaultOptions memory;
        for (std::size_t index = 0; index < session_.GetInputCount(); ++index) {
            inputs.push_back(
                node(session_.GetInputNameAllocated(index, memory).get(), session_.GetInputTypeInfo(index)));
        }
        for (std::size_t index = 0; index < session_.GetOutputCount(); ++index) {
            outputs.push_back(
                node(session_.GetOutputNameAllocated(index, memory).get(), session_.GetOutputTypeInfo(index)));
        }
    }

    const Node* find(const std::string& name) const {
        for (const auto* nodes : {&inputs, &outputs}) {
            for (const auto& found : *nodes) {
                if (found.name == name) return &found;
            }
        }
        return nullptr;
    }

    bool is_input(const std::string& name) const { return find(name) >= inputs.data() && find(name) < &*inputs.end(); }
    bool is_encoder() const { return is_input("images"); }

    // Of what comes out: by a run with zeros.
    const Shapes& outputs_for(const Shapes& shapes) {
        auto& known = known_[shapes];
        if (!known.empty()) return known;
        std::map<std::string, std::vector<std::uint8_t>> zeros;
        Addresses addresses;
        for (const auto& input : inputs) {
            auto& zero = zeros[input.name];
            zero.resize(std::max(size_bytes(input, shapes.at(input.name)), std::size_t{1}));
            addresses[input.name] = zero.data();
        }
        const auto values = run(shapes, addresses);
        for (std::size_t index = 0; index < values.size(); ++index) {
            known[outputs[index].name] = values[index].GetTensorTypeAndShapeInfo().GetShape();
        }
        return known;
    }

    // From device memory to device memory.
    cudaError_t compute(const Shapes& shapes, const Addresses& addresses) {
        Addresses places;
        for (const auto& input : inputs) {
            places[input.name] = standin::contents(addresses.at(input.name), size_bytes(input, shapes.at(input.name)));
            if (!places[input.name]) return cudaErrorIllegalAddress;
        }
        if (places.count("step")) check_step(places.at("step"), shapes.at("tokens")[1]);
        const auto values = run(shapes, places);
        for (std::size_t index = 0; index < values.size(); ++index) {
            const auto bytes = size_bytes(outputs[index], values[index].GetTensorTypeAndShapeInfo().GetShape());
            auto* to = standin::contents(addresses.at(outputs[index].name), bytes);
            if (!to) return cudaErrorIllegalAddress;
            std::memcpy(to, values[index].GetTensorRawData(), bytes);
        }
        return cudaSuccess;
    }

    std::vector<Node> inputs, outputs;

   private:
    static Ort::SessionOptions quiet() {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(1);
        options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
        return options;
    }

    static Node node(const std::string& name, const Ort::TypeInfo& info) {
        const auto details = info.GetTensorTypeAndShapeInfo();
        return {name, details.GetElementType(), details.GetShape()};
    }

    static void check_step(const void* memory, std::int64_t steps) {
        std::int32_t step = 0;
        std::memcpy(&step, memory, sizeof step);
        if (step < 0 || step >= steps) standin::note("step " + std::to_string(step) + ", which no word has");
    }

    std::vector<Ort::Value> run(const Shapes& shapes, const Addresses& addresses) {
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
        std::vector<const char*> in, out;
        std::vector<Ort::Value> values;
        for (const auto& input : inputs) {
            const auto& shape = shapes.at(input.name);
            in.push_back(input.name.c_str());
            values.push_back(Ort::Value::CreateTensor(memory, addresses.at(input.name), size_bytes(input, shape),
                                                      shape.data(), shape.size(), input.type));
        }
        for (const auto& output : outputs) out.push_back(output.name.c_str());
        return session_.Run({}, in.data(), values.data(), values.size(), out.data(), out.size());
    }

    Ort::Session session_;
    std::map<Shapes, Shapes> known_;
};

std::shared_ptr<Model> open_model(const std::string& data) {
    static std::mutex lock;
    static Ort::Env environment = (setenv("ORT_DISABLE_TELEMETRY", "1", 0), Ort::Env(ORT_LOGGING_LEVEL_FATAL));
    static std::map<std::string, std::shared_ptr<Model>> models;
    const std::lock_guard<std::mutex> guard(lock);
    auto& model = models[data];
    if (!model) model = std::make_shared<Model>(environment, data);
    return model;
}

Dims dims_of(const Shape& shape) {
    Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    std::transform(shape.begin(), shape.end(), dims.d,
                   [](auto size) { return static_cast<std::remove_reference_t<decltype(dims.d[0])>>(size); });
    return dims;
}

Shape shape_of(const Dims& dims) { return {dims.d, dims.d + dims.nbDims}; }

DataType type_of(ONNXTensorElementDataType type) {
    switch (type) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
            return DataType::kUINT8;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
            return DataType::kINT32;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
            return DataType::kHALF;
        default:
            return DataType::kFLOAT;
    }
}

// What an engine and its contexts share.
struct Facts {
    std::shared_ptr<Model> model;
    ILogger* logger = nullptr;
    int smallest = 1, largest = 1;                       // batch
    std::map<std::string, std::array<Shape, 3>> shapes;  // of inputs in which more is open: smallest, usual, largest
    int contexts = 0;

    // How small or large a tensor's dimensions may be.
    Shape limit(const std::string& name, bool at_most) const {
        const auto found = shapes.find(name);
        auto shape = found == shapes.end() ? model->find(name)->shape : found->second[at_most ? 2 : 0];
        std::replace(shape.begin(), shape.end(), std::int64_t{-1}, std::int64_t{at_most ? largest : smallest});
        return shape;
    }

    bool refuse(const char* why) const {
        logger->log(ILogger::Severity::kERROR, why);
        return false;
    }
};

class Context : public IExecutionContext {
   public:
    Context(std::shared_ptr<Facts> facts, int profile) : facts_(std::move(facts)), profile_(profile) {
        ++facts_->contexts;
        standin::made("contexts", this);
    }
    ~Context() override {
        --facts_->contexts;
        standin::gone("contexts", this);
    }

    std::int32_t getOptimizationProfile() const noexcept override { return profile_; }

    bool setOptimizationProfileAsync(std::int32_t, cudaStream_t) noexcept override {
        return facts_->refuse("optimization profile 0 is in use by another context");
    }

    bool setInputShape(const char* name, const Dims& dims) noexcept override {
        const auto shape = shape_of(dims);
        if (!fits(name, shape) || profile_ != 0 || standin::fails("setInputShape")) {
            return facts_->refuse("the shape is outside the profile\n(second line)");
        }
        shapes_[name] = shape;
        return true;
    }

    Dims getTensorShape(const char* name) const noexcept override {
        if (shapes_.size() != facts_->model->inputs.size() || standin::fails("getTensorShape")) {
            facts_->refuse("not all shapes are known");
            return {-1, {}};
        }
        return dims_of(facts_->model->outputs_for(shapes_).at(name));
    }

    bool setTensorAddress(const char* name, void* address) noexcept override {
        if (reinterpret_cast<std::uintptr_t>(address) % alignment_bytes) standin::note(std::string(name) + ": odd");
        if (standin::fails("setTensorAddress")) return facts_->refuse("no such tensor");
        addresses_[name] = address;
        standin::uses(this, name, address);
        return true;
    }

    bool enqueueV3(cudaStream_t stream) noexcept override {
        const auto& model = *facts_->model;
        const bool ready = shapes_.size() == model.inputs.size() && scratch_ &&
                           addresses_.size() == model.inputs.size() + model.outputs.size();
        if (!ready) standin::note("a run without all shapes, addresses and scratch memory");
        const char* kind = model.is_encoder() ? "encoder" : "decoder";
        if (!ready || standin::fails("enqueueV3") || standin::fails(kind)) return facts_->refuse("Error Code 1: Cuda");
        if (standin::is_recording(stream) && standin::fails("recording")) {
            standin::break_recording(stream);
            return facts_->refuse("operation not permitted when stream is capturing");
        }
        const auto run = [shared = facts_->model, shapes = shapes_, addresses = addresses_] {
            try {
                return shared->compute(shapes, addresses);
            } catch (const Ort::Exception& error) {
                standin::note(error.what());
                return cudaErrorIllegalAddress;
            }
        };
        return standin::queue(stream, {run, this}) == cudaSuccess;
    }

#ifdef STANDIN_TENSORRT_8
    void setDeviceMemory(void* memory) noexcept override { use_scratch(memory); }
#else
    void setDeviceMemoryV2(void* memory, std::int64_t) noexcept override { use_scratch(memory); }
#endif

   private:
    void use_scratch(void* memory) {
        if (!standin::contents(memory, scratch_bytes)) standin::note("too little scratch memory");
        scratch_ = memory;
        standin::uses(this, "scratch", memory);
    }

    bool fits(const char* name, const Shape& shape) const {
        const auto at_most = [](auto left, auto right) { return left <= right; };
        const auto low = facts_->limit(name, false), high = facts_->limit(name, true);
        return std::equal(low.begin(), low.end(), shape.begin(), shape.end(), at_most) &&
               std::equal(shape.begin(), shape.end(), high.begin(), high.end(), at_most);
    }

    std::shared_ptr<Facts> facts_;
    int profile_;
    void* scratch_ = nullptr;
    Shapes shapes_;
    Addresses addresses_;
};

class Engine : public ICudaEngine {
   public:
    explicit Engine(std::shared_ptr<Facts> facts) : facts_(std::move(facts)) { standin::made("engines", this); }
    ~Engine() override {
        if (facts_->contexts) standin::note("an engine was destroyed before its contexts");
        standin::gone("engines", this);
    }

    std::int32_t getNbIOTensors() const noexcept override {
        return static_cast<std::int32_t>(facts_->model->inputs.size() + facts_->model->outputs.size());
    }
    const char* getIOTensorName(std::int32_t index) const noexcept override {
        const auto& inputs = facts_->model->inputs;
        const auto at = static_cast<std::size_t>(index);
        return at < inputs.size() ? inputs[at].name.c_str() : facts_->model->outputs[at - inputs.size()].name.c_str();
    }
    TensorIOMode getTensorIOMode(const char* name) const noexcept override {
        return facts_->model->is_input(name) ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    Dims getTensorShape(const char* name) const noexcept override { return dims_of(facts_->model->find(name)->shape); }
    DataType getTensorDataType(const char* name) const noexcept override {
        return type_of(facts_->model->find(name)->type);
    }

    Dims getProfileShape(const char* name, std::int32_t, OptProfileSelector which) const noexcept override {
        return dims_of(facts_->limit(name, which == OptProfileSelector::kMAX));
    }

#ifdef STANDIN_TENSORRT_8
    std::size_t getDeviceMemorySize() const noexcept override { return scratch_bytes; }
    IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept override { return create(); }
#else
    std::int64_t getDeviceMemorySizeV2() const noexcept override { return scratch_bytes; }
    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) standin::note("scratch memory of its own");
        return create();
    }
#endif

   private:
    IExecutionContext* create() {
        if (standin::fails("createExecutionContext")) {
            facts_->refuse("CUDA initialization failure");
            return nullptr;
        }
        return new Context(facts_, standin::options().one_context_per_profile && facts_->contexts ? -1 : 0);
    }

    std::shared_ptr<Facts> facts_;
};

class Runtime : public IRuntime {
   public:
    explicit Runtime(ILogger& logger) : logger_(logger) { standin::made("runtimes", this); }
    ~Runtime() override { standin::gone("runtimes", this); }

    void setEngineHostCodeAllowed(bool allowed) noexcept override { host_code_ = allowed; }

    ICudaEngine* deserializeCudaEngine(const void* data, std::size_t size) noexcept override {
        try {
            return open({static_cast<const char*>(data), size});
        } catch (const std::exception& error) {  // of ONNX Runtime, or no JSON
            logger_.log(ILogger::Severity::kERROR, error.what());
            return nullptr;
        }
    }

   private:
    ICudaEngine* open(const std::string& plan) {
        const auto end = std::min(plan.find('\n'), plan.size());
        const auto header = nlohmann::json::parse(plan.substr(0, end));
        const bool foreign = header.value("version", getInferLibVersion()) != getInferLibVersion();
        const char* why = foreign                                           ? "the plan was made by another version"
                          : header.value("host_code", false) && !host_code_ ? "host code is not allowed"
                          : standin::fails("deserializeCudaEngine")         ? "magicTagRead == kMAGIC_TAG failed"
                                                                            : nullptr;
        if (why) {
            logger_.log(ILogger::Severity::kERROR, why);
            return nullptr;
        }
        auto facts = std::make_shared<Facts>();
        *facts = {open_model(plan.substr(end + 1)),
                  &logger_,
                  header.at("min"),
                  header.at("max"),
                  header.value("shapes", decltype(facts->shapes)()),
                  0};
        return new Engine(facts);
    }

    ILogger& logger_;
    bool host_code_ = false;
};

}  // namespace

IRuntime* createInferRuntime(ILogger& logger) noexcept {
    if (!standin::fails("createInferRuntime")) return new Runtime(logger);
    logger.log(ILogger::Severity::kERROR, "CUDA initialization failure with error: 35");
    return nullptr;
}

}  // namespace nvinfer1

std::int32_t getInferLibVersion() noexcept {
#ifdef STANDIN_TENSORRT_8
    return 8601;
#else
    return 100300;
#endif
}
