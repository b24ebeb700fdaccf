// The TensorRT session on a stand-in for CUDA and TensorRT: what it reads, what it asks of them, and what it leaves.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <tuple>

#include "kernels.hpp"
#include "onnx_session.hpp"
#include "plan.hpp"
#include "robustscanner/recognizer.hpp"
#include "standin/standin.hpp"

namespace robustscanner {
namespace {

namespace fs = std::filesystem;

const fs::path engines = STANDIN_ENGINES;
const std::string rebuild = "build it again";

SessionOptions decoding(int steps_per_launch, int lookahead, bool cuda_graphs = true) {
    SessionOptions options;
    options.threads = 1;
    options.spinning = false;
    options.gpu.steps_per_launch = steps_per_launch;
    options.gpu.lookahead = lookahead;
    options.gpu.cuda_graphs = cuda_graphs;
    return options;
}

// Blotches of several widths.
Canvases pictures(std::size_t count, unsigned seed = 0) {
    constexpr int blotch_px = 8;
    std::minstd_rand random(seed + 1);
    Canvases canvases{160, std::vector<std::uint8_t>(count * 48 * 160 * 3), std::vector<std::int32_t>(count)};
    std::vector<std::uint8_t> blotches(count * 6 * 20 * 3);
    for (auto& level : blotches) level = static_cast<std::uint8_t>(random());
    for (auto& width : canvases.valid_width) width = 48 + static_cast<int>(random() % 29) * 4;
    for (std::size_t index = 0; index < canvases.pixels.size(); ++index) {
        const auto channel = index % 3, column = index / 3 % 160 / blotch_px, row = index / 480 / blotch_px;
        canvases.pixels[index] = blotches[(row * 20 + column) * 3 + channel];
    }
    return canvases;
}

Session& reference() {
    static const auto session = open_onnx(TINY_MODEL, decoding(1, 0));
    return *session;
}

void expect_same(Session& session, const Canvases& given, const Allowed& allowed = {}) {
    const auto found = session.run(given, allowed), expected = reference().run(given, allowed);
    EXPECT_EQ(found.tokens, expected.tokens);
    ASSERT_EQ(found.scores.size(), expected.scores.size());
    for (std::size_t index = 0; index < found.scores.size(); ++index) {
        EXPECT_NEAR(found.scores[index], expected.scores[index], 5e-5);
    }
}

class Gpu : public testing::Test {
   protected:
    void SetUp() override {
        if (!fs::exists(engines)) GTEST_SKIP() << engines << " is missing: Python lacks onnx";
        standin::plug_in();
    }
    void TearDown() override {
        EXPECT_EQ(standin::complaints(), std::vector<std::string>{});
        fs::remove_all(scratch);
    }

    // An engine of this version, changed.
    std::string engine(
        const std::function<void(nlohmann::json&)>& change = [](auto&) {}, const char* name = "tiny") {
        const auto folder = scratch / (std::string(name) + ".engine");
        fs::create_directories(scratch);
        fs::copy(engines / folder.filename(), folder,
                 fs::copy_options::overwrite_existing | fs::copy_options::recursive);
        auto manifest = nlohmann::json::parse(std::ifstream(folder / "engine.json"));
        manifest["versions"]["tensorrt"] = tensorrt_version();
        change(manifest);
        std::ofstream(folder / "engine.json") << manifest;
        return folder.string();
    }

    // What an engine says that cannot be read with; where it can be, it has to read well.
    std::string complaint(const std::string& path, const SessionOptions& options = decoding(2, 1)) {
        try {
            expect_same(*open_engine(path, options), pictures(3));
        } catch (const EngineError& error) {
            return error.what();
        }
        return "";
    }

    fs::path scratch = fs::temp_directory_path() / ("robustscanner-gpu-" + std::to_string(getpid()));
};

void expect_contains(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), text.npos) << text << "\nlacks " << part;
}

TEST_F(Gpu, ReadsWhatOnnxRuntimeReads) {
    for (const int steps_per_launch : {1, 2, 3, 12}) {
        for (const int lookahead : {0, 1}) {
            for (const bool cuda_graphs : {true, false}) {
                const auto session = open_engine(engine(), decoding(steps_per_launch, lookahead, cuda_graphs));
                for (const std::size_t count : {1, 3, 16, 19}) expect_same(*session, pictures(count));
            }
        }
    }
}

