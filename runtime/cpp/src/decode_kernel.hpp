// The decode kernel: one launch after the encoder reads a batch to its end; see docs/gpu-decoding.md.
#pragma once

#include <map>
#include <string>

#include "bucket.hpp"
#include "call.hpp"
#include "driver.hpp"
#include "kernels.hpp"

namespace robustscanner {

inline constexpr auto kernels_name = "decoder.fatbin", weights_name = "decoder.weights";  // of files in an engine

struct UnloadModule {
    void operator()(CUmodule module) const noexcept;
};
using Module = std::unique_ptr<std::remove_pointer_t<CUmodule>, UnloadModule>;

// The loaded kernel, its weights and its results' memory, for all sizes of a session.
class DecodeKernel {
   public:
    // Throws EngineError: it does not fit the model or this GPU; CudaError.
    DecodeKernel(Rig& rig, const std::string& folder, int device);

    // What it is told to read the encoder's results, and to heed what is allowed.
    cuda::DecodeCall call(const Size& size, bool constrained) const;

    // Queues it.
    void queue(const Size& size, cuda::DecodeCall call) const;

    const std::uint8_t* results() const { return results_host_.get(); }  // tokens (N, T), then scores

   private:
    Launch plan(const DecodeSizes& sizes, const Room& room) const;

    Rig& rig_;
    bool half_ = false;  // values and weights
    int channels_ = 0;
    Module module_;
    CUfunction function_ = nullptr;
    WeightLayout weight_layout_;
    DeviceMemory weights_, scratch_;
    int scratch_slots_ = 0;
    HostMemory results_host_;
    std::uint8_t* results_ = nullptr;
    std::map<Size, Launch> launches_;
};

// The encoder and the kernel, wired once and recorded as one launch.
class KernelBucket : public Runner {
   public:
    KernelBucket(Rig& rig, const DecodeKernel& kernel, const Size& size);
    ~KernelBucket() override { cudaStreamSynchronize(rig_.stream.get()); }

    void prepare(const Schedule& schedule) override;
    void read(Result& result, std::size_t start, std::size_t count) override;

   private:
    void queue();

    Rig& rig_;
    const DecodeKernel& kernel_;
    Size size_;
    const Layouts& layouts_;
    std::shared_ptr<Context> encoder_;
    Wiring wiring_;
    cuda::DecodeCall calls_[2];  // by whether there is a constraint
    Graph graphs_[2];
};

}  // namespace robustscanner
