#include "wording.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace robustscanner {
namespace {

constexpr std::size_t longest_line = 500;
constexpr std::size_t most_characters = 200;  // of a value in a message

}  // namespace

std::string shown(const Json& value) {
    const auto all = characters(value.dump(-1, ' ', false, Json::error_handler_t::replace));
    if (all.size() <= most_characters) return joined(all, "");
    return joined({all.begin(), all.begin() + most_characters}, "") + "…";
}

std::string joined(const std::vector<std::string>& texts, const std::string& between) {
    std::string result;
    for (std::size_t index = 0; index < texts.size(); ++index) result += (index ? between : "") + texts[index];
    return result;
}

std::string lowered(std::string text) {
    for (auto& c : text) c = 'A' <= c && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return text;
}

std::string first_line(const std::string& text) {
    const auto start = text.find_first_not_of(" \t\r\n");
    if (start == std::string::npos) return "it does not say why";
    const auto end = text.find_first_of("\r\n", start);
    return text.substr(start, std::min(end - start, longest_line));
}

std::size_t character_bytes(const std::string& text, std::size_t at) {
    const auto byte = [&](std::size_t index) {
        return at + index < text.size() ? static_cast<unsigned char>(text[at + index]) : 0u;
    };
    const unsigned first = byte(0), second = byte(1);
    if (first < 0x80) return 1;
    const std::size_t count = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4) return 0;
    for (std::size_t index = 1; index < count; ++index) {
        if ((byte(index) & 0xc0u) != 0x80) return 0;
    }
    // Overlong forms, surrogates, and what is beyond Unicode.
    const bool bad = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
                     (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
    return bad ? 0 : count;
}

std::vector<std::string> characters(const std::string& text) {
    std::vector<std::string> result;
    for (std::size_t at = 0; at < text.size(); at += result.back().size()) {
        result.push_back(text.substr(at, std::max<std::size_t>(character_bytes(text, at), 1)));
    }
    return result;
}

}  // namespace robustscanner
