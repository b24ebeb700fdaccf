#include "robustscanner/spec.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <tuple>

#include "robustscanner/errors.hpp"
#include "spec_json.hpp"

namespace robustscanner {
namespace {

constexpr int format = 1;               // of the JSON; raised when an older reader would misread a newer file
constexpr int max_depth = 64;           // of brackets: whoever walks through them does so recursively
constexpr int max_canvas_px = 1 << 14;  // beyond it, products of sizes would not fit their types

enum class Kind { text, texts, whole, wholes, number, optional_whole, object };

struct Field {
    const char* name;
    Kind kind;
    bool added = false;  // the first files of this format lack it; its default says what was so then
};

bool all_of(const Json& value, bool (*is)(const Json&)) {
    return value.is_array() && std::all_of(value.begin(), value.end(), is);
}

bool is_text(const Json& value) { return value.is_string(); }

bool is_a(const Json& value, Kind kind) {
    switch (kind) {
        case Kind::text:
            return value.is_string();
        case Kind::texts:
            return all_of(value, is_text);
        case Kind::whole:
            return is_int(value);
        case Kind::wholes:
            return all_of(value, is_int);
        case Kind::number:
            return value.is_number();
        case Kind::optional_whole:
            return value.is_null() || is_int(value);
        case Kind::object:
            return value.is_object();
    }
    return false;
}

void check_fields(const Json& data, const std::vector<Field>& fields, const std::string& where) {
    if (!data.is_object()) throw SpecError(where + ": missing or not a JSON object");
    std::set<std::string> known, required;
    for (const auto& field : fields) {
        known.insert(field.name);
        if (!field.added) required.insert(field.name);
    }
    const auto missing = without(required, keys_of(data)), unknown = without(keys_of(data), known);
    if (!missing.empty() || !unknown.empty()) {
        throw SpecError(where + ": missing " + shown(missing) + ", unknown " + shown(unknown));
    }
    for (const auto& field : fields) {
        if (data.contains(field.name) && !is_a(data[field.name], field.kind)) {
            throw SpecError(where + ": " + field.name + " is " + shown(data[field.name]) +
                            ", which is not of the kind this field takes");
        }
    }
}

std::set<int> special_ids(const CharsetSpec& spec) {
    std::set<int> ids = {spec.start_id, spec.end_id, spec.pad_id};
    if (spec.unknown_id) ids.insert(*spec.unknown_id);
    return ids;
}

void check_tokens(const CharsetSpec& spec) {
    std::set<std::string> seen, repeated;
    // A space may: PaddleOCR's use_space_char appends one to dictionaries that hold it already (en_dict.txt).
    for (const auto& token : spec.tokens) {
        if (token != " " && !seen.insert(token).second) repeated.insert(token);
    }
    if (!repeated.empty()) {
        throw SpecError("charset: " + shown(*repeated.begin()) + " appears more than once; every token needs one id");
    }
}

void check_id(const char* name, int id, std::size_t count) {
    if (id < 0 || static_cast<std::size_t>(id) >= count) {
        throw SpecError(std::string("charset: ") + name + " " + std::to_string(id) + " is outside the " +
                        std::to_string(count) + " tokens");
    }
}

void check(const CharsetSpec& spec) {
    check_tokens(spec);
    const auto count = spec.tokens.size();
    check_id("start_id", spec.start_id, count);
    check_id("end_id", spec.end_id, count);
    check_id("pad_id", spec.pad_id, count);
    if (spec.unknown_id) check_id("unknown_id", *spec.unknown_id, count);
    if (spec.class_count <= spec.end_id || static_cast<std::size_t>(spec.class_count) > count) {
        throw SpecError("charset: class_count " + std::to_string(spec.class_count) + " must be in " +
                        std::to_string(spec.end_id + 1) + "…" + std::to_string(count));
    }
    const auto special = special_ids(spec);
    for (std::size_t id = 0; id < count; ++id) {
        const auto& token = spec.tokens[id];
        if (character_bytes(token, 0) != token.size() && !special.count(static_cast<int>(id))) {
            throw SpecError("charset: " + shown(token) + " is not a single character and not a special token");
        }
    }
}

void check(const InputSpec& spec) {
    if (spec.resize != "linear" && spec.resize != "area") {
        throw SpecError("input: resize " + shown(spec.resize) + " is neither linear nor area");
    }
    if (spec.width_rule != "ratio" && spec.width_rule != "scale") {
        throw SpecError("input: width_rule " + shown(spec.width_rule) + " is neither ratio nor scale");
    }
    if (!(0 < spec.width_multiple_px && spec.width_multiple_px <= spec.min_width_px &&
          spec.min_width_px <= spec.width_px && spec.height_px >= 1)) {
        throw SpecError("input: needs 0 < width_multiple_px <= min_width_px <= width_px and a positive height_px");
    }
    if (spec.width_px % spec.width_multiple_px || spec.min_width_px % spec.width_multiple_px) {
        throw SpecError("input: width_px and min_width_px must be multiples of width_multiple_px");
    }
    if (!(spec.scale > 0)) throw SpecError("input: scale " + shown(spec.scale) + " must be positive");
    if (spec.canvas_step_px < 0 || spec.canvas_margin_px < 0) {
        throw SpecError("input: canvas_step_px and canvas_margin_px must not be negative");
    }
    if (spec.canvas_step_px && (spec.canvas_step_px % spec.width_multiple_px || spec.width_px % spec.canvas_step_px)) {
        throw SpecError("input: canvas_step_px must be a multiple of width_multiple_px and divide width_px");
    }
    if (std::max(spec.height_px, spec.width_px) > max_canvas_px) {
        throw SpecError("input: a canvas of more than " + std::to_string(max_canvas_px) + " pixels a side");
    }
}

void check(const NetworkSpec& spec) {
    if (spec.backbone != "r31" && spec.backbone != "edge" && spec.backbone != "small") {
        throw SpecError("network: backbone " + shown(spec.backbone) + " is none of r31, edge and small");
    }
    if (!spec.widths.empty() && (spec.backbone != "edge" || spec.widths.size() != 4)) {
        throw SpecError("network: widths are four channel counts, and of the edge backbone only");
    }
    const auto& blocks = spec.blocks;
    if (!blocks.empty() &&
        (spec.backbone != "small" || blocks.size() != 3 || *std::min_element(blocks.begin(), blocks.end()) < 1)) {
        throw SpecError("network: blocks are three counts of 1 or more, and of the small backbone only");
    }
    if (spec.row_mixer != "lstm" && spec.row_mixer != "conv") {
        throw SpecError("network: row_mixer " + shown(spec.row_mixer) + " is neither lstm nor conv");
    }
    if (!(0 <= spec.ctc_weight && spec.ctc_weight <= 1)) {
        throw SpecError("network: ctc_weight " + shown(spec.ctc_weight) + " is not within 0 and 1");
    }
    if (!(spec.score_temperature > 0)) {
        throw SpecError("network: score_temperature " + shown(spec.score_temperature) + " must be positive");
    }
    if (spec.hidden_size < 1 || spec.max_length < 1) {
        throw SpecError("network: hidden_size and max_length must be positive");
    }
}

CharsetSpec charset_from(const Json& data) {
    check_fields(data,
                 {{"tokens", Kind::texts},
                  {"start_id", Kind::whole},
                  {"end_id", Kind::whole},
                  {"pad_id", Kind::whole},
                  {"unknown_id", Kind::optional_whole},
                  {"class_count", Kind::whole}},
                 "charset");
    CharsetSpec spec;
    data["tokens"].get_to(spec.tokens);
    data["start_id"].get_to(spec.start_id);
    data["end_id"].get_to(spec.end_id);
    data["pad_id"].get_to(spec.pad_id);
    if (!data["unknown_id"].is_null()) spec.unknown_id = data["unknown_id"].get<int>();
    data["class_count"].get_to(spec.class_count);
    check(spec);
    return spec;
}

InputSpec input_from(const Json& data) {
    check_fields(data,
                 {{"height_px", Kind::whole},
                  {"width_px", Kind::whole},
                  {"min_width_px", Kind::whole},
                  {"width_multiple_px", Kind::whole},
                  {"width_rule", Kind::text, true},
                  {"resize", Kind::text},
                  {"mean", Kind::number},
                  {"scale", Kind::number},
                  {"canvas_step_px", Kind::whole, true},
                  {"canvas_margin_px", Kind::whole, true}},
                 "input");
    InputSpec spec;
    data["height_px"].get_to(spec.height_px);
    data["width_px"].get_to(spec.width_px);
    data["min_width_px"].get_to(spec.min_width_px);
    data["width_multiple_px"].get_to(spec.width_multiple_px);
    spec.width_rule = data.value("width_rule", spec.width_rule);
    data["resize"].get_to(spec.resize);
    data["mean"].get_to(spec.mean);
    data["scale"].get_to(spec.scale);
    spec.canvas_step_px = data.value("canvas_step_px", spec.canvas_step_px);
    spec.canvas_margin_px = data.value("canvas_margin_px", spec.canvas_margin_px);
    check(spec);
    return spec;
}

NetworkSpec network_from(const Json& data) {
    check_fields(data,
                 {{"backbone", Kind::text},
                  {"hidden_size", Kind::whole},
                  {"max_length", Kind::whole},
                  {"widths", Kind::wholes},
                  {"blocks", Kind::wholes, true},
                  {"row_mixer", Kind::text, true},
                  {"ctc_weight", Kind::number, true},
                  {"score_temperature", Kind::number, true}},
                 "network");
    NetworkSpec spec;
    data["backbone"].get_to(spec.backbone);
    data["hidden_size"].get_to(spec.hidden_size);
    data["max_length"].get_to(spec.max_length);
    data["widths"].get_to(spec.widths);
    spec.blocks = data.value("blocks", spec.blocks);
    spec.row_mixer = data.value("row_mixer", spec.row_mixer);
    spec.ctc_weight = data.value("ctc_weight", spec.ctc_weight);
    spec.score_temperature = data.value("score_temperature", spec.score_temperature);
    check(spec);
    return spec;
}

auto parts(const CharsetSpec& spec) {
    return std::tie(spec.tokens, spec.start_id, spec.end_id, spec.pad_id, spec.unknown_id, spec.class_count);
}

auto parts(const InputSpec& spec) {
    return std::tie(spec.height_px, spec.width_px, spec.min_width_px, spec.width_multiple_px, spec.width_rule,
                    spec.resize, spec.mean, spec.scale, spec.canvas_step_px, spec.canvas_margin_px);
}

auto parts(const NetworkSpec& spec) {
    return std::tie(spec.backbone, spec.hidden_size, spec.max_length, spec.widths, spec.blocks, spec.row_mixer,
                    spec.ctc_weight, spec.score_temperature);
}

const Json& part(const Json& data, const char* name) {
    static const Json none;
    return data.contains(name) ? data[name] : none;
}

}  // namespace

int InputSpec::canvas_width(int valid_width) const {
    if (!canvas_step_px) return width_px;
    const auto needed = std::int64_t{valid_width} + canvas_margin_px;
    const auto rounded = (needed + canvas_step_px - 1) / canvas_step_px * canvas_step_px;
    return static_cast<int>(std::min<std::int64_t>(width_px, rounded));
}

std::vector<int> InputSpec::canvas_widths() const {
    if (!canvas_step_px) return {width_px};
    std::vector<int> widths;
    for (int width = canvas_width(min_width_px); width <= width_px; width += canvas_step_px) widths.push_back(width);
    return widths;
}

std::set<std::string> without(const std::set<std::string>& left, const std::set<std::string>& right) {
    std::set<std::string> result;
    std::set_difference(left.begin(), left.end(), right.begin(), right.end(), std::inserter(result, result.end()));
    return result;
}

std::set<std::string> keys_of(const Json& object) {
    std::set<std::string> keys;
    for (const auto& item : object.items()) keys.insert(item.key());
    return keys;
}

bool is_int(const Json& value) {
    using Limits = std::numeric_limits<int>;
    if (value.is_number_unsigned()) return value.get<std::uint64_t>() <= static_cast<std::uint64_t>(Limits::max());
    return value.is_number_integer() && value.get<std::int64_t>() >= Limits::min();
}

Json parsed(const std::string& text) {
    const auto check_depth = [](int depth, Json::parse_event_t, const Json&) {
        if (depth > max_depth) throw SpecError("not JSON (nested too deeply)");
        return true;
    };
    try {
        return Json::parse(text, check_depth);
    } catch (const Json::exception& error) {
        throw SpecError("not JSON (" + first_line(error.what()) + ")");
    }
}

ModelSpec spec_from(const Json& data) {
    if (!data.is_object()) throw SpecError("spec: not a JSON object");
    if (part(data, "format") != Json(format)) {
        throw SpecError("spec: format " + shown(part(data, "format")) + "; this version reads format " +
                        std::to_string(format) + ": update the kit");
    }
    ModelSpec spec;
    spec.charset = charset_from(part(data, "charset"));
    spec.input = input_from(part(data, "input"));
    spec.network = network_from(part(data, "network"));
    Json rest = data;
    rest.erase("format");
    check_fields(rest,
                 {{"name", Kind::text}, {"charset", Kind::object}, {"input", Kind::object}, {"network", Kind::object}},
                 "spec");
    rest["name"].get_to(spec.name);
    return spec;
}

ModelSpec ModelSpec::from_json(const std::string& text) {
    Json data;
    try {
        data = parsed(text);
    } catch (const SpecError& error) {
        throw SpecError(std::string("spec: ") + error.what());
    }
    return spec_from(data);
}

bool operator==(const ModelSpec& left, const ModelSpec& right) {
    return left.name == right.name && parts(left.charset) == parts(right.charset) &&
           parts(left.input) == parts(right.input) && parts(left.network) == parts(right.network);
}

}  // namespace robustscanner
