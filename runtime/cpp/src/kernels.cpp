#include "kernels.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "call.hpp"
#include "robustscanner/errors.hpp"

namespace robustscanner {
namespace {

constexpr int units_of_block = kernel_hidden_size / blocks_of_group;
constexpr int most_exchanges = 1 << 16;  // of a launch without clusters: it numbers them in 16 bits
constexpr std::size_t weight_alignment_bytes = 256;

int shares(int things, int among) { return (things + among - 1) / among; }

// Numbers that the blocks of a group give each other.
int slots(const DecodeSizes& sizes, int tile) {
    const int prefixes = sizes.columns ? sizes.classes : 0;
    return tile * (2 * kernel_hidden_size + sizes.places + blocks_of_group * sizes.classes + prefixes);
}

// Lengths of a block's own arrays, in the order of `DecodeShared` in decode.hpp.
std::vector<int> arrays(const DecodeSizes& sizes, int tile) {
    const int width = shares(sizes.channels, blocks_of_group), prefixes = sizes.columns ? sizes.classes : 0;
    const int outputs = std::max({2 * width, sizes.classes, shares(sizes.places, blocks_of_group)});
    return {4 * tile * kernel_hidden_size,
            2 * tile * units_of_block,
            tile * sizes.places,
            std::max(tile * outputs, kernel_threads),
            2 * tile * width,
            tile * width,
            tile * sizes.classes,
            tile * prefixes,
            4 * tile * sizes.columns,
            tile * sizes.steps,
            tile * sizes.steps,
            tile,
            tile,
            tile,
            tile + 1};
}

int shared_bytes(const DecodeSizes& sizes, int tile, const Room& room) {
    int sum = room.clusters ? shares(static_cast<int>(slot_bytes) * slots(sizes, tile), 16) * 16 : 0;
    for (const int length : arrays(sizes, tile)) sum += shares(4 * length, 16) * 16;
    return sum;
}

}  // namespace

Launch plan_launch(const DecodeSizes& sizes, const Room& room) {
    const int groups = std::min(room.groups, sizes.words);
    if (groups < 1) {
        throw EngineError("the kernels need " + std::to_string(blocks_of_group) +
                          " multiprocessors at once, and this GPU has fewer");
    }
    int tile = std::min(shares(sizes.words, groups), cuda::MAX_TILE);
    while (tile > 1 && shared_bytes(sizes, tile, room) > room.shared_bytes) --tile;
    const int shared = shared_bytes(sizes, tile, room);
    if (shared > room.shared_bytes) {
        throw EngineError("a block needs " + std::to_string(shared) + " bytes of shared memory, and this GPU has " +
                          std::to_string(room.shared_bytes));
    }
    if (shares(sizes.words, groups * tile) * 4 * sizes.steps >= most_exchanges) {
        throw EngineError("a batch of " + std::to_string(sizes.words) +
                          " is more than the kernels can number; use smaller batches");
    }
    return {groups, tile, shared, room.clusters ? 0 : groups * slots(sizes, tile)};
}

WeightLayout weight_layout(const ModelSpec& spec, int channels, bool half) {
    const std::size_t hidden = kernel_hidden_size, item = half ? 2 : 4;
    const auto classes = static_cast<std::size_t>(spec.charset.class_count);
    const std::vector<std::pair<const char*, std::size_t>> arrays = {
        {"table", spec.charset.tokens.size() * hidden * 4 * 4},
        {"lower", hidden * 4 * hidden * item},
        {"upper", hidden * 4 * 2 * hidden * item},
        {"bias", hidden * 4 * 4},
        {"classifier", static_cast<std::size_t>(channels) * classes * item},
        {"classifier_bias", classes * 4}};
    WeightLayout layout;
    for (const auto& [name, size_bytes] : arrays) {
        layout.offsets[name] = layout.size_bytes;
        layout.size_bytes +=
            (size_bytes + weight_alignment_bytes - 1) / weight_alignment_bytes * weight_alignment_bytes;
    }
    return layout;
}

}  // namespace robustscanner
