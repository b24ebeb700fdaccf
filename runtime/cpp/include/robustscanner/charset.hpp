// Token ids to characters.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "robustscanner/spec.hpp"

namespace robustscanner {

// What there is to say besides where the best word of a list was read.
struct Beside {
    double others = 0;  // no other word of the list has a higher score than this
    std::string free_text;
    double free_score = 0;  // of the reading without the list
};

// What a picture says.
struct Reading {
    std::string text;  // UTF-8
    // 0…1: product of the token probabilities up to and including the end token; the recogniser's, to the power of
    // 1 / `score_temperature` of the model's spec: how likely it is right, as far as the model was fitted to know.
    double score = 0;
    std::optional<Beside> beside = std::nullopt;
};

// Decodes what the graph emits.
class ROBUSTSCANNER_EXPORT Charset {
   public:
    explicit Charset(const CharsetSpec& spec);

    // One word of the graph's output: `length` tokens, ids of the charset, and their probabilities.
    Reading decode(const std::int32_t* tokens, const float* scores, int length) const;

    // What ids before the end token say.
    std::string text(const std::vector<std::int32_t>& ids) const;

    // The ids before the end of one word.
    std::vector<std::int32_t> ids(const std::int32_t* tokens, int length) const;

   private:
    std::int32_t end_id_;
    std::vector<std::string> texts_;  // what an id adds to a text
};

}  // namespace robustscanner
