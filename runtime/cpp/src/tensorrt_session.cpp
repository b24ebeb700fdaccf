// The host hands over pictures and gets words back; between, it never waits for a step. A token feeds the next step in
// device memory, two copies of the decoding state take turns, and launches are recorded once and replayed.
#include "tensorrt_session.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "bucket.hpp"
#include "decode_kernel.hpp"
#include "letters.hpp"
#include "probe.hpp"
#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

constexpr auto restart =
    "after such a fault nothing in this process can use the GPU: start the process again, and look into the kernel's "
    "log (dmesg) if it stays so";

// Building again would not help where the GPU is lost.
std::string without_cure(const std::string& text) {
    const auto cure = std::string("; ") + rebuild;
    const auto rest = text.size() - std::min(text.size(), cure.size());
    return text.compare(rest, text.npos, cure) == 0 ? text.substr(0, rest) : text;
}

std::vector<int> choose_buckets(const Plan& encoder, const Plan& decoder, const GpuOptions& options) {
    const auto of_encoder = encoder.extent("images"), of_decoder = decoder.extent("token");
    const int smallest = static_cast<int>(std::max(of_encoder.first, of_decoder.first)),
              largest = static_cast<int>(std::min(of_encoder.second, of_decoder.second));
    if (smallest > largest) throw EngineError(std::string("encoder and decoder share no batch size; ") + rebuild);
    const auto buckets = options.buckets.empty() ? batch_buckets(smallest, largest) : options.buckets;
    if (buckets.front() < smallest || buckets.back() > largest) {
        throw EngineError("buckets are (" + joined(buckets) + "), but the engine takes " + std::to_string(smallest) +
                          " to " + std::to_string(largest) + "; give such sizes");
    }
    return buckets;
}

void check_steps(const GpuOptions& options, int steps) {
    if (options.steps_per_launch && steps % *options.steps_per_launch) {
        throw EngineError("steps_per_launch is " + std::to_string(*options.steps_per_launch) + "; give a divisor of " +
                          std::to_string(steps) + ": [" + joined(divisors(steps)) + "]");
    }
}

// What lies on the GPU: plans, buffers, and the buckets that were needed so far, one for each size of a run.
class Worker {
   public:
    Worker(const std::string& folder, const EngineManifest& manifest, const SessionOptions& options)
        : rig_(options.gpu.device, options, folder, manifest.model, manifest.files.count(single_name) != 0),
          buckets_(choose_buckets(rig_.encoder, rig_.decoder, options.gpu)) {
        check_steps(options.gpu, rig_.steps);
        std::vector<Size> sizes;
        for (const int width : manifest.model.input.canvas_widths()) {
            for (const int pictures : buckets_) sizes.push_back({pictures, width});
        }
        rig_.reserve(sizes);
        open_kernel(folder, manifest, options.gpu);
        schedule_ = kernel_ ? Schedule{rig_.steps, 0} : choose(options.gpu);
    }

    int largest() const { return buckets_.back(); }
    bool can_constrain() const { return rig_.can_constrain(); }
    void allow(const Allowed& allowed) { rig_.allow(allowed); }
    const Schedule& schedule() const { return schedule_; }
    bool has_kernel() const { return kernel_ != nullptr; }
    const std::string& warning() const { return warning_; }

    // Reads at most the largest bucket's pictures.
    void read(const Canvases& canvases, std::size_t start, std::size_t count, Result& result) {
        const Size size{bucket_for(static_cast<int>(count), buckets_), canvases.width_px};
        auto& runner = prepared(size, canvases, start, count);
        rig_.fill(size, canvases, start, count);
        runner.read(result, start, count);
    }

    // What CTC saw in the only picture of the last run, whose canvas was so wide; empty where it has no say.
    std::vector<float> columns(int width_px) {
        const auto& memory = rig_.layouts.at({buckets_.front(), width_px}).memory;
        const auto found = memory.tensors.find(ctc_columns);
        if (found == memory.tensors.end()) return {};
        const auto row = found->second.size_bytes() / static_cast<std::size_t>(found->second.shape[0]);
        const auto host = host_memory(row);
        check_cuda(cudaMemcpyAsync(host.get(), memory.at(rig_.memory.get()).at(ctc_columns), row,
                                   cudaMemcpyDeviceToHost, rig_.stream.get()));
        check_cuda(cudaStreamSynchronize(rig_.stream.get()));
        std::vector<float> numbers(row / sizeof(float));
        std::memcpy(numbers.data(), host.get(), row);
        return numbers;
    }

