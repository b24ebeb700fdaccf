// How letters are found; the rules are those of Python's letters.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "robustscanner/letters.hpp"
#include "robustscanner/session.hpp"
#include "robustscanner/spec.hpp"

namespace robustscanner {

// What CTC sees in each column: the name of that tensor in the whole graph and among an encoder's results.
inline constexpr const char* ctc_columns = "ctc_following";

// The ids of a text. Throws ConstraintError: the model cannot write it.
std::vector<std::int32_t> spelled(const std::string& text, const ModelSpec& spec);

// What allows nothing but a text and its end.
Allowed forced(const std::vector<std::int32_t>& ids, const ModelSpec& spec);

// The letters of one text, at least one, from a run over its picture in which it was forced. `picture_px`: width of the
// picture; `valid_px`: the width that it has on the canvas.
std::vector<Letter> describe(const std::vector<std::int32_t>& ids, const Trace& trace, const ModelSpec& spec,
                             int picture_px, int valid_px);

}  // namespace robustscanner
