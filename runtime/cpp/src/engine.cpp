#include "robustscanner/engine.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "file.hpp"
#include "onnx_session.hpp"
#include "placement.hpp"
#include "robustscanner/errors.hpp"
#include "spec_json.hpp"
#include "tensorrt_session.hpp"

namespace robustscanner {
namespace {

constexpr int engine_format = 1;
constexpr const char* manifest_name = "engine.json";
constexpr const char* onnx_name = "model.onnx";
constexpr std::size_t max_manifest_bytes = 1 << 26;

const std::vector<std::string> precisions = {"fp32", "fp16", "int8"};
const std::vector<std::string> backends = {"onnxruntime", "tensorrt", "tensorrt-rtx"};

using Keys = std::set<std::string>;

bool contains(const std::vector<std::string>& texts, const std::string& text) {
    return std::find(texts.begin(), texts.end(), text) != texts.end();
}

void check_keys(const Json& data, const Keys& required, const Keys& optional, const std::string& where) {
    if (!data.is_object()) throw EngineError(where + ": not a JSON object; " + rebuild);
    Keys known = required;
    known.insert(optional.begin(), optional.end());
    const auto missing = without(required, keys_of(data)), unknown = without(keys_of(data), known);
    if (!missing.empty() || !unknown.empty()) {
        throw EngineError((where.empty() ? "top level" : where) + ": missing " + shown(missing) + ", unknown " +
                          shown(unknown) + "; " + rebuild);
    }
}

EngineError no_number(const std::string& where, const char* name, const Json& value) {
    return EngineError(where + ": " + name + " is " + shown(value) + ", not a number that fits; " + rebuild);
}

int whole(const Json& data, const char* name, const std::string& where) {
    if (!is_int(data[name])) throw no_number(where, name, data[name]);
    return data[name].get<int>();
}

double number(const Json& data, const char* name, const std::string& where) {
    if (!data[name].is_number()) throw no_number(where, name, data[name]);
    return data[name].get<double>();
}

bool flag(const Json& data, const char* name, const std::string& where) {
    if (!data.contains(name)) return false;
    if (!data[name].is_boolean()) throw no_number(where, name, data[name]);
    return data[name].get<bool>();
}

std::map<std::string, std::string> texts(const Json& data, const char* name) {
    const auto& object = data[name];
    const auto is_text = [](const Json& value) { return value.is_string(); };
    if (!object.is_object() || !std::all_of(object.begin(), object.end(), is_text)) {
        throw EngineError(std::string(name) + ": not a JSON object of texts; " + rebuild);
    }
    return object.get<std::map<std::string, std::string>>();
}

BatchRange batch_from(const Json& data) {
    check_keys(data, {"min", "opt", "max"}, {}, "batch");
    const BatchRange range{whole(data, "min", "batch"), whole(data, "opt", "batch"), whole(data, "max", "batch")};
    if (!(1 <= range.min && range.min <= range.opt && range.opt <= range.max)) {
        throw EngineError("batch: needs 1 <= min <= opt <= max, not " + std::to_string(range.min) + ", " +
                          std::to_string(range.opt) + ", " + std::to_string(range.max));
    }
    return range;
}

std::string protocol_from(const Json& data, const std::string& where) {
    if (!data.contains("protocol")) return "alphanumeric";
    if (!data["protocol"].is_string()) throw no_number(where, "protocol", data["protocol"]);
    return data["protocol"].get<std::string>();
}

std::optional<EngineAccuracy> accuracy_from(const Json& data) {
    if (data.is_null()) return {};
    const std::string where = "accuracy";
    check_keys(data, {"words", "fp32_rate", "engine_rate", "agreement"}, {"simulated", "protocol"}, where);
    return EngineAccuracy{whole(data, "words", where),        number(data, "fp32_rate", where),
                          number(data, "engine_rate", where), number(data, "agreement", where),
                          flag(data, "simulated", where),     protocol_from(data, where)};
}

ModelSpec model_from(const Json& data) {
    try {
        return spec_from(data);
    } catch (const SpecError& error) {
        throw EngineError(std::string("model: ") + error.what());
    }
}

bool is_plain_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string("/\\:\0", 4)) == name.npos;
}

