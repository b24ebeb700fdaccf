#include "table.hpp"

#include <cstdio>

#include "wording.hpp"

namespace programs {
namespace {

std::string formatted(const char* format, double number) {
    char text[32];
    std::snprintf(text, sizeof text, format, number);
    return text;
}

std::string formatted(const char* format, unsigned number) {
    char text[32];
    std::snprintf(text, sizeof text, format, number);
    return text;
}

// Rounded to four digits, without zeros that say nothing.
std::string json_number(double number) {
    auto text = formatted("%.4f", number);
    while (text.back() == '0' && text[text.size() - 2] != '.') text.pop_back();
    return text;
}

std::string json_text(const std::string& text) {
    static const std::string plain = "\"\\\n\r\t\b\f", letters = "\"\\nrtbf";
    std::string result = "\"";
    for (const char c : text) {
        const auto known = plain.find(c);
        if (known != plain.npos) {
            result += std::string("\\") + letters[known];
        } else if (static_cast<unsigned char>(c) < 0x20) {
            result += formatted("\\u%04x", static_cast<unsigned>(c));
        } else {
            result += c;
        }
    }
    return result + "\"";
}

std::string csv_text(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == text.npos) return text;
    std::string result = "\"";
    for (const char c : text) result += c == '"' ? "\"\"" : std::string(1, c);
    return result + "\"";
}

}  // namespace

std::string header(Format format) { return format == Format::csv ? "path,text,score\n" : ""; }

std::string line(Format format, const std::string& path, const robustscanner::Reading& reading) {
    const auto score = formatted("%.4f", reading.score);
    switch (format) {
        case Format::tsv:
            return as_utf8(on_one_line(path)) + "\t" + on_one_line(reading.text) + "\t" + score + "\n";
        case Format::json:
            return "{\"path\": " + as_utf8(json_text(path)) + ", \"text\": " + json_text(reading.text) +
                   ", \"score\": " + json_number(reading.score) + "}\n";
        case Format::csv:
            return as_utf8(csv_text(path)) + "," + csv_text(reading.text) + "," + score + "\n";
    }
    return {};
}

std::string on_one_line(const std::string& text) {
    std::string result;
    for (const char c : text) {
        result += c == '\t' ? "\\t" : c == '\n' ? "\\n" : c == '\r' ? "\\r" : std::string(1, c);
    }
    return result;
}

std::string as_utf8(const std::string& text) {
    std::string result;
    for (const auto& letter : robustscanner::characters(text)) {
        const bool valid = robustscanner::character_bytes(letter, 0) == letter.size();
        result += valid ? letter : formatted("\\udc%02x", static_cast<unsigned>(static_cast<unsigned char>(letter[0])));
    }
    return result;
}

}  // namespace programs
