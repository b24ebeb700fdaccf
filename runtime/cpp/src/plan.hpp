// TensorRT plans and their execution contexts: the only file that uses TensorRT, of any version from 8.5 to 11.
#pragma once

#include <NvInfer.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu.hpp"
#include "robustscanner/errors.hpp"
#include "robustscanner/spec.hpp"

namespace robustscanner {

using Shape = std::vector<std::int64_t>;  // -1: open, until it is known; the first is the batch

// What goes into a plan or comes out of it.
struct Tensor {
    Shape shape;
    nvinfer1::DataType type = nvinfer1::DataType::kFLOAT;

    std::size_t size_bytes() const;  // once the shape is known
};

using Tensors = std::map<std::string, Tensor>;
using Wiring = std::map<std::string, std::uint8_t*>;  // tensor name -> device address

// An input of a step that is neither the encoder's nor the step's own; older engines lack it.
constexpr auto allowed_input = "allowed";

// Of a plan for a step of just one picture, which some engines have.
constexpr auto single_name = "decoder-1.plan";

// For example "10.3.0"; of the library that is loaded.
std::string tensorrt_version();

class Plan;

// An execution context, and what it is wired for at present.
class Context {
   public:
    Context(const Plan& plan, std::unique_ptr<nvinfer1::IExecutionContext> context, cudaStream_t stream);

    // Whether it could be given the plan's optimisation profile, its only one.
    bool takes_profile();

    // Sets the shapes of the inputs; returns what comes out then.
    Tensors outputs(const Tensors& inputs);

    // Queues a run; in a context of one's own, all is in place after the first. Both have to outlive the context.
    void execute(const Tensors& inputs, const Wiring& wiring);

   private:
    const Plan& plan_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    cudaStream_t stream_;
    const Wiring* wired_ = nullptr;
};

// A deserialised engine, and what makes execution contexts of it.
class Plan {
   public:
    // Throws EngineError: it cannot be opened here.
    Plan(nvinfer1::IRuntime& runtime, const std::string& path, std::string name, cudaStream_t stream);

    const std::string& name() const { return name_; }
    const Tensors& inputs() const { return inputs_; }
    const Tensors& outputs() const { return outputs_; }
    std::size_t scratch_bytes() const;
    bool shares_context() const { return shares_context_; }  // known once all contexts were made

    // How small and how large a dimension of an input may be; the first is the batch.
    std::pair<std::int64_t, std::int64_t> extent(const std::string& name, std::size_t axis = 0) const;

    // Where contexts compute: one place for all, as they run one after another.
    void use_scratch(std::uint8_t* address) { scratch_ = address; }

    // A context of one's own, or the first one again where there can be no other: TensorRT 8.5 grants one for each
    // optimisation profile.
    std::shared_ptr<Context> context();

    // The error to throw when a call of TensorRT failed.
    EngineError failure(const std::string& what) const;

   private:
    std::unique_ptr<nvinfer1::IExecutionContext> create_context();

    std::string name_;
    cudaStream_t stream_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    Tensors inputs_, outputs_;
    std::uint8_t* scratch_ = nullptr;
    std::shared_ptr<Context> first_;
    bool shares_context_ = false;
};

// Throws EngineError when TensorRT does not start.
std::unique_ptr<nvinfer1::IRuntime> make_runtime(bool host_code);

// Whether the plans fit each other and the model. Throws EngineError.
void check_plans(const Plan& encoder, const Plan& decoder, const ModelSpec& spec);

}  // namespace robustscanner
