#include "probe.hpp"

#include <algorithm>

#include "automaton.hpp"

namespace robustscanner {
namespace {

constexpr int others_told = 2;

}  // namespace

std::vector<double> probe(const std::function<Result(const Allowed&)>& run, const Allowed& forced,
                          const ModelSpec& spec) {
    const auto steps = static_cast<std::size_t>(spec.network.max_length);
    const auto classes = static_cast<std::size_t>(spec.charset.class_count);
    const auto end = static_cast<std::size_t>(spec.charset.end_id);
    const auto read = run(forced);
    std::vector<double> chances;
    for (std::size_t step = 0; step < steps && forced[step * classes + end] != 0; ++step) {
        const auto row = step * classes;
        chances.resize(row + classes);
        const auto own = static_cast<std::size_t>(read.tokens[step]);
        chances[row + own] = static_cast<double>(read.scores[step]);
        auto mask = forced;
        std::fill(mask.begin() + static_cast<std::ptrdiff_t>(row), mask.end(), forbidden);
        std::fill_n(mask.begin() + static_cast<std::ptrdiff_t>(row), classes, 0.0F);
        mask[row + own] = forbidden;
        for (auto later = step + 1; later < steps; ++later) mask[later * classes + end] = 0;  // nothing more is wanted
        for (int count = 0; count < others_told; ++count) {
            const auto other = run(mask);
            const auto at = row + static_cast<std::size_t>(other.tokens[step]);
            chances[at] = static_cast<double>(other.scores[step]);
            mask[at] = forbidden;
        }
    }
    return chances;
}

}  // namespace robustscanner