// Where the host looks while the device is ahead of it.
TEST_F(Gpu, ReadsWhatIsCompleteHoweverFarTheDeviceIs) {
    for (int hurry = 1; hurry < 9; ++hurry) {
        standin::plug_in({1, false, false, hurry});
        const auto session = open_engine(engine(), decoding(1, 1, false));
        for (unsigned seed = 0; seed < 6; ++seed) expect_same(*session, pictures(2, seed));
    }
}

TEST_F(Gpu, ReadsWhereMemoryIsShared) {
    standin::plug_in({1, true, false, 0});
    const auto session = open_engine(engine(), decoding(2, 1));
    for (const std::size_t count : {3, 1, 16}) expect_same(*session, pictures(count));
}

TEST_F(Gpu, ChoosesItsScheduleByMeasuring) {
    SessionOptions options;
    const auto session = open_engine(engine(), options);
    for (const std::size_t count : {1, 4, 2, 1}) expect_same(*session, pictures(count));
    expect_contains(session->description(), "TensorRT " + tensorrt_version() + ", steps_per_launch=");
}

TEST_F(Gpu, ReadsWhatIsAllowed) {
    const auto session = open_engine(engine(), decoding(2, 1));
    const auto& spec = session->spec();
    const auto classes = static_cast<std::size_t>(spec.charset.class_count);
    Allowed digits(static_cast<std::size_t>(spec.network.max_length) * classes, -1e30f);
    for (std::size_t index = 0; index < digits.size(); ++index) {
        if (index % classes < 10 || index % classes == static_cast<std::size_t>(spec.charset.end_id)) digits[index] = 0;
    }
    for (const std::size_t count : {1, 3, 16}) {
        expect_same(*session, pictures(count), digits);
        expect_same(*session, pictures(count));
    }
    EXPECT_THROW(session->run(pictures(1), {0, 0}), EngineError);
}

TEST_F(Gpu, EnginesFromBeforeThereWereConstraints) {
    const auto session = open_engine(engine([](auto&) {}, "old"), decoding(2, 1));
    EXPECT_FALSE(session->can_constrain());
    expect_same(*session, pictures(3));
}

// Spread over the folder.
std::vector<Source> some_crops() {
    std::vector<std::string> paths;
    for (const auto& entry : fs::directory_iterator(CALIBRATION_CROPS)) paths.push_back(entry.path().string());
    std::sort(paths.begin(), paths.end());
    std::vector<Source> crops;
    for (std::size_t index = 0; index < 24; ++index) crops.emplace_back(paths[index * paths.size() / 24]);
    return crops;
}

Constraint a_code() {
    Constraint code;
    code.pattern = "[A-Z]{2,}[0-9]*";
    return code;
}

// Texts of shipped models, from crops to words; their canvases are as wide as their word.
class Models : public Gpu, public testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(Shipped, Models, testing::Values("edge", "small"));

TEST_P(Models, ReadCropsAsOnnxRuntime) {
    const auto crops = some_crops();
    const auto code = a_code();
    for (const int batch : {1, 3, 16}) {
        const Recognizer gpu(engine([](auto&) {}, GetParam()), decoding(2, 1), batch);
        const Recognizer cpu((engines / GetParam()).string() + ".onnx", decoding(1, 0), batch);
        for (const auto& constraint : {Constraint{}, code}) {
            const auto found = gpu.read_batch(crops, constraint), expected = cpu.read_batch(crops, constraint);
            ASSERT_EQ(found.size(), 24u);
            for (std::size_t index = 0; index < found.size(); ++index) {
                EXPECT_EQ(found[index].text, expected[index].text);
            }
        }
    }
}

// A plan for one picture, which refuses more; engines without it read all the same.
TEST_F(Gpu, OnePictureHasAStepOfItsOwn) {
    const auto without = [](nlohmann::json& manifest) { manifest["files"].erase("decoder-1.plan"); };
    for (const auto& path : {engine(), engine(without)}) {
        const auto session = open_engine(path, decoding(2, 1));
        for (const std::size_t count : {1, 3, 1, 16}) expect_same(*session, pictures(count));
    }
    standin::plug_in();
    open_engine(engine(), decoding(2, 1));
    EXPECT_EQ(standin::calls().at("deserializeCudaEngine"), 3);
}

// Of one run of pictures that end within the first block, after another.
standin::Counts calls_of_a_word(Session& session, const Canvases& given) {
    session.run(given, {});
    auto before = standin::calls();
    session.run(given, {});
    auto calls = standin::calls();
    for (auto& [name, count] : calls) count -= before[name];
    return calls;
}

