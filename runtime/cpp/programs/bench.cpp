// Measures the latency of one engine, without a language between: each round reads the same pictures from memory.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "arguments.hpp"
#include "files.hpp"
#include "interrupt.hpp"
#include "program.hpp"
#include "robustscanner/recognizer.hpp"

namespace programs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* usage =
    "usage: bench [-h] [--engine PATH] [--batch PICTURES] [--threads N] [--device N] [--rounds N]\n"
    "             [--no-spinning] [--turns] IMAGE [IMAGE ...]\n";

constexpr const char* help = R"(
Measures the latency of one engine: pictures are decoded first, then resized and read again and again.

options:
  --engine PATH         NAME.engine folder or NAME.onnx (default: the shipped model)
  --batch PICTURES      pictures of one call (default: 1)
  --threads N           CPU threads (default: all cores that are free to use)
  --device N            GPU of a TensorRT engine (default: 0)
  --rounds N            calls to time (default: 200)
  --no-spinning         idle threads sleep
  --turns               a round for every line of stdin, each picture once: programs that are compared take turns

prints one line of JSON; times are of one call, in milliseconds; with --turns, a line for every round: all its times
)";

const std::vector<OptionSpec> known = {{"--help", 'h', false},      {"--engine", 0, true}, {"--batch", 0, true},
                                       {"--threads", 0, true},      {"--device", 0, true}, {"--rounds", 0, true},
                                       {"--no-spinning", 0, false}, {"--turns", 0, false}};

constexpr int warm_up_rounds = 10;

std::vector<robustscanner::Image> load(const std::vector<std::string>& arguments) {
    std::vector<robustscanner::Image> images;
    for (const auto& argument : arguments) {
        for (const auto& path : find_pictures(argument)) images.push_back(robustscanner::load_image(path));
    }
    return images;
}

std::vector<robustscanner::Source> batch_from(const std::vector<robustscanner::Image>& images, std::size_t start,
                                              std::size_t count) {
    std::vector<robustscanner::Source> batch;
    for (std::size_t index = 0; index < count; ++index)
        batch.emplace_back(images[(start + index) % images.size()].view());
    return batch;
}

double percentile(const std::vector<double>& sorted, double share) {
    return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
}

double peak_mib() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_maxrss) / 1024;
}

double read_ms(const robustscanner::Recognizer& recognizer, const std::vector<robustscanner::Source>& pictures) {
    const auto began = Clock::now();
    recognizer.read_batch(pictures);
    return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

std::vector<double> measure(const robustscanner::Recognizer& recognizer,
                            const std::vector<robustscanner::Image>& images, std::size_t batch, int rounds) {
    std::vector<double> times_ms;
    for (int round = -warm_up_rounds; round < rounds; ++round) {
        check_interrupt();
        const auto position = static_cast<std::size_t>(round + warm_up_rounds) * batch;
        const double time_ms = read_ms(recognizer, batch_from(images, position, batch));
        if (round >= 0) times_ms.push_back(time_ms);
    }
    std::sort(times_ms.begin(), times_ms.end());
    return times_ms;
}

void take_turns(const robustscanner::Recognizer& recognizer, const std::vector<robustscanner::Image>& images) {
    for (std::string line; std::getline(std::cin, line);) {
        std::string times;
        for (const auto& image : images) {
            times += (times.empty() ? "" : ", ") + std::to_string(read_ms(recognizer, {image.view()}));
        }
        std::printf("[%s]\n", times.c_str());
        std::fflush(stdout);
    }
}

int run(int count, const char* const* texts) {
    const Arguments given(count, texts, known);
    if (given.has("--help")) {
        std::printf("%s%s", usage, help);
        return 0;
    }
    if (given.rest().empty()) throw UsageError("the following arguments are required: IMAGE");
    robustscanner::SessionOptions options;
    options.threads = given.number("--threads", options.threads, 1, robustscanner::max_threads);
    options.gpu.device = given.number("--device", 0, 0, 1024);
    options.spinning = !given.has("--no-spinning");
    const int batch = given.number("--batch", 1, 1, 1024), rounds = given.number("--rounds", 200, 1, 1'000'000);
    const auto images = load(given.rest());
    const auto began = Clock::now();
    const robustscanner::Recognizer recognizer(given.text("--engine", robustscanner::default_engine()), options, batch);
    const std::chrono::duration<double, std::milli> opening = Clock::now() - began;
    if (given.has("--turns")) {
        take_turns(recognizer, images);
        return 0;
    }
    const auto times_ms = measure(recognizer, images, static_cast<std::size_t>(batch), rounds);
    std::printf(
        "{\"batch\": %d, \"threads\": %d, \"rounds\": %d, \"median_ms\": %.3f, \"p95_ms\": %.3f, "
        "\"min_ms\": %.3f, \"open_ms\": %.1f, \"peak_mib\": %.1f}\n",
        batch, options.threads, rounds, percentile(times_ms, 0.5), percentile(times_ms, 0.95), times_ms.front(),
        opening.count(), peak_mib());
    return 0;
}

}  // namespace
}  // namespace programs

int main(int count, char** texts) {
    return programs::exit_status(std::string(programs::usage) + "bench: ", [&] { return programs::run(count, texts); });
}
