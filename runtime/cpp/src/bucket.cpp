#include "bucket.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace robustscanner {
namespace {

constexpr int warm_up_rounds = 5;

// Inputs of the encoder: the first dimension is the batch, and another open one the canvases' width.
Tensors sized(Tensors tensors, const Size& size) {
    for (auto& [name, tensor] : tensors) {
        for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
            if (tensor.shape[axis] == -1) tensor.shape[axis] = axis ? size.width_px : size.pictures;
        }
    }
    return tensors;
}

// What a step changes: an open dimension is as large as the memory's that is open just as far.
Tensors state_of(const Plan& decoder, const Tensors& memory, const Size& size) {
    std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> known;
    for (const auto& [name, tensor] : memory) {
        for (std::size_t axis = 1; axis < tensor.shape.size(); ++axis) {
            if (decoder.inputs().at(name).shape[axis] == -1) known[decoder.extent(name, axis)] = tensor.shape[axis];
        }
    }
    Tensors state;
    for (auto [name, tensor] : decoder.inputs()) {
        if (memory.count(name) || name == allowed_input) continue;
        for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
            auto& length = tensor.shape[axis];
            if (length == -1) length = axis ? known.at(decoder.extent(name, axis)) : size.pictures;
        }
        state[name] = tensor;
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
        if (std::find(order.begin(), order.end(), name) == order.end()) order.push_back(name);
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

Layouts::Layouts(Plan& encoder, const Plan& decoder, const Size& size)
    : inputs(sized(encoder.inputs(), size)),
      memory(encoder.context()->outputs(inputs.tensors)),
      state(state_of(decoder, memory.tensors, size)) {}

Rig::Rig(int device, const SessionOptions& options, const std::string& folder, const ModelSpec& model, bool with_single)
    : spec(model),
      steps(model.network.max_length),
      shared(is_integrated(device)),
      record_encoder(options.gpu.cuda_graphs),
      record_steps(options.gpu.cuda_graphs),
      stream(make_stream()),
      runtime(make_runtime(options.gpu.host_code)),
      encoder(*runtime, folder + "/encoder.plan", "encoder.plan", stream.get()),
      decoder(*runtime, folder + "/decoder.plan", "decoder.plan", stream.get()) {
    std::vector<Plan*> plans = {&encoder, &decoder};
    if (with_single) {
        single = std::make_unique<Plan>(*runtime, folder + "/" + single_name, single_name, stream.get());
        check_plans(encoder, *single, spec);
        plans.push_back(single.get());
    }
    check_plans(encoder, decoder, spec);
    std::size_t scratch_bytes = 0;
    for (const auto* plan : plans) scratch_bytes = std::max(scratch_bytes, plan->scratch_bytes());
    scratch = device_memory(scratch_bytes);
    for (auto* plan : plans) plan->use_scratch(scratch.get());
    for (int event = 0; event < steps; ++event) events.push_back(make_event(options.spinning));
}

void Rig::reserve(const std::vector<Size>& sizes) {
    std::size_t inputs_bytes = 0, memory_bytes = 0, state_bytes = 0, text_bytes = 0;
    for (const auto& size : sizes) {
        const auto& now = layouts.emplace(size, Layouts(encoder, decoder_for(size), size)).first->second;
        inputs_bytes = std::max(inputs_bytes, now.inputs.size_bytes);
        memory_bytes = std::max(memory_bytes, now.memory.size_bytes);
        state_bytes = std::max(state_bytes, now.state.size_bytes);
        text_bytes = std::max(text_bytes, now.state.text_bytes);
        const auto slab = fresh_state(now.state, spec);
        fresh[size] = device_memory(slab.size());
        check_cuda(cudaMemcpy(fresh[size].get(), slab.data(), slab.size(), cudaMemcpyHostToDevice));
    }
    memory = device_memory(memory_bytes);
    for (auto& state : states) state = device_memory(state_bytes);
    inputs_host = host_memory(inputs_bytes);
    if (!shared) inputs = device_memory(inputs_bytes);
    inputs_address = shared ? device_address(inputs_host) : inputs.get();
    going = device_memory(sizeof(std::int32_t));
    flag_host = host_memory(sizeof(std::int32_t));
    text_host = host_memory(text_bytes);
    if (can_constrain()) {
        const auto bytes = decoder.inputs().at(allowed_input).size_bytes();
        allowed_host = host_memory(bytes);
        std::memset(allowed_host.get(), 0, bytes);
        allowed = device_memory(bytes);
        check_cuda(cudaMemcpy(allowed.get(), allowed_host.get(), bytes, cudaMemcpyHostToDevice));
    }
    check_cuda(cudaDeviceSynchronize());  // a copy of memory that is not page-locked may still be under way
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

void Rig::fill(const Size& size, const Canvases& canvases, std::size_t start, std::size_t count) {
    auto* slab = inputs_host.get();
    const auto& offsets = layouts.at(size).inputs.offsets;
    const auto row = static_cast<std::size_t>(spec.input.height_px) * static_cast<std::size_t>(size.width_px) * 3;
    const auto rows = static_cast<std::size_t>(size.pictures);
    put_rows(slab + offsets.at("images"), canvases.pixels, row, start, count, rows);
    put_rows(slab + offsets.at("valid_width"), canvases.valid_width, 1, start, count, rows);
}

void Rig::queue_inputs(const Size& size) {
    if (shared) return;
    check_cuda(cudaMemcpyAsync(inputs_address, inputs_host.get(), layouts.at(size).inputs.size_bytes,
                               cudaMemcpyHostToDevice, stream.get()));
}

void Rig::try_to_record(Graph& graph, bool& possible, const Plan& plan, const std::function<void()>& queue) {
    possible = possible && !plan.shares_context();  // a shared one is wired anew for every launch
    if (!possible) return;
    try {
        graph = record(stream.get(), queue);
    } catch (const CudaError&) {  // slower without, but no reason to stop
        possible = false;
    } catch (const EngineError&) {
        possible = false;
    }
}

Bucket::Bucket(Rig& rig, const Size& size)
    : rig_(rig),
      size_(size),
      decoder_(rig.decoder_for(size)),
      layouts_(rig.layouts.at(size)),
      encoder_(rig.encoder.context()),
      steps_{decoder_.context(), decoder_.context()} {
    step_inputs_ = layouts_.memory.tensors;
    step_inputs_.insert(layouts_.state.tensors.begin(), layouts_.state.tensors.end());
    auto remembered = layouts_.memory.at(rig.memory.get());
    encoder_wiring_ = merged(layouts_.inputs.at(rig.inputs_address), remembered);
    if (rig.can_constrain()) {
        step_inputs_[allowed_input] = decoder_.inputs().at(allowed_input);
        remembered[allowed_input] = rig.allowed.get();
    }
    for (int parity = 0; parity < 2; ++parity) {
        Wiring results = {{"going", rig.going.get()}};
        for (const auto& [name, address] : layouts_.state.at(rig.states[1 - parity].get())) {
            results[name + "_next"] = address;
        }
        step_wirings_[parity] = merged(merged(remembered, layouts_.state.at(rig.states[parity].get())), results);
    }
}

void Bucket::prepare(const Schedule& schedule) {
    for (auto* graph : {&start_graph_, &first_graph_, &block_graphs_[0], &block_graphs_[1]}) graph->reset();
    schedule_ = schedule;
    queue_start();
    for (int step = 0; step < std::min(2, rig_.steps); ++step) {
        steps_[step]->execute(step_inputs_, step_wirings_[step]);
    }
    check_cuda(cudaStreamSynchronize(rig_.stream.get()));
    record_all();
}

void Bucket::record_all() {
    rig_.try_to_record(start_graph_, rig_.record_encoder, rig_.encoder, [&] { queue_start(); });
    const int parities = schedule_.steps_per_launch % 2 && rig_.steps > schedule_.steps_per_launch ? 2 : 1;
    for (int parity = 0; parity < parities; ++parity) {
        rig_.try_to_record(block_graphs_[parity], rig_.record_steps, decoder_, [&] { queue_block(parity); });
    }
    if (!start_graph_ || !block_graphs_[0]) return;
    rig_.try_to_record(first_graph_, rig_.record_steps, decoder_, [&] {
        queue_start();
        queue_block(0);
    });
}

void Bucket::start() {
    ended_ = false;
    if (first_graph_) return;  // with the first block
    if (start_graph_) {
        check_cuda(cudaGraphLaunch(start_graph_.get(), rig_.stream.get()));
    } else {
        queue_start();
    }
}

void Bucket::queue(int block) {
    if (block == 0 && first_graph_) {
        check_cuda(cudaGraphLaunch(first_graph_.get(), rig_.stream.get()));
    } else {
        launch_block(block * schedule_.steps_per_launch % 2);
    }
    check_cuda(cudaEventRecord(rig_.events[static_cast<std::size_t>(block)].get(), rig_.stream.get()));
}

bool Bucket::going(int block) {
    check_cuda(cudaEventSynchronize(rig_.events[static_cast<std::size_t>(block)].get()));
    // One for all blocks, as it only ever falls. Where a later block has let it fall, its text has come before.
    std::int32_t flag = 0;
    std::memcpy(&flag, rig_.flag_host.get(), sizeof flag);
    ended_ = flag == 0;
    return !ended_;
}

void Bucket::read(Result& result, std::size_t start, std::size_t count) {
    const int blocks = decode(*this, rig_.steps / schedule_.steps_per_launch, schedule_.lookahead);
    if (!ended_) check_cuda(cudaEventSynchronize(rig_.events[static_cast<std::size_t>(blocks - 1)].get()));
    const auto* text = rig_.text_host.get();
    const auto steps = static_cast<std::size_t>(rig_.steps);
    const auto& offsets = layouts_.state.offsets;
    std::memcpy(&result.tokens[start * steps], text + offsets.at("tokens"), count * steps * sizeof(std::int32_t));
    std::memcpy(&result.scores[start * steps], text + offsets.at("scores"), count * steps * sizeof(float));
}

StepTimes Bucket::measure() {
    prepare({rig_.steps, 0});
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
    queue(0);
    check_cuda(cudaStreamSynchronize(rig_.stream.get()));
    const auto began = Clock::now();
    check_cuda(cudaEventRecord(rig_.events[0].get(), rig_.stream.get()));
    going(0);
    const auto asked = Clock::now();
    queue_fresh_state();  // all the steps again, without the encoder
    launch_block(0);
    const auto queued = Clock::now();
    check_cuda(cudaStreamSynchronize(rig_.stream.get()));
    const Microseconds wait = asked - began, launch = queued - asked, run = Clock::now() - asked;
    const int launches = block_graphs_[0] ? 1 : rig_.steps;
    return {std::max((run - wait).count(), 0.0) / rig_.steps, launch.count() / launches, wait.count()};
}

void Bucket::launch_block(int parity) {
    if (block_graphs_[parity]) {
        check_cuda(cudaGraphLaunch(block_graphs_[parity].get(), rig_.stream.get()));
    } else {
        queue_block(parity);
    }
}

void Bucket::queue_fresh_state() {
    const auto& fresh = rig_.fresh.at(size_);
    check_cuda(cudaMemcpyAsync(rig_.states[0].get(), fresh.get(), layouts_.state.size_bytes, cudaMemcpyDeviceToDevice,
                               rig_.stream.get()));
}

void Bucket::queue_start() {
    rig_.queue_inputs(size_);
    queue_fresh_state();
    encoder_->execute(layouts_.inputs.tensors, encoder_wiring_);
}

// Steps, and the text as it is then: what has ended does not change any more, so the host may read while the next block
// runs. The flag comes last, for whoever sees it fall will look at the text.
void Bucket::queue_block(int parity) {
    for (int index = 0; index < schedule_.steps_per_launch; ++index) {
        const int now = (parity + index) % 2;
        steps_[now]->execute(step_inputs_, step_wirings_[now]);
    }
    const auto* state = rig_.states[(parity + schedule_.steps_per_launch) % 2].get();
    check_cuda(cudaMemcpyAsync(rig_.text_host.get(), state, layouts_.state.text_bytes, cudaMemcpyDeviceToHost,
                               rig_.stream.get()));
    check_cuda(cudaMemcpyAsync(rig_.flag_host.get(), rig_.going.get(), sizeof(std::int32_t), cudaMemcpyDeviceToHost,
                               rig_.stream.get()));
}

}  // namespace robustscanner