// --- The decode kernel: the real one, compiled for the CPU

void expect_same_texts(const std::string& path, const SessionOptions& options, double most_different = 0) {
    const auto crops = some_crops();
    const auto code = a_code();
    for (const int batch : {1, 3, 16}) {
        const Recognizer gpu(path, options, batch);
        const Recognizer cpu((engines / "edge.onnx").string(), decoding(1, 0), batch);
        for (const auto& constraint : {Constraint{}, code, Constraint{}}) {
            const auto found = gpu.read_batch(crops, constraint), expected = cpu.read_batch(crops, constraint);
            int different = 0;
            for (std::size_t index = 0; index < found.size(); ++index) {
                different += found[index].text != expected[index].text;
                if (found[index].text == expected[index].text) {
                    EXPECT_NEAR(found[index].score, expected[index].score, most_different ? 0.03 : 2e-3);
                }
            }
            EXPECT_LE(different, most_different * 24);
        }
    }
}

TEST_F(Gpu, KernelReadsWhatOnnxRuntimeReads) {
    for (const bool clusters : {false, true}) {
        standin::plug_in({1, false, false, 0, clusters});
        expect_same_texts(engine([](auto&) {}, "kernel"), decoding(2, 1));
    }
    standin::plug_in({1, true, false, 0, false});
    expect_same_texts(engine([](auto&) {}, "kernel"), decoding(2, 1, false));
}

TEST_F(Gpu, KernelReadsHalves) {
    expect_same_texts(engine([](auto&) {}, "kernel-half"), decoding(2, 1), 0.05);
}

TEST_F(Gpu, KernelIsOneLaunchAndOneWait) {
    const auto session = open_engine(engine([](auto&) {}, "kernel"), decoding(2, 1));
    EXPECT_EQ(session->warning(), "");
    expect_contains(session->description(), ", decode kernel");
    const int width = session->spec().input.canvas_widths().front();
    const Canvases word{width, std::vector<std::uint8_t>(static_cast<std::size_t>(width) * 48 * 3, 200), {width - 8}};
    standin::Counts calls;
    for (const auto& [name, count] : calls_of_a_word(*session, word)) {
        if (count) calls[name] = count;
    }
    EXPECT_EQ(calls, (standin::Counts{{"cudaEventRecord", 1},
                                      {"cudaEventSynchronize", 1},
                                      {"cudaGetDevice", 1},
                                      {"cudaGraphLaunch", 1},
                                      {"cudaSetDevice", 2}}));
}

TEST_F(Gpu, WithoutTheKernelStepsAreTaken) {
    const auto path = engine([](auto&) {}, "kernel");
    for (const char* name : {"cuModuleLoadData", "cuModuleGetFunction", "cuFuncSetAttribute", "driver_function"}) {
        standin::plug_in();
        standin::fail(name, 0);
        const auto session = open_engine(path, decoding(2, 1));
        expect_contains(session->warning(), "decodes step by step, which is slower: ");
    }
    standin::plug_in({1, false, false, 0, false, 7});
    expect_contains(open_engine(path, decoding(2, 1))->warning(), "the kernels need 8 multiprocessors at once");
    auto options = decoding(2, 1);
    options.gpu.decoder = "kernel";
    try {
        open_engine(path, options);
        FAIL();
    } catch (const EngineError& error) {
        expect_contains(error.what(), "the kernels need 8 multiprocessors at once");
    }
    standin::plug_in();
    expect_contains(complaint(engine(), options), "has no decode kernel; build it with --decoder kernel");
    options.gpu.decoder = "steps";
    EXPECT_EQ(open_engine(path, options)->warning(), "");
    options.gpu.decoder = "both";
    expect_contains(complaint(engine(), options), "decoder is 'both'; give 'kernel' or 'steps'");
}

TEST_F(Gpu, LaunchesArePythons) {
    const auto spec = open_engine(engine([](auto&) {}, "edge"), decoding(2, 1))->spec();
    int launches = 0;
    for (const auto& one : nlohmann::json::parse(std::ifstream(engines / "launches.json"))) {
        if (one.contains("half")) {
            const auto layout = weight_layout(spec, 96, one["half"]);
            EXPECT_EQ(layout.size_bytes, one["size_bytes"]);
            EXPECT_EQ(nlohmann::json(layout.offsets), one["offsets"]);
            continue;
        }
        ++launches;
        const auto& sizes = one["sizes"];
        const auto& room = one["room"];
        nlohmann::json found;
        try {
            const auto launch =
                plan_launch({sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]}, {room[0], room[1], room[2]});
            found = {launch.groups, launch.tile, launch.shared_bytes, launch.scratch_slots};
        } catch (const EngineError& error) {
            found = error.what();
        }
        EXPECT_EQ(found, one["launch"]) << one;
    }
    EXPECT_GT(launches, 100);
}

