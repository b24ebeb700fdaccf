// Where each letter of a text stands in its picture, and what else it might be.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace robustscanner {

// One letter of a text.
struct Letter {
    struct Guess {
        std::string text;
        double probability = 0;
    };
    // Pixels of the picture, from its left. A letter ends half-way to the next one's centre.
    struct Place {
        double left = 0, centre = 0, right = 0;
    };

    std::string text;
    // 0…1, after the letters before it, to the power of 1 / `score_temperature` as `Reading::score` is: that is the
    // product of all letters' and the end's.
    double probability = 0;
    std::vector<Guess> others;   // the two next most likely; of what is left, what the model gives them
    std::optional<Place> place;  // empty: the model has no CTC, or sees too few columns for the letters
};

}  // namespace robustscanner
