// Token ids to characters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "robustscanner/spec.hpp"

namespace robustscanner {

// What a picture says.
struct Reading {
    std::string text;  // UTF-8
    // 0…1: product of the token probabilities up to and including the end token; the recogniser's, to the power of
    // 1 / `score_temperature` of the model's spec: how likely it is right, as far as the model was fitted to know.
    double score = 0;
};

// Decodes what the graph emits.
class ROBUSTSCANNER_EXPORT Charset {
   public:
    explicit Charset(const CharsetSpec& spec);

    // One word of the graph's output: `length` tokens, ids of the charset, and their probabilities.
    Reading decode(const std::int32_t* tokens, const float* scores, int length) const;

    // The ids before the end of one word.
    std::vector<std::int32_t> ids(const std::int32_t* tokens, int length) const;

   private:
    std::int32_t end_id_;
    std::vector<std::string> texts_;  // what an id adds to a text
};

}  // namespace robustscanner