void expect_same_letters(const std::string& path, const std::string& model) {
    const Recognizer gpu(path, decoding(2, 1)), cpu((engines / model).string() + ".onnx", decoding(1, 0));
    for (const char* name : {"0000.jpg", "0007.jpg", "0010.jpg"}) {
        const std::string crop = std::string(CALIBRATION_CROPS) + "/" + name, text = cpu.read(crop).text;
        const auto found = gpu.letters(crop, text), expected = cpu.letters(crop, text);
        ASSERT_EQ(found.size(), expected.size());
        for (std::size_t index = 0; index < found.size(); ++index) {
            const auto &is = found[index], &wanted = expected[index];
            EXPECT_EQ(is.text, wanted.text);
            EXPECT_NEAR(is.probability, wanted.probability, 2e-3);
            ASSERT_EQ(is.others.size(), 2u);
            for (std::size_t other = 0; other < 2; ++other) {
                EXPECT_EQ(is.others[other].text, wanted.others[other].text);
                EXPECT_NEAR(is.others[other].probability, wanted.others[other].probability, 2e-3);
            }
            EXPECT_NEAR(is.place.value().centre, wanted.place.value().centre, 0.1);
        }
    }
}

TEST_P(Models, FindLettersAsOnnxRuntime) {
    expect_same_letters(engine([](auto&) {}, GetParam()), GetParam());
}

TEST_F(Gpu, KernelFindsLettersAsOnnxRuntime) {
    expect_same_letters(engine([](auto&) {}, "kernel"), "edge");
}

TEST_F(Gpu, EnginesThatTakeNoConstraintsTellNoLetters) {
    const auto session = open_engine(engine([](auto&) {}, "old"), decoding(2, 1));
    EXPECT_THROW(session->trace(pictures(1), {}), ConstraintError);
}

TEST_P(Models, TakeCanvasesOfTheirWidthsOnly) {
    const auto session = open_engine(engine([](auto&) {}, GetParam()), decoding(2, 1));
    const auto widths = session->spec().input.canvas_widths();
    EXPECT_GT(widths.size(), 4u);
    const int odd = widths.front() + 4;
    try {
        session->run({odd, std::vector<std::uint8_t>(static_cast<std::size_t>(odd) * 48 * 3), {odd}}, {});
        FAIL();
    } catch (const EngineError& error) {
        expect_contains(error.what(), "given canvases of " + std::to_string(odd) + " pixels, not of ");
    }
}

TEST_F(Gpu, WaitsOnceForAWord) {
    for (const bool integrated : {false, true}) {
        for (const bool cuda_graphs : {true, false}) {
            standin::plug_in({1, integrated, false, 0});
            const auto session = open_engine(engine(), decoding(12, 0, cuda_graphs));
            auto calls = calls_of_a_word(*session, pictures(1));
            EXPECT_EQ(calls["cudaEventSynchronize"], 1);
            EXPECT_EQ(calls["cudaStreamSynchronize"] + calls["cudaDeviceSynchronize"], 0);
            EXPECT_EQ(calls["cudaGraphLaunch"], cuda_graphs ? 1 : 0);
            EXPECT_EQ(calls["enqueueV3"], cuda_graphs ? 0 : 13);
            EXPECT_EQ(calls["cudaMalloc"] + calls["cudaHostAlloc"] + calls["createExecutionContext"], 0);
        }
    }
}

TEST_F(Gpu, OneContextForEachProfile) {
    standin::plug_in({1, false, true, 0});
    const auto session = open_engine(engine(), decoding(2, 1));
    for (const std::size_t count : {1, 3, 2, 16}) expect_same(*session, pictures(count));
    EXPECT_EQ(standin::calls()["cudaGraphLaunch"], 0);
}

TEST_F(Gpu, IsSharedByThreads) {
    const auto session = open_engine(engine(), decoding(2, 1));
    const auto expected = reference().run(pictures(3), {}).tokens;
    std::vector<std::vector<std::int32_t>> found(6);
    std::vector<std::thread> threads;
    for (auto& tokens : found) {
        threads.emplace_back([&] { tokens = session->run(pictures(3), {}).tokens; });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& tokens : found) EXPECT_EQ(tokens, expected);
}

