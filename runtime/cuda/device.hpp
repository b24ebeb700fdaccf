// What the kernels need of the machine below them. The same names exist twice: for nvcc, and for a C++ compiler, where
// the CPU plays the GPU.
#pragma once

#ifdef __CUDACC__
#include "device_cuda.hpp"
#else
#include "device_host.hpp"
#endif

namespace robustscanner {
namespace cuda {

// Fixed sizes of a launch: a group of blocks shares one set of weights, every thread keeps its part in registers.
template <int hidden, int blocks, int lanes, int units, int warp>
struct Config {
    static constexpr int kHidden = hidden;                   // D
    static constexpr int kBlocks = blocks;                   // of a group
    static constexpr int kLanes = lanes;                     // threads that share a unit's sums
    static constexpr int kUnits = units;                     // of a thread
    static constexpr int kWarp = warp;                       // threads that move together
    static constexpr int kOwn = hidden / blocks;             // units of a block
    static constexpr int kThreads = kOwn / units * lanes;    // of a block
    static_assert(hidden % blocks == 0 && kOwn % units == 0, "every block and thread has as many units");
    static_assert(hidden % (4 * lanes) == 0, "every lane reads inputs in fours");
    static_assert(kThreads % warp == 0 && warp % lanes == 0, "whole warps, whole units");
};

// 256 threads, 96 weights in each: 8 blocks of one SM each hold both layers of 128 units.
using GpuConfig = Config<128, 8, 16, 1, 32>;

RS_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
RS_DEVICE float hyperbolic_tangent(float x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

template <class C>
RS_DEVICE float warp_sum(float value) {
    for (int lanes = C::kWarp / 2; lanes > 0; lanes /= 2) value += shuffle_xor(value, lanes);
    return value;
}

template <class C>
RS_DEVICE float warp_max(float value) {
    for (int lanes = C::kWarp / 2; lanes > 0; lanes /= 2) {
        const float other = shuffle_xor(value, lanes);
        value = other > value ? other : value;
    }
    return value;
}

// Where share `rank` of `count` things begins.
template <class C>
RS_DEVICE int share_begin(int count, int rank) {
    return count * rank / C::kBlocks;
}

// The most that any rank has of `count` things.
template <class C>
RS_DEVICE int share_most(int count) {
    return (count + C::kBlocks - 1) / C::kBlocks;
}

// sums[output] = Σ term(output, i), the terms of each output split over the threads of the block; `finish(output, sum)`
// runs in one thread for each. `partial` holds max(threads, outputs) numbers; whoever uses it next has to wait first.
template <class C, class Term, class Finish>
RS_DEVICE void sum_terms(int outputs, int terms, float* partial, Term term, Finish finish) {
    if (outputs == 0) return;  // alike for the whole block
    int parts = C::kThreads / outputs;
    parts = parts < 1 ? 1 : parts > terms ? terms : parts;
    for (int index = thread_index(); index < parts * outputs; index += C::kThreads) {
        const int part = index / outputs, output = index - part * outputs;
        float sum = 0;
        for (int i = terms * part / parts, end = terms * (part + 1) / parts; i < end; ++i) sum += term(output, i);
        partial[index] = sum;
    }
    sync_block();
    for (int output = thread_index(); output < outputs; output += C::kThreads) {
        float sum = 0;
        for (int part = 0; part < parts; ++part) sum += partial[part * outputs + output];
        finish(output, sum);
    }
}

// Hands out shared memory, piece by piece; from address 0 it only adds up sizes.
class Carver {
   public:
    RS_DEVICE explicit Carver(char* base) : base_(reinterpret_cast<unsigned long long>(base)) {}

    template <class V>
    RS_DEVICE V* take(int count) {
        V* const place = reinterpret_cast<V*>(base_ + used_);
        used_ += (static_cast<unsigned long long>(count) * sizeof(V) + 15) / 16 * 16;
        return place;
    }

    RS_DEVICE int used_bytes() const { return static_cast<int>(used_); }

   private:
    unsigned long long base_, used_ = 0;
};

}  // namespace cuda
}  // namespace robustscanner