bool is_sha256(const std::string& text) {
    return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

void check_manifest(const EngineManifest& manifest) {
    if (!contains(precisions, manifest.precision)) {
        throw EngineError("unknown precision " + shown(manifest.precision) + "; known are " + joined(precisions, ", "));
    }
    if (!contains(backends, manifest.backend)) {
        throw EngineError("unknown backend " + shown(manifest.backend) + "; known are " + joined(backends, ", ") +
                          ": update the kit");
    }
    for (const auto& [name, digest] : manifest.files) {
        if (!is_plain_name(name)) {
            throw EngineError("file name " + shown(name) + " leaves the engine's folder; " + rebuild);
        }
        if (!is_sha256(digest)) throw EngineError(name + ": " + shown(digest) + " is no SHA-256; " + rebuild);
    }
}

std::string text(const Json& data, const char* name) {
    if (!data[name].is_string()) throw EngineError(std::string(name) + ": not a text; " + rebuild);
    return data[name].get<std::string>();
}

void check_file(const std::string& path, const std::string& digest) {
    std::error_code unknown;
    if (!std::filesystem::is_regular_file(path, unknown)) {
        throw EngineError(path + ": missing, though " + manifest_name + " lists it; " + rebuild);
    }
    std::string found;
    try {
        found = file_sha256(path);
    } catch (const FileError& error) {
        throw EngineError(path + ": " + reason(error.code()));
    }
    if (found != digest) {
        throw EngineError(path + ": damaged or replaced (its SHA-256 is not the one in " + manifest_name + "); " +
                          rebuild);
    }
}

std::vector<int> version_numbers(const std::string& version) {
    std::vector<int> numbers;
    const auto* const end = version.data() + version.size();
    for (const auto* at = version.data();; ++at) {
        int number = 0;
        const auto found = std::from_chars(at, end, number);
        if (found.ec != std::errc()) return {};
        numbers.push_back(number);
        if (found.ptr == end) return numbers;
        if (*found.ptr != '.') return {};
        at = found.ptr;
    }
}

// Whether a plan opens with this version. A build number counts where both have one: Jetson's name none.
bool fits_version(const std::string& built, const std::string& here, bool version_compatible) {
    const auto numbers = version_numbers(built), own = version_numbers(here);
    if (numbers.empty() || own.empty()) return built == here;
    if (version_compatible) return own[0] == numbers[0] && own >= numbers;
    const auto shared = std::min(numbers.size(), own.size());
    return shared >= 3 && std::equal(own.begin(), own.begin() + static_cast<std::ptrdiff_t>(shared), numbers.begin());
}

std::string entry(const std::map<std::string, std::string>& entries, const std::string& name,
                  const std::string& otherwise) {
    const auto found = entries.find(name);
    return found == entries.end() ? otherwise : found->second;
}

std::string targets(const std::map<std::string, std::string>& device) {
    return entry(device, "targets", entry(device, "compute_capability", ""));
}

bool fits_gpu(const std::map<std::string, std::string>& device, const std::string& compute_capability) {
    return ("," + targets(device) + ",").find("," + compute_capability + ",") != std::string::npos;
}

std::unique_ptr<Session> open_bundle(const std::string& folder, const SessionOptions& options) {
    const auto manifest = read_manifest(folder);
    if (manifest.backend != "onnxruntime") return open_tensorrt(folder, manifest, options);
    if (!manifest.files.count(onnx_name)) {
        throw EngineError(folder + ": " + manifest_name + " lists no " + onnx_name + "; " + rebuild);
    }
    auto session = open_onnx(folder + "/" + onnx_name, options);
    if (session->spec() != manifest.model) {
        throw EngineError(folder + ": " + manifest_name + " and " + onnx_name + " describe different models; " +
                          rebuild);
    }
    return session;
}

bool has_suffix(const std::string& path, const std::string& suffix) {
    return lowered(std::filesystem::path(path).extension().string()) == suffix;
}

}  // namespace