TEST_F(Gpu, PutsTheCurrentDeviceBack) {
    standin::plug_in({2, false, false, 0});
    auto options = decoding(2, 1);
    options.gpu.device = 1;
    int current = -1;
    {
        const auto session = open_engine(engine(), options);
        expect_same(*session, pictures(2));
        cudaGetDevice(&current);
        EXPECT_EQ(current, 0);
    }
    cudaGetDevice(&current);
    EXPECT_EQ(current, 0);
}

TEST_F(Gpu, RefusesWhatWasBuiltForAnother) {
    const auto other_gpu = engine([](auto& manifest) { manifest["device"]["compute_capability"] = "sm_90"; });
    expect_contains(complaint(other_gpu),
                    "for sm_90 (stand-in); this machine has " + tensorrt_version() + " and sm_87");
    const auto other_version = engine([](auto& manifest) { manifest["versions"]["tensorrt"] = "9.1.0"; });
    expect_contains(complaint(other_version), "built by TensorRT 9.1.0 for sm_87 (stand-in); this machine has ");
    const auto other_product = engine([](auto& manifest) { manifest["backend"] = "tensorrt-rtx"; });
    expect_contains(complaint(other_product), "made for TensorRT-RTX, which this library cannot run");
    EXPECT_EQ(standin::calls()["cudaMalloc"], 0);
}

TEST_F(Gpu, NamesWhatIsNotHere) {
    auto options = decoding(2, 1);
    options.gpu.device = 1;
    expect_contains(complaint(engine(), options), "there is no GPU 1; give a number from 0 to 0");
    standin::plug_in({0, false, false, 0});
    expect_contains(complaint(engine()), "no NVIDIA GPU or driver here (none is visible); use an engine for ONNX");
}

// Everything that can fail, at each of its first calls.
class EveryCall : public Gpu, public testing::WithParamInterface<std::tuple<bool, bool>> {
   protected:
    void expect_one_line(const std::string& name, int call) {
        const auto [integrated, cuda_graphs] = GetParam();
        setenv("STANDIN_FAILS", (name + ":" + std::to_string(call)).c_str(), 1);
        standin::plug_in({1, integrated, false, 0});
        unsetenv("STANDIN_FAILS");
        const auto said = complaint(path, decoding(2, 1, cuda_graphs));
        // Nothing can be done without but recordings, and what is called while all is given back.
        const bool closing = name == "cudaGetDevice" || name == "cudaSetDevice" || name == "cudaStreamSynchronize";
        const bool needed = !cuda_graphs && (!closing || call == 1);
        EXPECT_TRUE(!said.empty() || !needed) << name << " " << call;
        EXPECT_TRUE(said.empty() || said.find("; ") != said.npos) << said;
        EXPECT_EQ(said.find('\n'), said.npos) << said;
        EXPECT_EQ(standin::complaints(), std::vector<std::string>{}) << name << " " << call;
    }

    std::string path;
};

TEST_P(EveryCall, MayFail) {
    const auto [integrated, cuda_graphs] = GetParam();
    path = engine();
    standin::plug_in({1, integrated, false, 0});
    ASSERT_EQ(complaint(path, decoding(2, 1, cuda_graphs)), "");
    for (const auto& [name, count] : standin::calls()) {
        for (int call = 1; call <= std::min(count, 12); ++call) expect_one_line(name, call);
    }
}

INSTANTIATE_TEST_SUITE_P(Gpu, EveryCall, testing::Combine(testing::Bool(), testing::Bool()));

