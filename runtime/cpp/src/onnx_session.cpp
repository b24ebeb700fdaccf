#include "onnx_session.hpp"

#include <malloc.h>
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>
#include <regex>

#include "cpu.hpp"
#include "letters.hpp"
#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

constexpr const char* spec_key = "robustscanner.spec";
constexpr const char* history_key = "robustscanner.history";
// Of every step: beside what CTC sees, the output that only letters and lists of words need. Older exports lack both.
constexpr const char* step_logits = "step_logits";
constexpr const char* export_again = "export it with convert/export_onnx.py";

using Shape = std::vector<std::string>;  // "N" and "W" stand for free dimensions, "?" for one without a name

struct Tensor {
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    Shape shape;
};

using Tensors = std::map<std::string, Tensor>;

std::string runtime() { return std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString(); }

// Its own words, without the place in its source where they come from.
std::string plain(const Ort::Exception& error) {
    static const std::regex place(R"(^/\S+:\d+ .*?\) (?=[A-Z]))");
    return std::regex_replace(first_line(error.what()), place, "");
}

// Cause and cure of an exception while loading; ONNX Runtime's own words where there is nothing better.
std::string explain(const Ort::Exception& error) {
    static const std::regex opset(R"(Opset (\d+) is under)"), limit(R"(ai\.onnx is till opset (\d+))"),
        version(R"(model IR version: (\d+), max supported IR version: (\d+))"),
        lacks("No Op registered|not a registered function"), protobuf("protobuf", std::regex::icase);
    const std::string text = plain(error), cure = "update onnxruntime, or export it again with convert/export_onnx.py";
    std::smatch found, most;
    if (std::regex_search(text, found, opset) && std::regex_search(text, most, limit)) {
        return "made with opset " + found.str(1) + "; " + runtime() + " reads up to opset " + most.str(1) + ": " + cure;
    }
    if (std::regex_search(text, found, version)) {
        return "made with ONNX IR version " + found.str(1) + "; " + runtime() + " reads up to " + found.str(2) + ": " +
               cure;
    }
    if (std::regex_search(text, lacks)) {
        return "needs an operator that " + runtime() + " lacks; " + cure + " (" + text + ")";
    }
    if (std::regex_search(text, protobuf)) {
        return "damaged, or not an ONNX file; copy or export it again (" + text + ")";
    }
    return runtime() + " cannot open it; export it again with convert/export_onnx.py (" + text + ")";
}

Ort::SessionOptions settings(const SessionOptions& options) {
    Ort::SessionOptions settings;
    settings.SetIntraOpNumThreads(options.threads);
    settings.SetInterOpNumThreads(1);
    settings.SetExecutionMode(ORT_SEQUENTIAL);
    settings.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
    settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);  // whatever is wrong arrives as an exception anyway
    const bool spinning = options.spinning && options.threads <= cpu_quota().value_or(affinity_cores());
    settings.AddConfigEntry("session.intra_op.allow_spinning", spinning ? "1" : "0");
    return settings;
}

// ONNX Runtime reports to its maker from 1.29 on, and looks at this when its environment is made.
Ort::Env quiet_environment() {
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // 0 in the environment turns it on
    return Ort::Env(ORT_LOGGING_LEVEL_FATAL, "robustscanner");
}

std::string type_name(ONNXTensorElementDataType type) {
    switch (type) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
            return "tensor(uint8)";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
            return "tensor(int32)";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
            return "tensor(int64)";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
            return "tensor(float)";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
            return "tensor(float16)";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
            return "tensor(double)";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED:
            return "no tensor";
        default:
            return "tensor of kind " + std::to_string(type);
    }
}

Tensor tensor_of(const Ort::TypeInfo& info) {
    if (info.GetONNXType() != ONNX_TYPE_TENSOR) return {};
    const auto details = info.GetTensorTypeAndShapeInfo();
    const auto sizes = details.GetShape();
    std::vector<const char*> names(sizes.size());
    details.GetSymbolicDimensions(names.data(), names.size());
    Tensor tensor{details.GetElementType(), {}};
    for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
        const bool open = sizes[axis] < 0;
        tensor.shape.push_back(!open ? std::to_string(sizes[axis]) : *names[axis] ? names[axis] : "?");
    }
    return tensor;
}

Tensors tensors_of(const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions memory;
    Tensors tensors;
    for (std::size_t index = 0; index < session.GetInputCount(); ++index) {
        tensors[session.GetInputNameAllocated(index, memory).get()] = tensor_of(session.GetInputTypeInfo(index));
    }
    for (std::size_t index = 0; index < session.GetOutputCount(); ++index) {
        const std::string name = session.GetOutputNameAllocated(index, memory).get();
        if (name == step_logits || name == ctc_columns) continue;  // what only letters need
        tensors[name] = tensor_of(session.GetOutputTypeInfo(index));
    }
    return tensors;
}

