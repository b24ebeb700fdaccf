// Opening engines: bundles, bare ONNX files, and what is wrong with them.
#include "robustscanner/engine.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "file.hpp"
#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

namespace fs = std::filesystem;

const Json model = Json::parse(R"({"format": 1, "name": "tiny",
    "charset": {"tokens": ["a", "<BOS/EOS>", "<PAD>"], "start_id": 1, "end_id": 1, "pad_id": 2, "unknown_id": null,
                "class_count": 2},
    "input": {"height_px": 48, "width_px": 160, "min_width_px": 48, "width_multiple_px": 4, "resize": "linear",
              "mean": 127.5, "scale": 127.5},
    "network": {"backbone": "edge", "hidden_size": 16, "max_length": 12, "widths": []}})");

class Bundle : public testing::Test {
   protected:
    Bundle() {
        fs::create_directories(folder);
        fs::copy_file(TINY_MODEL, folder / "model.onnx", fs::copy_options::overwrite_existing);
        manifest = {{"format", 1},
                    {"model", model},
                    {"precision", "int8"},
                    {"backend", "onnxruntime"},
                    {"batch", {{"min", 1}, {"opt", 8}, {"max", 32}}},
                    {"versions", {{"onnxruntime", "1.20"}}},
                    {"device", {{"name", "a CPU"}}},
                    {"accuracy", nullptr},
                    {"history", Json::array()},
                    {"files", {{"model.onnx", file_sha256(TINY_MODEL)}}}};
    }
    ~Bundle() override { fs::remove_all(folder); }

    std::string complaint(const std::function<void(Json&)>& change = [](Json&) {}) {
        auto changed = manifest;
        change(changed);
        std::ofstream(folder / "engine.json") << changed;
        try {
            open_engine(folder.string() + "/");
        } catch (const EngineError& error) {
            return error.what();
        }
        return "";
    }

    fs::path folder = fs::temp_directory_path() / ("robustscanner-" + std::to_string(getpid()) + ".engine");
    Json manifest;
};

const std::string rebuild = "; build it again with convert/build_engine.py";

TEST_F(Bundle, IsHeldAgainstItsManifest) {
    const auto at = folder.string() + ": ", json = folder.string() + "/engine.json: ";
    EXPECT_EQ(complaint(), at + "engine.json and model.onnx describe different models" + rebuild);
    EXPECT_EQ(
        complaint([](Json& m) { m["format"] = 9; }),
        json + "format 9, but this version reads 1; update the kit, or build it again with convert/build_engine.py");
    EXPECT_EQ(complaint([](Json& m) { m.erase("batch"), m["x"] = 1; }),
              json + "top level: missing [\"batch\"], unknown [\"x\"]" + rebuild);
    EXPECT_EQ(complaint([](Json& m) { m["batch"]["opt"] = 99; }),
              json + "batch: needs 1 <= min <= opt <= max, not 1, 99, 32");
    EXPECT_EQ(complaint([](Json& m) { m["batch"]["opt"] = true; }),
              json + "batch: opt is true, not a number that fits" + rebuild);
    EXPECT_EQ(complaint([](Json& m) { m["files"] = {{"../model.onnx", ""}}; }),
              json + "file name \"../model.onnx\" leaves the engine's folder" + rebuild);
    EXPECT_EQ(complaint([](Json& m) { m["files"]["model.onnx"] = "abc"; }),
              json + "model.onnx: \"abc\" is no SHA-256" + rebuild);
    EXPECT_EQ(
        complaint([](Json& m) { m["files"]["model.onnx"] = std::string(64, '0'); }),
        folder.string() + "/model.onnx: damaged or replaced (its SHA-256 is not the one in engine.json)" + rebuild);
    EXPECT_EQ(complaint([](Json& m) { m["files"]["b"] = std::string(64, '0'); }),
              folder.string() + "/b: missing, though engine.json lists it" + rebuild);
    EXPECT_EQ(complaint([](Json& m) { m["backend"] = "x"; }),
              json + "unknown backend \"x\"; known are onnxruntime, tensorrt, tensorrt-rtx: update the kit");
    EXPECT_NE(complaint([](Json& m) { m["backend"] = "tensorrt"; }), "");
    EXPECT_EQ(complaint([](Json& m) { m["model"]["name"] = 3; }),
              json + "model: spec: name is 3, which is not of the kind this field takes");
}