TEST_F(Gpu, FailuresSayWhatFailed) {
    const std::map<std::string, std::string> failures = {
        {"cudaGetDeviceCount", "no NVIDIA GPU or driver here (unknown error); use an engine for ONNX Runtime"},
        {"createInferRuntime", "does not start: CUDA initialization failure with error: 35; use an engine"},
        {"deserializeCudaEngine", "encoder.plan: TensorRT " + tensorrt_version() + " cannot open it: magicTagRead"},
        {"createExecutionContext", "encoder.plan: no execution context: CUDA initialization failure; " + rebuild},
        {"setInputShape", "encoder.plan: refuses images [1, 48, 160, 3]: the shape is outside the profile; "},
        {"getTensorShape", "encoder.plan: cannot tell the shape of "},
        {"setTensorAddress", "encoder.plan: refuses the address of images: no such tensor; " + rebuild},
        {"encoder", "encoder.plan: failed to run: Error Code 1: Cuda; " + rebuild},
        {"decoder", "decoder.plan: failed to run: Error Code 1: Cuda; " + rebuild},
        {"cudaStreamSynchronize", "the GPU failed (cudaErrorUnknown: unknown error); open it again, and look"},
    };
    for (const auto& [name, says] : failures) {
        standin::plug_in();
        standin::fail(name, 0);
        expect_contains(complaint(engine()), says);
    }
    for (const char* name : {"cudaMalloc", "cudaHostAlloc"}) {
        standin::plug_in();
        standin::fail(name, 1, cudaErrorMemoryAllocation);
        expect_contains(complaint(engine()), "too little GPU memory (cudaErrorMemoryAllocation: out of memory); close");
    }
}

TEST_F(Gpu, FailedRecordingsAreDoneWithout) {
    for (const char* name :
         {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags", "recording"}) {
        for (int call = 0; call < 3; ++call) {
            standin::plug_in();
            standin::fail(name, call);
            const auto session = open_engine(engine(), decoding(1, 1));
            for (const std::size_t count : {1, 3, 1}) expect_same(*session, pictures(count));
        }
    }
}

TEST_F(Gpu, AFailedRunDoesNotSpoilTheNext) {
    const auto session = open_engine(engine(), decoding(1, 1, false));
    for (const char* name : {"enqueueV3", "cudaEventRecord", "cudaEventSynchronize", "cudaMemcpyAsync"}) {
        for (int call = 0; call < 4; ++call) {
            session->run(pictures(2), {});
            standin::fail(name, call);
            try {
                session->run(pictures(2, 1), {});
            } catch (const EngineError&) {
            }
            standin::fail(name, 1000);
            expect_same(*session, pictures(2, static_cast<unsigned>(call)));
        }
    }
}

TEST_F(Gpu, ABucketThatCannotBeMadeIsMadeLater) {
    const auto session = open_engine(engine(), decoding(1, 1));
    session->run(pictures(1), {});
    for (const char* name : {"createExecutionContext", "setInputShape", "setTensorAddress", "enqueueV3"}) {
        for (int call = 0; call < 3; ++call) {
            standin::fail(name, call);
            EXPECT_THROW(session->run(pictures(3), {}), EngineError) << name << call;
        }
    }
    expect_same(*session, pictures(3));
}

std::string failure(Session& session) {
    try {
        session.run(pictures(2), {});
    } catch (const EngineError& error) {
        return error.what();
    }
    return "";
}

TEST_F(Gpu, AFaultThatOnlyANewProcessSurvives) {
    for (const char* name : {"cudaEventSynchronize", "enqueueV3"}) {
        for (const int device : {0, 1}) {
            standin::plug_in({2, false, false, 0});
            auto options = decoding(2, 1, false);
            options.gpu.device = device;
            const auto session = open_engine(engine(), options);
            session->run(pictures(2), {});
            standin::fail(name, 0, cudaErrorIllegalAddress);
            for (const auto& said : {failure(*session), failure(*session), complaint(engine(), options)}) {
                expect_contains(said, "start the process again");
                EXPECT_EQ(said.find(rebuild), said.npos) << said;
                EXPECT_EQ(said.find("open it again"), said.npos) << said;
            }
        }
    }
}

TEST_F(Gpu, HostCodeRunsOnlyWhenAskedFor) {
    const auto compatible = engine([](auto& manifest) { manifest["device"]["version_compatible"] = "true"; });
    expect_contains(complaint(compatible), "carries code that would run here; if you trust it, give --allow-host-code");
    auto options = decoding(2, 1);
    options.gpu.host_code = true;
    EXPECT_EQ(complaint(compatible, options), "");
}

TEST_F(Gpu, OptionsThatDoNotFit) {
    expect_contains(complaint(engine(), decoding(5, 0)),
                    "steps_per_launch is 5; give a divisor of 12: [1, 2, 3, 4, 6, 12]");
    auto options = decoding(2, 1);
    options.gpu.buckets = {1, 32};
    expect_contains(complaint(engine(), options), "but the engine takes 1 to 16; give such sizes");
    options.gpu.buckets = {4, 8};
    const auto session = open_engine(engine(), options);
    for (const std::size_t count : {1, 5, 17}) expect_same(*session, pictures(count));
}

}  // namespace
}  // namespace robustscanner
