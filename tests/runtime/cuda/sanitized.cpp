// The kernels under sanitizers: the system's threads play the GPU, on random numbers. Every way to launch one batch has
// to give the same to the last bit where it adds in the same order, and nearly the same where it does not.
#include "../../../runtime/cuda/emulation.cpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

namespace {

using Floats = std::vector<float>;
using Halves = std::vector<unsigned short>;

std::mt19937 generator(7);

Floats random_floats(std::size_t count, float loud) {
    std::normal_distribution<float> normal(0, loud);
    Floats found(count);
    for (auto& number : found) number = normal(generator);
    return found;
}

Halves halves_of(const Floats& numbers) {
    Halves found(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        found[i] = std::bit_cast<unsigned short>(static_cast<_Float16>(numbers[i]));
    }
    return found;
}

// Numbers of either kind, under the same name.
struct Both {
    explicit Both(Floats numbers) : floats(std::move(numbers)), halves(halves_of(floats)) {}
    const void* at(bool half) const {
        return half ? static_cast<const void*>(halves.data()) : static_cast<const void*>(floats.data());
    }
    Floats floats;
    Halves halves;
};

void check(bool holds, const std::string& what) {
    std::printf("%s %s\n", holds ? "ok  " : "FAIL", what.c_str());
    std::fflush(stdout);
    if (!holds) std::exit(1);
}

constexpr int N = 3, P = 10, C = 6, K = 7, T = 5, U = 9, V = 8, S = 6;
constexpr int TINY_CONFIG = 1, SHUFFLED_CONFIG = 2;

struct Scratch {
    std::vector<Slot> memory = std::vector<Slot>(1 << 15);
};

template <int D>
struct Network {
    Both lower{random_floats(D * 4 * D, 0.2f)}, upper{random_floats(D * 8 * D, 0.2f)};
    Floats bias = random_floats(D * 4, 0.1f), table = random_floats(V * D * 4, 0.5f);
    Floats keys = random_floats(N * D * P, 0.3f), mask = Floats(N * P), classifier_bias = random_floats(K, 1);
    Both values{random_floats(N * P * 2 * C, 1)}, position{random_floats(N * T * 2 * C, 1)};
    Both classifier{random_floats(C * K, 1)};
    Floats posteriors = Floats(N * U * (K + 1), 1.0f / (K + 1)), allowed = Floats(T * K);
    Both shares{random_floats(N * S * D * 4, 1)};

    std::vector<int> decode(int config, bool half, bool clusters, int groups, int tile, bool joint, Scratch& scratch) {
        std::vector<int> tokens(N * T + N);
        Floats scores(N * T), logits(N * T * K);
        DecodeCall call{};
        call.words = N, call.groups = groups, call.tile = tile, call.places = P, call.channels = C, call.classes = K;
        call.steps = T, call.columns = joint ? U : 0, call.start_id = 7, call.end_id = 5, call.pad_id = 7;
        call.allowed_rows = joint ? T : 0, call.ctc_weight = 0.4f;
        call.key_unit = P, call.key_place = 1, call.value_place = 2 * C, call.value_channel = 1;
        call.keys = keys.data(), call.values = values.at(half), call.mask = mask.data();
        call.position = position.at(half), call.allowed = allowed.data();
        call.labels = posteriors.data(), call.blanks = posteriors.data() + K;
        call.label_step = call.blank_step = K + 1, call.label_word = call.blank_word = U * (K + 1);
        call.table = table.data(), call.lower = lower.at(half), call.upper = upper.at(half), call.bias = bias.data();
        call.classifier = classifier.at(half), call.classifier_bias = classifier_bias.data();
        call.tokens = tokens.data(), call.scores = scores.data(), call.lengths = tokens.data() + N * T;
        call.logits = logits.data();
        call.scratch = scratch.memory.data(), call.scratch_slots = static_cast<int>(scratch.memory.size()) - 2;
        check(robustscanner_decode(&call, config, half, clusters) > 0, "a launch of the decode kernel ends");
        return tokens;
    }

    Floats rows(int config, bool half, bool clusters, int groups, int tile, Scratch& scratch) {
        Floats floats(N * S * D);
        Halves halves(N * S * D);
        RowsCall call{};
        call.sequences = N, call.groups = groups, call.tile = tile, call.columns = S;
        call.shares = shares.at(half), call.lower = lower.at(half), call.upper = upper.at(half);
        call.bias = bias.data();
        call.states = half ? static_cast<void*>(halves.data()) : static_cast<void*>(floats.data());
        call.scratch = scratch.memory.data(), call.scratch_slots = static_cast<int>(scratch.memory.size()) - 2;
        check(robustscanner_rows(&call, config, half, clusters) > 0, "a launch of the row kernel ends");
        if (half) {
            for (std::size_t i = 0; i < halves.size(); ++i) floats[i] = from_bits(halves[i]);
        }
        return floats;
    }
};

float largest_difference(const Floats& some, const Floats& others) {
    float most = 0;
    for (std::size_t i = 0; i < some.size(); ++i) most = std::max(most, std::fabs(some[i] - others[i]));
    return most;
}

template <int D>
void run_all_ways(int config, const std::string& name) {
    Network<D> network;
    Scratch scratch;
    for (const bool half : {false, true}) {
        const auto states = network.rows(config, half, false, 1, 1, scratch);
        for (const bool clusters : {false, true}) {
            const auto found = network.rows(config, half, clusters, 2, 2, scratch);
            check(largest_difference(found, states) == 0, name + ": rows are alike");
            for (const bool joint : {false, true}) {
                const auto alone = network.decode(config, half, clusters, 1, 1, joint, scratch);
                const auto together = network.decode(config, half, clusters, 2, 2, joint, scratch);
                check(alone == together, name + ": words are alike");
            }
        }
    }
}

}  // namespace

int main() {
    run_all_ways<16>(TINY_CONFIG, "no shuffles");
    run_all_ways<128>(SHUFFLED_CONFIG, "shuffles");
}
