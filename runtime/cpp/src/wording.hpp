// How messages are worded: as in the Python library, so that both say the same.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace robustscanner {

using Json = nlohmann::json;

// The cure for most broken engines.
inline constexpr const char* rebuild = "build it again with convert/build_engine.py";

// A value read from a file: as JSON, like in that file, and cut where it is long.
std::string shown(const Json& value);

std::string joined(const std::vector<std::string>& texts, const std::string& between);

// Numbers, with commas between.
template <typename Number>
std::string joined(const std::vector<Number>& numbers) {
    std::vector<std::string> texts;
    for (const auto number : numbers) texts.push_back(std::to_string(number));
    return joined(texts, ", ");
}

// In small letters, of ASCII.
std::string lowered(std::string text);

// What others' exceptions say, on one line of a sensible length.
std::string first_line(const std::string& text);

// The characters of UTF-8, each as a text; bytes that are none stand alone.
std::vector<std::string> characters(const std::string& text);

// How many bytes from here are one character; 0 when they are no UTF-8.
std::size_t character_bytes(const std::string& text, std::size_t at);

}  // namespace robustscanner
