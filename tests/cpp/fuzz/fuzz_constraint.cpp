// Any bytes as a pattern: an automaton that takes only what it would write itself, or a ConstraintError.
#include "automaton.hpp"
#include "robustscanner/errors.hpp"

namespace {

robustscanner::ModelSpec ten_digits() {
    robustscanner::ModelSpec spec;
    spec.charset = {{"<s>", "0", "1", "2", "a", "B", "-", "\u00e9", "<pad>"}, 0, 0, 8, {}, 8};
    spec.network.max_length = 6;
    return spec;
}

// Follows the first choice of every step.
void check(const robustscanner::Automaton& automaton, const robustscanner::ModelSpec& spec) {
    robustscanner::Ids ids;
    while (true) {
        const auto mask = automaton.mask(ids);
        const auto classes = static_cast<std::size_t>(spec.charset.class_count);
        std::size_t choice = 0;
        while (choice < classes && mask[ids.size() * classes + classes - 1 - choice] != 0) ++choice;
        if (choice == classes) __builtin_trap();
        const auto id = static_cast<std::int32_t>(classes - 1 - choice);
        if (id == spec.charset.end_id) break;
        ids.push_back(id);
    }
    if (!automaton.accepts(ids)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    static const auto spec = ten_digits();
    robustscanner::Constraint constraint;
    constraint.pattern = {data, data + size_bytes};
    try {
        check(robustscanner::Automaton(constraint, spec), spec);
    } catch (const robustscanner::ConstraintError&) {
    }
    return 0;
}
