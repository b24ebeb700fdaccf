// What a text may be.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "robustscanner/export.h"

namespace robustscanner {

// What may be read; all that is given holds together. UTF-8.
struct ROBUSTSCANNER_EXPORT Constraint {
    std::optional<std::string>
        characters;  // that may stand in a text, as inside a regular expression's brackets: "0-9A-F"
    // A regular expression for the whole text: classes, groups, alternatives and repeats, nothing that looks back or
    // ahead.
    std::optional<std::string> pattern;
    int fewest = 0;           // characters of a text
    std::optional<int> most;  // empty: as many as the model reads
    // Instead of all that: the best of up to 100,000 words, as they are written.
    std::vector<std::string> words;

    bool empty() const { return !characters && !pattern && fewest == 0 && !most && words.empty(); }
};

// What each step of all words may say, (T, classes): 0, or a large negative number. Empty: everything.
using Allowed = std::vector<float>;

}  // namespace robustscanner