   private:
    // The decode kernel, if the engine has it and it runs here; it is done without, unless it was asked for.
    void open_kernel(const std::string& folder, const EngineManifest& manifest, const GpuOptions& options) {
        const bool has_one = manifest.files.count(kernels_name) && manifest.files.count(weights_name);
        if (options.decoder == "steps" || (!has_one && options.decoder.empty())) return;
        try {
            if (!has_one) {
                throw EngineError("has no decode kernel; build it with --decoder kernel, or read with decoder 'steps'");
            }
            kernel_ = std::make_unique<DecodeKernel>(rig_, folder, options.device);
        } catch (const CudaError& error) {
            do_without(error, options);
        } catch (const EngineError& error) {
            do_without(error, options);
        }
    }

    template <typename Error>
    void do_without(const Error& error, const GpuOptions& options) {
        if (options.decoder == "kernel") throw error;
        warning_ = std::string("decodes step by step, which is slower: ") + error.what();
    }

    Runner& prepared(const Size& size, const Canvases& canvases, std::size_t start, std::size_t count) {
        auto& runner = prepared_[size];
        if (!runner) {
            std::unique_ptr<Runner> made;
            if (kernel_) {
                made = std::make_unique<KernelBucket>(rig_, *kernel_, size);
            } else {
                made = std::make_unique<Bucket>(rig_, size);
            }
            rig_.fill(size, canvases, start, count);
            made->prepare(schedule_);
            runner = std::move(made);
        }
        return *runner;
    }

    // Measures the smallest batch, where waiting weighs most, unless all is decided.
    Schedule choose(const GpuOptions& options) {
        if (options.steps_per_launch && options.lookahead) return {*options.steps_per_launch, *options.lookahead};
        const auto& input = rig_.spec.input;
        const Size size{buckets_.front(), input.width_px};
        auto bucket = std::make_unique<Bucket>(rig_, size);
        rig_.fill(size, {input.width_px, std::vector<std::uint8_t>(canvas_bytes(input)), {input.width_px}}, 0, 1);
        const auto schedule =
            choose_schedule(bucket->measure(), rig_.steps, options.steps_per_launch, options.lookahead);
        bucket->prepare(schedule);
        prepared_[size] = std::move(bucket);
        return schedule;
    }

    Rig rig_;
    std::vector<int> buckets_;
    Schedule schedule_;
    std::string warning_;
    std::unique_ptr<DecodeKernel> kernel_;
    std::map<Size, std::unique_ptr<Runner>> prepared_;
};

class TensorRTSession : public Session {
   public:
    TensorRTSession(std::string folder, const EngineManifest& manifest, const SessionOptions& options)
        : path_(std::move(folder)), spec_(manifest.model), device_(options.gpu.device) {
        check_here(manifest);
        explained([&] { worker_ = std::make_unique<Worker>(path_, manifest, options); });
    }

    ~TensorRTSession() override {
        int before = 0;  // no guard: its errors would be exceptions
        cudaGetDevice(&before);
        cudaSetDevice(device_);
        worker_.reset();
        cudaSetDevice(before);
    }

    const ModelSpec& spec() const override { return spec_; }
    std::optional<int> max_batch() const override { return worker_->largest(); }
    bool can_constrain() const override { return worker_->can_constrain(); }

    std::string description() const override {
        const auto& schedule = worker_->schedule();
        const auto title = path_ + ": " + spec_.name + ", TensorRT " + tensorrt_version();
        if (worker_->has_kernel()) return title + ", decode kernel";
        return title + ", steps_per_launch=" + std::to_string(schedule.steps_per_launch) +
               ", lookahead=" + std::to_string(schedule.lookahead);
    }

    std::string warning() const override { return worker_->warning().empty() ? "" : path_ + ": " + worker_->warning(); }

