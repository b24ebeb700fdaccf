// Opens an engine: reads its `engine.json`, checks it, and picks the session that can run it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "robustscanner/session.hpp"

namespace robustscanner {

// How many pictures one run takes.
struct BatchRange {
    int min = 1;
    int opt = 1;  // what the engine is tuned for
    int max = 1;
};

// This engine against the FP32 model it came from, on the calibration set.
struct EngineAccuracy {
    int words = 0;
    double fp32_rate = 0;    // words that the FP32 model reads correctly, 0…1
    double engine_rate = 0;  // words that this engine reads correctly, 0…1
    double agreement = 0;    // words that both read alike, right or wrong, 0…1
    bool simulated = false;  // no GPU was there: ONNX Runtime computed what the engine was built from
    std::string protocol;    // how words were compared: "exact", "ignore-case" or "alphanumeric"
};

// What is in an engine's `engine.json`, but for its history, which is for people.
struct EngineManifest {
    ModelSpec model;
    std::string precision;  // "fp32", "fp16" or "int8"
    BatchRange batch;
    std::string backend;                          // "onnxruntime", "tensorrt" or "tensorrt-rtx"
    std::map<std::string, std::string> versions;  // library -> version that built it
    std::map<std::string, std::string> device;    // where it was built: "name", and for a GPU "compute_capability"
    std::optional<EngineAccuracy> accuracy;       // empty when it was not measured
    std::map<std::string, std::string> files;     // file name in the bundle -> SHA-256, hexadecimal

    // Throws EngineError naming what is missing, unknown or contradictory.
    ROBUSTSCANNER_EXPORT static EngineManifest from_json(const std::string& text);
};

// What a TensorRT engine has to fit on this machine.
struct HostFacts {
    std::string version;             // of the library, e.g. "10.3.0"
    std::string compute_capability;  // of the GPU, e.g. "sm_87"
    std::string name;                // of the GPU
};

// The small trained model that is installed with the library. Throws EngineError when this installation lacks it.
ROBUSTSCANNER_EXPORT std::string default_engine();

// Opens a bundle `NAME.engine/` or a bare `NAME.onnx`; what can be checked is, before anything is loaded.
// Throws EngineError: one line with cause and cure.
ROBUSTSCANNER_EXPORT std::unique_ptr<Session> open_engine(const std::string& path, const SessionOptions& options = {});

// Reads a bundle's `engine.json` and checks its files against it.
// Throws EngineError: an `engine.json` that is missing or unreadable; files that are missing, damaged or replaced.
ROBUSTSCANNER_EXPORT EngineManifest read_manifest(const std::string& folder);

// Checks whether a TensorRT engine fits this machine; TensorRT itself would only say that it cannot load it.
// Throws EngineError: it was built by another version, or for another GPU.
ROBUSTSCANNER_EXPORT void check_host(const EngineManifest& manifest, const HostFacts& host);

}  // namespace robustscanner
