// Runs of one size on the GPU: where its tensors lie, and how its work is queued.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "decoding.hpp"
#include "plan.hpp"
#include "robustscanner/session.hpp"

namespace robustscanner {

// Where tensors lie in a slab, one after another, each aligned; tokens and scores first, so that one copy fetches
// both.
struct Layout {
    Layout() = default;
    explicit Layout(Tensors tensors);

    // Addresses of the tensors in a slab.
    Wiring at(std::uint8_t* base) const;

    Tensors tensors;
    std::map<std::string, std::size_t> offsets;
    std::size_t size_bytes = 0;
    std::size_t text_bytes = 0;  // up to the end of tokens and scores
};

// Of a run.
struct Size {
    int pictures = 0;
    int width_px = 0;  // of their canvases

    bool operator<(const Size& other) const {
        return std::tie(pictures, width_px) < std::tie(other.pictures, other.width_px);
    }
};

// Of one size.
struct Layouts {
    Layouts(Plan& encoder, const Plan& decoder, const Size& size);

    Layout inputs, memory, state;  // memory: what the encoder gives; state: what a step changes
};

// What all buckets of a session share, for the largest runs; smaller ones use the front of it. They run one after
// another. Where CPU and GPU share their memory (Jetson), pictures lie in page-locked memory, and are not copied. All
// else that the device works with does not: an integrated GPU does not cache what is page-locked.
struct Rig {
    // `with_single`: the engine has a step for just one picture.
    Rig(int device, const SessionOptions& options, const std::string& folder, const ModelSpec& model, bool with_single);
    Rig(const Rig&) = delete;
    Rig& operator=(const Rig&) = delete;
    ~Rig() { cudaStreamSynchronize(stream.get()); }  // nothing may run any more when memory goes

    // Takes all the memory that the session will ever need, but for what TensorRT's contexts take themselves.
    void reserve(const std::vector<Size>& sizes);

    // Whether a step takes what is allowed, as older ones do not.
    bool can_constrain() const { return decoder.inputs().count(allowed_input) != 0; }

    Plan& decoder_for(const Size& size) { return single && size.pictures == 1 ? *single : decoder; }

    // Queues what texts may be from now on, where that changes.
    void allow(const Allowed& choices);

    // Puts rows of pictures into the input slab; rows left over repeat the last picture, and so end when it does.
    void fill(const Size& size, const Canvases& canvases, std::size_t start, std::size_t count);

    // Queues their way to the device, where that is one.
    void queue_inputs(const Size& size);

    // Records what `queue` queues, unless it turned out before that this is not possible.
    void try_to_record(Graph& graph, bool& possible, const Plan& plan, const std::function<void()>& queue);

    const ModelSpec spec;
    const int steps;                    // the most of a word
    const bool shared;                  // CPU and GPU share their memory
    bool record_encoder, record_steps;  // until it turns out that it cannot be
    Stream stream;
    DeviceMemory scratch, inputs, memory, going, allowed, states[2];
    HostMemory inputs_host, text_host, flag_host, allowed_host;
    bool constrained = false;  // not everything is allowed now
    std::map<Size, Layouts> layouts;
    std::map<Size, DeviceMemory> fresh;  // a state before the first step: a reset is one copy
    std::vector<Event> events;           // one for each block
    std::uint8_t* inputs_address = nullptr;
    std::unique_ptr<nvinfer1::IRuntime> runtime;  // has to outlive the plans
    Plan encoder, decoder;                        // their contexts use the memory above until they go
    std::unique_ptr<Plan> single;
};

// What reads runs of one size.
class Runner {
   public:
    Runner() = default;
    Runner(const Runner&) = delete;
    Runner& operator=(const Runner&) = delete;
    virtual ~Runner() = default;

    // Runs everything once, so that nothing is compiled or allocated later; records it where that is possible.
    virtual void prepare(const Schedule& schedule) = 0;

    // Reads the pictures that are in the input slab; copies the rows that were asked for.
    virtual void read(Result& result, std::size_t start, std::size_t count) = 0;
};

// Decoding steps: contexts that are wired once, and recordings of their launches.
class Bucket : public Runner, public Machine {
   public:
    Bucket(Rig& rig, const Size& size);
    ~Bucket() override { cudaStreamSynchronize(rig_.stream.get()); }  // nothing may run any more when contexts go

    void prepare(const Schedule& schedule) override;
    void read(Result& result, std::size_t start, std::size_t count) override;

    void start() override;
    void queue(int block) override;
    bool going(int block) override;

    // Times all the steps at once, the median of a few rounds; inputs are in place.
    StepTimes measure();

   private:
    StepTimes measure_once();
    void record_all();
    void launch_block(int parity);
    void queue_fresh_state();
    void queue_start();
    void queue_block(int parity);

    Rig& rig_;
    Size size_;
    Plan& decoder_;
    const Layouts& layouts_;
    Tensors step_inputs_;
    std::shared_ptr<Context> encoder_, steps_[2];  // from one state slab to the other
    Wiring encoder_wiring_, step_wirings_[2];
    Schedule schedule_;
    bool ended_ = false;                   // whether the host knows that all words have
    Graph start_graph_, block_graphs_[2];  // by the state that the first step reads
    Graph first_graph_;                    // start and first block in one
};

}  // namespace robustscanner
