#include "table.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "wording.hpp"

namespace programs {
namespace {

using robustscanner::Json;

bool is_utf8(const std::string& letter) { return robustscanner::character_bytes(letter, 0) == letter.size(); }

std::string with_digits(double score) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", score);
    return text;
}

std::string json_text(const std::string& text) {
    std::string result = "\"";
    for (const auto& letter : robustscanner::characters(text)) {
        const auto quoted = is_utf8(letter) ? Json(letter).dump() : " " + letter + " ";
        result.append(quoted, 1, quoted.size() - 2);
    }
    return result + "\"";
}

std::string csv_text(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == text.npos) return text;
    std::string result = "\"";
    for (const char c : text) result += c == '"' ? "\"\"" : std::string(1, c);
    return result + "\"";
}

std::string beside(const robustscanner::Reading& reading) {
    if (!reading.beside) return "";
    const auto& [others, text, score] = *reading.beside;
    return ", \"others\": " + Json::parse(with_digits(others)).dump() + ", \"free\": " + json_text(text) +
           ", \"free_score\": " + Json::parse(with_digits(score)).dump();
}

}  // namespace

std::string header(Format format) { return format == Format::csv ? "path,text,score\n" : ""; }

std::string line(Format format, const std::string& path, const robustscanner::Reading& reading) {
    const auto score = with_digits(reading.score);
    switch (format) {
        case Format::tsv:
            return as_utf8(on_one_line(path)) + "\t" + on_one_line(reading.text) + "\t" + score + "\n";
        case Format::json:
            return "{\"path\": " + as_utf8(json_text(path)) + ", \"text\": " + json_text(reading.text) +
                   ", \"score\": " + Json::parse(score).dump() + beside(reading) + "}\n";
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
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, "\\udc%02x", static_cast<unsigned char>(letter[0]));
        result += is_utf8(letter) ? letter : escaped;
    }
    return result;
}

}  // namespace programs
