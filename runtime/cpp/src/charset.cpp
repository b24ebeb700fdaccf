#include "robustscanner/charset.hpp"

#include <algorithm>

namespace robustscanner {

Charset::Charset(const CharsetSpec& spec) : end_id_(spec.end_id), texts_(spec.tokens) {
    texts_.at(static_cast<std::size_t>(spec.start_id)).clear();
    texts_.at(static_cast<std::size_t>(spec.pad_id)).clear();
}

std::vector<std::int32_t> Charset::ids(const std::int32_t* tokens, int length) const {
    return {tokens, std::find(tokens, tokens + length, end_id_)};
}

std::string Charset::text(const std::vector<std::int32_t>& ids) const {
    std::string text;
    for (const auto id : ids) text += texts_.at(static_cast<std::size_t>(id));
    return text;
}

Reading Charset::decode(const std::int32_t* tokens, const float* scores, int length) const {
    const auto found = ids(tokens, length);
    Reading reading{text(found), 1, {}};
    const auto counted = std::min(found.size() + 1, static_cast<std::size_t>(length));  // the end token included
    for (std::size_t step = 0; step < counted; ++step) reading.score *= static_cast<double>(scores[step]);
    return reading;
}

}  // namespace robustscanner
