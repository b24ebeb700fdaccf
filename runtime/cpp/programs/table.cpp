#include "table.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "wording.hpp"

namespace programs {
namespace {

using robustscanner::Json;

bool is_utf8(const std::string& letter) { return robustscanner::character_bytes(letter, 0) == letter.size(); }

std::string with_digits(double number, int digits = 4) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*f", digits, number);
    return text;
}

// As short as can be.
std::string json_number(double number, int digits = 4) { return Json::parse(with_digits(number, digits)).dump(); }

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
    return ", \"others\": " + json_number(others) + ", \"free\": " + json_text(text) +
           ", \"free_score\": " + json_number(score);
}

std::string json_letter(const robustscanner::Letter& letter) {
    std::vector<std::string> others;
    for (const auto& [text, probability] : letter.others) {
        others.push_back("[" + json_text(text) + ", " + json_number(probability) + "]");
    }
    std::string place;
    if (letter.place) {
        place = ", \"left\": " + json_number(letter.place->left, 1) +
                ", \"centre\": " + json_number(letter.place->centre, 1) +
                ", \"right\": " + json_number(letter.place->right, 1);
    }
    return "{\"text\": " + json_text(letter.text) + ", \"probability\": " + json_number(letter.probability) +
           ", \"others\": [" + robustscanner::joined(others, ", ") + "]" + place + "}";
}

std::string json_letters(const std::vector<robustscanner::Letter>& letters) {
    std::vector<std::string> texts;
    for (const auto& letter : letters) texts.push_back(json_letter(letter));
    return "[" + robustscanner::joined(texts, ", ") + "]";
}

}  // namespace

std::string header(Format format, bool letters) {
    if (format != Format::csv) return "";
    return letters ? "path,text,score,letters\n" : "path,text,score\n";
}

std::string line(Format format, const std::string& path, const robustscanner::Reading& reading,
                 const Letters& letters) {
    const auto score = with_digits(reading.score);
    switch (format) {
        case Format::tsv:
            return as_utf8(on_one_line(path)) + "\t" + on_one_line(reading.text) + "\t" + score + "\n";
        case Format::json:
            return "{\"path\": " + as_utf8(json_text(path)) + ", \"text\": " + json_text(reading.text) +
                   ", \"score\": " + json_number(reading.score) + beside(reading) +
                   (letters ? ", \"letters\": " + json_letters(*letters) : "") + "}\n";
        case Format::csv:
            return as_utf8(csv_text(path)) + "," + csv_text(reading.text) + "," + score +
                   (letters ? "," + csv_text(json_letters(*letters)) : "") + "\n";
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