bool is_open(const std::string& size) { return size.find_first_not_of("0123456789") != size.npos; }

// A dimension that the graph leaves open may turn out right; the batch has to be open.
bool fits(const Shape& found, const Shape& wanted) {
    if (found.size() != wanted.size()) return false;
    for (std::size_t axis = 0; axis < found.size(); ++axis) {
        if (!is_open(found[axis]) && found[axis] != wanted[axis]) return false;
    }
    return true;
}

std::string in_text(const Tensor& tensor) { return type_name(tensor.type) + " [" + joined(tensor.shape, ", ") + "]"; }

std::string names_of(const Tensors& tensors) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors) names.push_back(name);
    return joined(names, ", ");
}

Tensors tensors_for(const ModelSpec& spec) {
    const auto height = std::to_string(spec.input.height_px),
               width = spec.input.canvas_step_px ? "W" : std::to_string(spec.input.width_px),
               steps = std::to_string(spec.network.max_length);
    return {{"images", {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, {"N", height, width, "3"}}},
            {"valid_width", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {"N"}}},
            {"tokens", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {"N", steps}}},
            {"scores", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {"N", steps}}}};
}

void check_graph(const std::string& path, const Ort::Session& session, const ModelSpec& spec) {
    const auto wanted = tensors_for(spec);
    const auto found = tensors_of(session);
    if (names_of(found) != names_of(wanted)) {
        throw EngineError(path + ": its inputs and outputs are " + names_of(found) + ", not " + names_of(wanted) +
                          "; " + export_again);
    }
    for (const auto& [name, tensor] : wanted) {
        const auto& is = found.at(name);
        if (is.type != tensor.type || !fits(is.shape, tensor.shape)) {
            throw EngineError(path + ": " + name + " is " + in_text(is) + ", but its spec needs " + in_text(tensor) +
                              "; " + export_again);
        }
    }
}

ModelSpec read_spec(const std::string& path, const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions memory;
    const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(spec_key, memory);
    if (!text) {
        throw EngineError(path + ": not one of our models: no " + spec_key + " metadata; " + export_again);
    }
    try {
        return ModelSpec::from_json(text.get());
    } catch (const SpecError& error) {
        throw EngineError(path + ": " + error.what());
    }
}

bool has_output(const Ort::Session& session, const std::string& wanted) {
    Ort::AllocatorWithDefaultOptions memory;
    for (std::size_t index = 0; index < session.GetOutputCount(); ++index) {
        if (session.GetOutputNameAllocated(index, memory).get() == wanted) return true;
    }
    return false;
}

bool has_allowed(const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions memory;
    for (std::size_t index = 0; index < session.GetOverridableInitializerCount(); ++index) {
        if (session.GetOverridableInitializerNameAllocated(index, memory).get() == std::string("allowed")) return true;
    }
    return false;
}

bool has_8_bit_weights(const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions memory;
    const auto history = session.GetModelMetadata().LookupCustomMetadataMapAllocated(history_key, memory);
    return history && std::regex_search(history.get(), std::regex("\"weight_bits\": *8\\b"));
}

template <typename Item>
std::vector<Item> items_of(const Ort::Value& value) {
    const auto count = value.GetTensorTypeAndShapeInfo().GetElementCount();
    const auto* items = value.GetTensorData<Item>();
    return {items, items + count};
}

// Of rows of logits.
std::vector<double> softmax(const std::vector<float>& logits, std::size_t classes) {
    std::vector<double> chances(logits.begin(), logits.end());
    for (auto row = chances.begin(); row != chances.end(); row += static_cast<std::ptrdiff_t>(classes)) {
        const auto end = row + static_cast<std::ptrdiff_t>(classes);
        const double largest = *std::max_element(row, end);
        std::transform(row, end, row, [&](double logit) { return std::exp(logit - largest); });
        const double sum = std::accumulate(row, end, 0.0);
        std::transform(row, end, row, [&](double power) { return power / sum; });
    }
    return chances;
}