EngineManifest EngineManifest::from_json(const std::string& json) {
    Json data;
    try {
        data = parsed(json);
    } catch (const SpecError& error) {
        throw EngineError(std::string(error.what()) + "; " + rebuild);
    }
    const auto number = data.is_object() && data.contains("format") ? data["format"] : Json();
    if (number != Json(engine_format)) {
        throw EngineError("format " + shown(number) + ", but this version reads " + std::to_string(engine_format) +
                          "; update the kit, or " + rebuild);
    }
    check_keys(data, {"model", "precision", "batch", "backend", "versions", "device", "accuracy", "history", "files"},
               {"format"}, "");
    EngineManifest manifest;
    manifest.model = model_from(data["model"]);
    manifest.versions = texts(data, "versions");
    manifest.device = texts(data, "device");
    manifest.files = texts(data, "files");
    const auto& history = data["history"];
    if (!history.is_array() ||
        !std::all_of(history.begin(), history.end(), [](const Json& step) { return step.is_object(); })) {
        throw EngineError(std::string("history: not a list of JSON objects; ") + rebuild);
    }
    manifest.batch = batch_from(data["batch"]);
    manifest.accuracy = accuracy_from(data["accuracy"]);
    manifest.precision = text(data, "precision");
    manifest.backend = text(data, "backend");
    check_manifest(manifest);
    return manifest;
}

std::string default_engine() {
    const auto path = models_folder() + "/" ROBUSTSCANNER_DEFAULT_MODEL;
    std::error_code unknown;
    if (!std::filesystem::is_regular_file(path, unknown)) {
        throw EngineError(path + ": the shipped model is missing; install robustscanner again or name an engine");
    }
    return path;
}

std::unique_ptr<Session> open_engine(const std::string& path, const SessionOptions& options) {
    options.check();
    const auto name = tidy(path);
    std::error_code unknown;
    if (std::filesystem::is_directory(name, unknown)) return open_bundle(name, options);
    if (!std::filesystem::is_regular_file(name, unknown)) {
        throw EngineError(name + ": no such engine; " + rebuild + ", or check the path");
    }
    if (!has_suffix(name, ".onnx")) {
        throw EngineError(name + ": neither a NAME.onnx file nor a NAME.engine folder; " + rebuild);
    }
    return open_onnx(name, options);
}

EngineManifest read_manifest(const std::string& folder) {
    const auto path = folder + "/" + manifest_name;
    EngineManifest manifest;
    try {
        const auto bytes = read_bytes(path, max_manifest_bytes);
        manifest = EngineManifest::from_json({bytes.begin(), bytes.end()});
    } catch (const FileError& error) {
        if (error.code() == std::errc::no_such_file_or_directory) {
            throw EngineError(folder + ": holds no " + manifest_name + ", so it is no engine; " + rebuild);
        }
        throw EngineError(path + ": cannot be read (" + reason(error.code()) + "); " + rebuild);
    } catch (const EngineError& error) {
        throw EngineError(path + ": " + error.what());
    }
    for (const auto& [name, digest] : manifest.files) check_file(folder + "/" + name, digest);
    return manifest;
}

void check_host(const EngineManifest& manifest, const HostFacts& host) {
    const std::string product = manifest.backend == "tensorrt" ? "TensorRT" : "TensorRT-RTX";
    const auto built = manifest.versions.find(manifest.backend);
    const auto& device = manifest.device;
    if (built == manifest.versions.end() || (!device.count("targets") && !device.count("compute_capability"))) {
        throw EngineError(std::string(manifest_name) + " does not say which " + product +
                          " and GPU it was built for; " + rebuild);
    }
    const bool version_compatible = entry(device, "version_compatible", "") == "true";
    if (fits_version(built->second, host.version, version_compatible) && fits_gpu(device, host.compute_capability)) {
        return;
    }
    throw EngineError("built by " + product + " " + built->second + " for " + targets(device) + " (" +
                      entry(device, "name", "another GPU") + "); this machine has " + host.version + " and " +
                      host.compute_capability + " (" + host.name +
                      "). Engines do not travel: run convert/build_engine.py here");
}

}  // namespace robustscanner
