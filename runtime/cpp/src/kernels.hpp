// How the decode kernel is launched, and what its file of weights holds; the rules are those of Python's kernels.py.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "robustscanner/spec.hpp"

namespace robustscanner {

inline constexpr int kernel_hidden_size = 128;  // that it is compiled for
inline constexpr int blocks_of_group = 8, kernel_threads = 256;
inline constexpr std::size_t scratch_header_bytes = 16, slot_bytes = 8;

// Of a batch; the names of runtime/cuda/call.hpp.
struct DecodeSizes {
    int words = 0, places = 0, channels = 0, classes = 0, steps = 0, columns = 0;
};

// What a GPU has for a launch.
struct Room {
    int groups = 0;         // that run at once: multiprocessors / 8, or active clusters
    int shared_bytes = 0;   // of a block, at most
    bool clusters = false;  // from sm_90 on
};

// How the kernel is launched.
struct Launch {
    int groups = 0, tile = 0;
    int shared_bytes = 0;   // of a block
    int scratch_slots = 0;  // in global memory; 0 with clusters, which have theirs in shared memory
};

// Groups and tiles for a batch. Tiles are as small as the groups allow: the words of one wait for each other.
// Throws EngineError: it does not fit this GPU.
Launch plan_launch(const DecodeSizes& sizes, const Room& room);

// Where the arrays lie in a file of weights.
struct WeightLayout {
    std::map<std::string, std::size_t> offsets;
    std::size_t size_bytes = 0;
};
WeightLayout weight_layout(const ModelSpec& spec, int channels, bool half);

}  // namespace robustscanner