class OnnxSession : public Session {
   public:
    OnnxSession(const std::string& path, const SessionOptions& options)
        : path_(path), options_(options), environment_(quiet_environment()), session_(nullptr) {
        try {
            session_ = Ort::Session(environment_, path.c_str(), settings(options));
        } catch (const Ort::Exception& error) {
            throw EngineError(path + ": " + explain(error));
        }
#ifdef __GLIBC__
        malloc_trim(0);  // else what reading the file took stays with the process: 3 to 8 MiB of the shipped model's
#endif
        spec_ = read_spec(path, session_);
        check_graph(path, session_, spec_);
        can_constrain_ = has_allowed(session_);
        tells_logits_ = has_output(session_, step_logits);
        tells_columns_ = has_output(session_, ctc_columns);
    }

    const ModelSpec& spec() const override { return spec_; }
    std::optional<int> max_batch() const override { return {}; }

    std::string description() const override {
        return path_ + ": " + spec_.name + ", " + runtime() + ", threads=" + std::to_string(options_.threads) +
               ", spinning=" + (options_.spinning ? "True" : "False");
    }

    std::string warning() const override {
        if (!has_8_bit_weights(session_) || !int8_saturates()) return {};
        return path_ +
               ": its 8-bit weights saturate on this CPU (x86 without VNNI) and cost accuracy; build it with "
               "--reduce-range";
    }

    bool can_constrain() const override { return can_constrain_; }

    Result run(const Canvases& canvases, const Allowed& allowed) override {
        return checked(canvases, run_graph(canvases, allowed, {"tokens", "scores"}));
    }

    Told tell(const Canvases& canvas, const Allowed& allowed) override {
        if (!tells_logits_) return Session::tell(canvas, allowed);
        const auto found = run_graph(canvas, allowed, {"tokens", "scores", step_logits});
        return {checked(canvas, found), softmax(items_of<float>(found[2]), classes())};
    }

    Trace trace(const Canvases& canvas, const Allowed& allowed) override {
        if (!tells_logits_) {
            throw ConstraintError(path_ +
                                  ": older than letters; export the model again with convert/export_onnx.py, or build "
                                  "the engine again with convert/build_engine.py");
        }
        std::vector<const char*> outputs = {step_logits};
        if (tells_columns_) outputs.push_back(ctc_columns);
        const auto found = run_graph(canvas, allowed, outputs);
        return {softmax(items_of<float>(found[0]), classes()),
                found.size() > 1 ? items_of<float>(found[1]) : std::vector<float>()};
    }

   private:
    std::size_t classes() const { return static_cast<std::size_t>(spec_.charset.class_count); }

    Result checked(const Canvases& canvases, const std::vector<Ort::Value>& found) const {
        Result result = {items_of<std::int32_t>(found[0]), items_of<float>(found[1])};
        try {
            check_result(spec_, canvases.count(), result);
        } catch (const EngineError& error) {
            throw EngineError(path_ + ": " + error.what());
        }
        return result;
    }

    std::vector<Ort::Value> run_graph(const Canvases& canvases, const Allowed& allowed,
                                      const std::vector<const char*>& outputs) {
        constexpr std::array<const char*, 3> inputs = {"images", "valid_width", "allowed"};
        const auto count = static_cast<std::int64_t>(canvases.count());
        const std::array<std::int64_t, 4> images = {count, spec_.input.height_px, canvases.width_px, 3};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        // ONNX Runtime only reads its inputs, though its tensors are not const.
        auto* pixels = const_cast<std::uint8_t*>(canvases.pixels.data());
        auto* widths = const_cast<std::int32_t*>(canvases.valid_width.data());
        auto* choice = const_cast<float*>(allowed.data());
        const std::array<std::int64_t, 2> steps = {spec_.network.max_length, spec_.charset.class_count};
        const std::array<Ort::Value, 3> values = {
            Ort::Value::CreateTensor(memory, pixels, canvases.pixels.size(), images.data(), 4),
            Ort::Value::CreateTensor(memory, widths, canvases.count(), &count, 1),
            allowed.empty() ? Ort::Value(nullptr)
                            : Ort::Value::CreateTensor(memory, choice, allowed.size(), steps.data(), 2)};
        const std::size_t given = allowed.empty() ? 2 : 3;
        try {
            return session_.Run({}, inputs.data(), values.data(), given, outputs.data(), outputs.size());
        } catch (const Ort::Exception& error) {
            throw EngineError(path_ + ": " + runtime() + " failed: " + plain(error));
        }
    }

    std::string path_;
    SessionOptions options_;
    ModelSpec spec_;
    Ort::Env environment_;  // one for the process, which counts its users
    Ort::Session session_;
    bool can_constrain_ = false, tells_logits_ = false, tells_columns_ = false;
};

}  // namespace

std::unique_ptr<Session> open_onnx(const std::string& path, const SessionOptions& options) {
    return std::make_unique<OnnxSession>(path, options);
}

}  // namespace robustscanner