    Result run(const Canvases& canvases, const Allowed& allowed) override {
        const std::lock_guard<std::mutex> lock(mutex_);
        return run_alone(canvases, allowed);
    }

    Trace trace(const Canvases& canvas, const Allowed& allowed) override {
        if (!can_constrain()) {
            throw ConstraintError(path_ + ": older than constraints, which letters need; " + rebuild);
        }
        const std::lock_guard<std::mutex> lock(mutex_);
        Trace found;
        found.chances = probe([&](const Allowed& mask) { return run_alone(canvas, mask); }, allowed, spec_);
        explained([&] { found.columns = worker_->columns(canvas.width_px); });
        return found;
    }

   private:
    Result run_alone(const Canvases& canvases, const Allowed& allowed) {
        const auto steps = static_cast<std::size_t>(spec_.network.max_length);
        const auto largest = static_cast<std::size_t>(worker_->largest());
        Result result{std::vector<std::int32_t>(canvases.count() * steps),
                      std::vector<float>(canvases.count() * steps)};
        explained([&] {
            check_canvases(canvases);
            worker_->allow(allowed);
            for (std::size_t start = 0; start < canvases.count(); start += largest) {
                worker_->read(canvases, start, std::min(largest, canvases.count() - start), result);
            }
            check_result(spec_, canvases.count(), result);
        });
        return result;
    }

    void check_here(const EngineManifest& manifest) const {
        try {
            auto host = gpu_facts(device_);
            host.version = tensorrt_version();
            check_host(manifest, host);
        } catch (const EngineError& error) {
            throw EngineError(path_ + ": " + error.what());
        } catch (const CudaError& error) {
            throw told(error);
        }
    }

    void check_canvases(const Canvases& canvases) const {
        const auto widths = spec_.input.canvas_widths();
        if (std::find(widths.begin(), widths.end(), canvases.width_px) == widths.end()) {
            throw EngineError("given canvases of " + std::to_string(canvases.width_px) + " pixels, not of " +
                              joined(widths) + "; see Session::run");
        }
    }

    // Whatever goes wrong inside, on this GPU, is told in one line.
    template <typename Action>
    void explained(Action action) const {
        try {
            const OnDevice current(device_);
            action();
        } catch (const EngineError& error) {
            const std::string text = path_ + ": " + error.what();
            if (is_lost(device_)) throw EngineError(without_cure(text) + "; " + restart);
            throw EngineError(text);
        } catch (const CudaError& error) {
            throw told(error);
        }
    }

    EngineError told(const CudaError& error) const {
        const auto why = first_line(error.what());
        if (error.is_out_of_memory()) {
            return EngineError(path_ + ": too little GPU memory (" + why +
                               "); close what else uses the GPU, or build it with a smaller --max-batch");
        }
        return EngineError(
            path_ + ": the GPU failed (" + why + "); " +
            (is_lost(device_) ? restart : "open it again, and look into the kernel's log (dmesg) if it stays so"));
    }

    std::string path_;
    ModelSpec spec_;
    int device_;
    std::mutex mutex_;
    std::unique_ptr<Worker> worker_;
};

}  // namespace

std::unique_ptr<Session> open_tensorrt(const std::string& folder, const EngineManifest& manifest,
                                       const SessionOptions& options) {
    if (manifest.backend != "tensorrt") {
        throw EngineError(folder +
                          ": made for TensorRT-RTX, which this library cannot run; build it again with "
                          "build_engine.py --backend tensorrt");
    }
    const auto version_compatible = manifest.device.find("version_compatible");
    if (version_compatible != manifest.device.end() && version_compatible->second == "true" && !options.gpu.host_code) {
        throw EngineError(folder +
                          ": a version-compatible engine, which carries code that would run here; if you trust it, "
                          "give --allow-host-code, or set GpuOptions::host_code");
    }
    for (const char* name : {"encoder.plan", "decoder.plan"}) {
        if (!manifest.files.count(name)) {
            throw EngineError(folder + ": engine.json lists no " + name + "; " + rebuild);
        }
    }
    return std::make_unique<TensorRTSession>(folder, manifest, options);
}

}  // namespace robustscanner
