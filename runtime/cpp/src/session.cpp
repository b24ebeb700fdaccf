#include "robustscanner/session.hpp"

#include <algorithm>
#include <cmath>

#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

constexpr const char* again = "make it again from its checkpoint";

std::string in_brackets(const std::vector<int>& numbers) {
    return "(" + joined(numbers) + (numbers.size() == 1 ? ",)" : ")");
}

void check_gpu(const GpuOptions& options) {
    const auto& buckets = options.buckets;
    if (options.device < 0) {
        throw EngineError("device is " + std::to_string(options.device) + "; give the number of a GPU, from 0");
    }
    const bool ascending = std::adjacent_find(buckets.begin(), buckets.end(), std::greater_equal<>()) == buckets.end();
    if (!buckets.empty() && (buckets.front() < 1 || !ascending)) {
        throw EngineError("buckets are " + in_brackets(buckets) + "; give ascending batch sizes, from 1");
    }
    if (options.steps_per_launch.value_or(1) < 1) {
        throw EngineError("steps_per_launch is " + std::to_string(*options.steps_per_launch) +
                          "; give a number from 1");
    }
    if (!options.decoder.empty() && options.decoder != "kernel" && options.decoder != "steps") {
        throw EngineError("decoder is '" + options.decoder + "'; give 'kernel' or 'steps'");
    }
    const int lookahead = options.lookahead.value_or(0);
    if (lookahead != 0 && lookahead != 1) {
        throw EngineError("lookahead is " + std::to_string(lookahead) + "; give 0 or 1");
    }
}

}  // namespace

void SessionOptions::check() const {
    check_gpu(gpu);
    if (threads < 1 || threads > max_threads) {
        throw EngineError("threads is " + std::to_string(threads) + "; give a number from 1 to " +
                          std::to_string(max_threads));
    }
}

Trace Session::trace(const Canvases&, const Allowed&) { throw ConstraintError("this engine does not tell letters"); }

void check_result(const ModelSpec& spec, std::size_t count, const Result& result) {
    const auto steps = static_cast<std::size_t>(spec.network.max_length);
    if (result.tokens.size() != count * steps || result.scores.size() != count * steps) {
        throw EngineError("gave " + std::to_string(result.tokens.size()) + " tokens, not " + std::to_string(count) +
                          " x " + std::to_string(steps) + "; " + again);
    }
    if (!std::all_of(result.scores.begin(), result.scores.end(), [](float score) { return std::isfinite(score); })) {
        throw EngineError("scores are not finite; its weights or scales are broken, build it again");
    }
    const auto ids = static_cast<std::int32_t>(spec.charset.tokens.size());
    const auto known = [ids](std::int32_t token) { return token >= 0 && token < ids; };
    if (!std::all_of(result.tokens.begin(), result.tokens.end(), known)) {
        throw EngineError(std::string("emits ids outside its charset; ") + again);
    }
}

}  // namespace robustscanner