TEST_F(Bundle, WithoutManifestIsNone) {
    try {
        open_engine(folder.string());
        FAIL();
    } catch (const EngineError& error) {
        EXPECT_EQ(error.what(), folder.string() + ": holds no engine.json, so it is no engine" + rebuild);
    }
}

TEST(Manifest, IsNotWalkedToItsEndWhenTooDeep) {
    const std::string text = "{\"format\": " + std::string(300'000, '[') + std::string(300'000, ']') + "}";
    try {
        EngineManifest::from_json(text);
        FAIL();
    } catch (const EngineError& error) {
        EXPECT_EQ(error.what(), "not JSON (nested too deeply)" + rebuild);
    }
}

TEST(OpenEngine, SaysWhatIsWrong) {
    EXPECT_THROW(open_engine("none.onnx"), EngineError);
    EXPECT_THROW(open_engine(DEMO_PICTURES "/01.jpg"), EngineError);
    SessionOptions options;
    options.threads = 0;
    EXPECT_THROW(open_engine(TINY_MODEL, options), EngineError);
    options = {};
    options.gpu.buckets = {4, 2};
    EXPECT_THROW(open_engine(TINY_MODEL, options), EngineError);
    EXPECT_EQ(open_engine(TINY_MODEL)->spec().name, "tiny");
}

TEST(CheckHost, NamesBothSides) {
    EngineManifest manifest;
    manifest.backend = "tensorrt";
    manifest.versions = {{"tensorrt", "10.3.0.30"}};
    manifest.device = {{"name", "Orin"}, {"compute_capability", "sm_87"}};
    EXPECT_NO_THROW(check_host(manifest, {"10.3.0", "sm_87", "Orin"}));  // Jetson's version has no build number
    EXPECT_THROW(check_host(manifest, {"10.3.1", "sm_87", "Orin"}), EngineError);
    try {
        check_host(manifest, {"11.4.0", "sm_90", "H100"});
        FAIL();
    } catch (const EngineError& error) {
        EXPECT_STREQ(
            error.what(),
            "built by TensorRT 10.3.0.30 for sm_87 (Orin); this machine has 11.4.0 and sm_90 (H100). Engines do "
            "not travel: run convert/build_engine.py here");
    }
    manifest.device["version_compatible"] = "true";
    EXPECT_NO_THROW(check_host(manifest, {"10.13.2", "sm_87", "Orin"}));
    EXPECT_THROW(check_host(manifest, {"11.0.0", "sm_87", "Orin"}), EngineError);
    manifest.device.erase("compute_capability");
    EXPECT_THROW(check_host(manifest, {"10.3.0", "sm_87", "Orin"}), EngineError);
}

TEST(CheckResult, RefusesWhatIsNoProbability) {
    ModelSpec spec;
    spec.charset.tokens = {"a", "b"};
    spec.network.max_length = 2;
    EXPECT_NO_THROW(check_result(spec, 1, {{0, 1}, {1, 0.5f}}));
    EXPECT_THROW(check_result(spec, 1, {{0, 2}, {1, 1}}), EngineError);
    EXPECT_THROW(check_result(spec, 1, {{-1, 0}, {1, 1}}), EngineError);
    EXPECT_THROW(check_result(spec, 1, {{0, 0}, {1, NAN}}), EngineError);
    EXPECT_THROW(check_result(spec, 2, {{0, 0}, {1, 1}}), EngineError);
}

}  // namespace
}  // namespace robustscanner
