#include "bucket.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace robustscanner {
namespace {

constexpr int warm_up_rounds = 5;

Tensors sized(Tensors tensors, int size) {
    for (auto& [name, tensor] : tensors) {
        if (!tensor.shape.empty() && tensor.shape[0] == -1) tensor.shape[0] = size;
    }
    return tensors;
}

Tensors state_of(const Plan& encoder, const Plan& decoder) {
    Tensors state;
    for (const auto& [name, tensor] : decoder.inputs()) {
        if (!encoder.outputs().count(name) && name != allowed_input) state[name] = tensor;
    }
    return state;
}

template <typename Item>
void set_all(std::vector<std::uint8_t>& slab, const Layout& layout, const std::string& name, Item value) {
    auto* at = &slab[layout.offsets.at(name)];
    const auto count = layout.tensors.at(name).size_bytes() / sizeof value;
    for (std::size_t index = 0; index < count; ++index) std::memcpy(at + index * sizeof value, &value, sizeof value);
}

// A state slab before the first step.
std::vector<std::uint8_t> fresh_state(const Layout& layout, const ModelSpec& spec) {
    std::vector<std::uint8_t> slab(layout.size_bytes);
    set_all<std::int32_t>(slab, layout, "tokens", spec.charset.pad_id);
    set_all<float>(slab, layout, "scores", 1);
    set_all<std::int32_t>(slab, layout, "token", spec.charset.start_id);
    set_all<std::int32_t>(slab, layout, "running", 1);
    return slab;
}

// Rows of one tensor, the last one repeated.
template <typename Item>
void put_rows(std::uint8_t* to, const std::vector<Item>& items, std::size_t row, std::size_t start, std::size_t count,
              std::size_t size) {
    for (std::size_t index = 0; index < size; ++index) {
        const auto from = (start + std::min(index, count - 1)) * row;
        std::memcpy(to + index * row * sizeof(Item), &items[from], row * sizeof(Item));
    }
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

Wiring merged(const Wiring& left, const Wiring& right) {
    Wiring all = left;
    all.insert(right.begin(), right.end());
    return all;
}

}  // namespace

Layout::Layout(Tensors of) : tensors(std::move(of)) {
    std::vector<std::string> order;
    for (const char* text : {"tokens", "scores"}) {
        if (tensors.count(text)) order.push_back(text);
    }
    const auto texts = order.size();
    for (const auto& [name, tensor] : tensors) {
        if (std::find(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(texts), name) == order.end()) {
            order.push_back(name);
        }
    }
    for (std::size_t index = 0; index < order.size(); ++index) {
        const auto bytes = tensors[order[index]].size_bytes();
        offsets[order[index]] = size_bytes;
        if (index < texts) text_bytes = size_bytes + bytes;
        size_bytes += (bytes + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
    }
}

Wiring Layout::at(std::uint8_t* base) const {
    Wiring wiring;
    for (const auto& [name, offset] : offsets) wiring[name] = base + offset;
    return wiring;
}

Layouts::Layouts(Plan& encoder, const Plan& decoder, int size)
    : inputs(sized(encoder.inputs(), size)),
      memory(encoder.context()->outputs(inputs.tensors)),
      state(sized(state_of(encoder, decoder), size)) {}

Rig::Rig(int device, const SessionOptions& options, const std::string& folder, const ModelSpec& model)
    : spec(model),
      steps(model.network.max_length),
      shared(is_integrated(device)),
      record_encoder(options.gpu.cuda_graphs),
      record_steps(options.gpu.cuda_graphs),
      stream(make_stream()),
      runtime(make_runtime(options.gpu.host_code)),
      encoder(*runtime, folder + "/encoder.plan", "encoder.plan", stream.get()),
      decoder(*runtime, folder + "/decoder.plan", "decoder.plan", stream.get()) {
    check_plans(encoder, decoder, spec);
    scratch = device_memory(std::max(encoder.scratch_bytes(), decoder.scratch_bytes()));
    encoder.use_scratch(scratch.get());
    decoder.use_scratch(scratch.get());
    for (int event = 0; event <= steps; ++event) events.push_back(make_event(options.spinning));
}

void Rig::reserve(const std::vector<int>& buckets) {
    const Layouts largest(encoder, decoder, buckets.back());
    for (const int size : buckets) {
        const auto slab = fresh_state(Layout(sized(state_of(encoder, decoder), size)), spec);
        fresh[size] = device_memory(slab.size());
        check_cuda(cudaMemcpy(fresh[size].get(), slab.data(), slab.size(), cudaMemcpyHostToDevice));
    }
    memory = device_memory(largest.memory.size_bytes);
    inputs_host = host_memory(largest.inputs.size_bytes);
    if (shared) {
        inputs_address = device_address(inputs_host);
        going_host = host_memory(alignment_bytes);
        going_address = device_address(going_host);
    } else {
        inputs = device_memory(largest.inputs.size_bytes);
        inputs_address = inputs.get();
        going = device_memory(alignment_bytes);
        going_address = going.get();
        text_host = host_memory(largest.state.text_bytes);
        flags = host_memory(sizeof(std::int32_t) * static_cast<std::size_t>(steps));
    }
    if (can_constrain()) {
        const auto bytes = decoder.inputs().at(allowed_input).size_bytes();
        allowed_host = host_memory(bytes);
        std::memset(allowed_host.get(), 0, bytes);
        allowed = device_memory(bytes);
        check_cuda(cudaMemcpy(allowed.get(), allowed_host.get(), bytes, cudaMemcpyHostToDevice));
    }
    for (int parity = 0; parity < 2; ++parity) {
        if (shared) {
            states_host[parity] = host_memory(largest.state.size_bytes);
            states_address[parity] = device_address(states_host[parity]);
        } else {
            states[parity] = device_memory(largest.state.size_bytes);
            states_address[parity] = states[parity].get();
        }
    }
}

void Rig::allow(const Allowed& choices) {
    if (choices.empty() && !constrained) return;
    const auto bytes = decoder.inputs().at(allowed_input).size_bytes();
    if (!choices.empty() && choices.size() * sizeof(float) != bytes) {
        throw EngineError("given " + std::to_string(choices.size()) + " numbers of what is allowed, not " +
                          std::to_string(bytes / sizeof(float)) + "; see Session::run");
    }
    // The last copy from here is over, as each run waits for what is behind that.
    if (choices.empty()) {
        std::memset(allowed_host.get(), 0, bytes);
    } else {
        std::memcpy(allowed_host.get(), choices.data(), bytes);
    }
    check_cuda(cudaMemcpyAsync(allowed.get(), allowed_host.get(), bytes, cudaMemcpyHostToDevice, stream.get()));
    constrained = !choices.empty();
}

Bucket::Bucket(Rig& rig, int size)
    : rig_(rig),
      size_(static_cast<std::size_t>(size)),
      layouts_(rig.encoder, rig.decoder, size),
      encoder_(rig.encoder.context()),
      steps_{rig.decoder.context(), rig.decoder.context()} {
    step_inputs_ = layouts_.memory.tensors;
    step_inputs_.insert(layouts_.state.tensors.begin(), layouts_.state.tensors.end());
    auto remembered = layouts_.memory.at(rig.memory.get());
    encoder_wiring_ = merged(layouts_.inputs.at(rig.inputs_address), remembered);
    if (rig.can_constrain()) {
        step_inputs_[allowed_input] = rig.decoder.inputs().at(allowed_input);
        remembered[allowed_input] = rig.allowed.get();
    }
    for (int parity = 0; parity < 2; ++parity) {
        Wiring results = {{"going", rig.going_address}};
        for (const auto& [name, address] : layouts_.state.at(rig.states_address[1 - parity])) {
            results[name + "_next"] = address;
        }
        step_wirings_[parity] = merged(merged(remembered, layouts_.state.at(rig.states_address[parity])), results);
    }
}

void Bucket::fill(const Canvases& canvases, std::size_t start, std::size_t count) {
    auto* slab = rig_.inputs_host.get();
    const auto& offsets = layouts_.inputs.offsets;
    put_rows(slab + offsets.at("images"), canvases.pixels, canvas_bytes(rig_.spec.input), start, count, size_);
    put_rows(slab + offsets.at("valid_width"), canvases.valid_width, 1, start, count, size_);
}

void Bucket::prepare(int steps_per_launch) {
    start_graph_.reset();
    for (auto& graph : block_graphs_) graph.reset();
    steps_per_launch_ = steps_per_launch;
    queue_start();
    for (int step = 0; step < std::min(2, rig_.steps); ++step) {
        steps_[step]->execute(step_inputs_, step_wirings_[step]);
    }
    check_cuda(cudaStreamSynchronize(rig_.stream.get()));
    const auto try_to_record = [&](Graph& graph, bool& possible, const Plan& plan,
                                   const std::function<void()>& launch) {
        possible = possible && !plan.shares_context();  // a shared one is wired anew for every launch
        if (!possible) return;
        try {
            graph = record(rig_.stream.get(), launch);
        } catch (const CudaError&) {  // slower without, but no reason to stop
            possible = false;
        } catch (const EngineError&) {
            possible = false;
        }
    };
    try_to_record(start_graph_, rig_.record_encoder, rig_.encoder, [&] { queue_start(); });
    const int parities = steps_per_launch % 2 && rig_.steps > steps_per_launch ? 2 : 1;
    for (int parity = 0; parity < parities; ++parity) {
        try_to_record(block_graphs_[parity], rig_.record_steps, rig_.decoder, [&] { queue_steps(parity); });
    }
}

void Bucket::start() {
    if (start_graph_) {
        check_cuda(cudaGraphLaunch(start_graph_.get(), rig_.stream.get()));
    } else {
        queue_start();
    }
}

void Bucket::queue(int block) {
    const int parity = block * steps_per_launch_ % 2;
    if (block_graphs_[parity]) {
        check_cuda(cudaGraphLaunch(block_graphs_[parity].get(), rig_.stream.get()));
    } else {
        queue_steps(parity);
    }
    queue_message(block);
}

bool Bucket::going(int block) {
    check_cuda(cudaEventSynchronize(rig_.events[static_cast<std::size_t>(block)].get()));
    // The shared flag serves all blocks, as it only ever falls: what was 0 stays 0.
    const auto* flag =
        rig_.shared ? rig_.going_host.get() : rig_.flags.get() + sizeof(std::int32_t) * static_cast<std::size_t>(block);
    std::int32_t value = 0;
    std::memcpy(&value, flag, sizeof value);
    return value != 0;
}

void Bucket::fetch(int blocks, Result& result, std::size_t start, std::size_t count) {
    const auto* slab = text(blocks * steps_per_launch_ % 2);
    const auto steps = static_cast<std::size_t>(rig_.steps);
    const auto& offsets = layouts_.state.offsets;
    std::memcpy(&result.tokens[start * steps], slab + offsets.at("tokens"), count * steps * sizeof(std::int32_t));
    std::memcpy(&result.scores[start * steps], slab + offsets.at("scores"), count * steps * sizeof(float));
}

StepTimes Bucket::measure() {
    prepare(rig_.steps);
    std::vector<double> step_us, launch_us, wait_us;
    for (int round = 0; round < warm_up_rounds; ++round) {
        const auto times = measure_once();
        step_us.push_back(times.step_us);
        launch_us.push_back(times.launch_us);
        wait_us.push_back(times.wait_us);
    }
    return {median(step_us), median(launch_us), median(wait_us), block_graphs_[0] != nullptr};
}

StepTimes Bucket::measure_once() {
    using Clock = std::chrono::steady_clock;
    using Microseconds = std::chrono::duration<double, std::micro>;
    start();
    check_cuda(cudaStreamSynchronize(rig_.stream.get()));
    const auto began = Clock::now();
    queue_message(0);
    going(0);
    const auto asked = Clock::now();
    queue(0);
    const auto queued = Clock::now();
    going(0);
    const Microseconds wait = asked - began, launch = queued - asked, run = Clock::now() - asked;
    const int launches = block_graphs_[0] ? 1 : rig_.steps;
    return {std::max((run - wait).count(), 0.0) / rig_.steps, launch.count() / launches, wait.count()};
}

void Bucket::queue_start() {
    const auto stream = rig_.stream.get();
    if (!rig_.shared) {
        check_cuda(cudaMemcpyAsync(rig_.inputs_address, rig_.inputs_host.get(), layouts_.inputs.size_bytes,
                                   cudaMemcpyHostToDevice, stream));
    }
    const auto& fresh = rig_.fresh.at(static_cast<int>(size_));
    check_cuda(
        cudaMemcpyAsync(rig_.states_address[0], fresh.get(), layouts_.state.size_bytes, cudaMemcpyDefault, stream));
    encoder_->execute(layouts_.inputs.tensors, encoder_wiring_);
}

void Bucket::queue_steps(int parity) {
    for (int index = 0; index < steps_per_launch_; ++index) {
        const int now = (parity + index) % 2;
        steps_[now]->execute(step_inputs_, step_wirings_[now]);
    }
}

void Bucket::queue_message(int block) {
    const auto index = static_cast<std::size_t>(block);
    if (!rig_.shared) {
        check_cuda(cudaMemcpyAsync(rig_.flags.get() + sizeof(std::int32_t) * index, rig_.going_address,
                                   sizeof(std::int32_t), cudaMemcpyDeviceToHost, rig_.stream.get()));
    }
    check_cuda(cudaEventRecord(rig_.events[index].get(), rig_.stream.get()));
}

// Host memory that holds tokens and scores of a state, once the device is done.
const std::uint8_t* Bucket::text(int parity) {
    const auto* slab = rig_.states_host[parity].get();
    if (!rig_.shared) {
        slab = rig_.text_host.get();
        check_cuda(cudaMemcpyAsync(rig_.text_host.get(), rig_.states_address[parity], layouts_.state.text_bytes,
                                   cudaMemcpyDeviceToHost, rig_.stream.get()));
    }
    check_cuda(cudaEventRecord(rig_.events.back().get(), rig_.stream.get()));
    check_cuda(cudaEventSynchronize(rig_.events.back().get()));
    return slab;
}

}  // namespace robustscanner
