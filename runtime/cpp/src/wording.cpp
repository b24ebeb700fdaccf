#include "wording.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace robustscanner {
namespace {

constexpr std::size_t longest_line = 500;

std::string escaped(unsigned char byte) {
    char text[8];
    std::snprintf(text, sizeof text, "\\x%02x", byte);
    return text;
}

std::string number(double value) {
    if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";
    char text[64];
    const auto [end, error] = std::to_chars(text, text + sizeof text, value);
    const std::string shortest = error == std::errc() ? std::string(text, end) : "?";
    return shortest.find_first_of(".e") == std::string::npos ? shortest + ".0" : shortest;
}

std::string list(const Json& value) {
    std::vector<std::string> items;
    for (const auto& item : value) items.push_back(in_words(item));
    return "[" + joined(items, ", ") + "]";
}

std::string object(const Json& value) {
    std::vector<std::string> items;
    for (const auto& item : value.items()) items.push_back(quoted(item.key()) + ": " + in_words(item.value()));
    return "{" + joined(items, ", ") + "}";
}

}  // namespace

std::string quoted(const std::string& text) {
    const bool has_single = text.find('\'') != std::string::npos, has_double = text.find('"') != std::string::npos;
    const char quote = has_single && !has_double ? '"' : '\'';
    std::string result(1, quote);
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == quote || c == '\\') {
            result += std::string("\\") + c;
        } else if (c == '\n' || c == '\t' || c == '\r') {
            result += c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r";
        } else {
            result += byte < 0x20 || byte == 0x7f ? escaped(byte) : std::string(1, c);
        }
    }
    return result + quote;
}

std::string quoted(const std::set<std::string>& texts) {
    std::vector<std::string> items;
    for (const auto& text : texts) items.push_back(quoted(text));
    return "[" + joined(items, ", ") + "]";
}

std::string in_words(const Json& value) {
    switch (value.type()) {
        case Json::value_t::null:
            return "None";
        case Json::value_t::boolean:
            return value.get<bool>() ? "True" : "False";
        case Json::value_t::string:
            return quoted(value.get_ref<const std::string&>());
        case Json::value_t::number_float:
            return number(value.get<double>());
        case Json::value_t::array:
            return list(value);
        case Json::value_t::object:
            return object(value);
        default:
            return value.dump();
    }
}

std::string in_words(const Json& value, std::size_t length) {
    const auto all = characters(value.is_string() ? value.get<std::string>() : in_words(value));
    const auto end = all.begin() + static_cast<std::ptrdiff_t>(std::min(length, all.size()));
    return joined({all.begin(), end}, "");
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
