// Measures the latency of one engine, without a language between: each round reads the same pictures from memory.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "arguments.hpp"
#include "files.hpp"
#include "program.hpp"
#include "robustscanner/recognizer.hpp"

namespace programs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* help = R"(usage: bench [OPTION]... IMAGE...

Measures the latency of one engine: pictures are decoded first, then resized and read again and again.

  --engine PATH      NAME.engine folder or NAME.onnx (default: the shipped model)
  --batch PICTURES   pictures of one call (default: 1)
  --threads N        CPU threads (default: all cores that are free to use)
  --device N         GPU of a TensorRT engine (default: 0)
  --allow-host-code  run the code that a version-compatible TensorRT engine carries: only if you trust it
  --rounds N         calls to time (default: 200)
  --no-spinning      idle threads sleep
  --turns            a round for every line of stdin, each picture once: programs that are compared take turns

Prints one line of JSON; times are of one call, in milliseconds. With --turns: a line for every round, all its times.
)";

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
    for (int round = 0; round < warm_up_rounds + rounds; ++round) {
        check_interrupt();
        const double time_ms = read_ms(recognizer, batch_from(images, static_cast<std::size_t>(round) * batch, batch));
        if (round >= warm_up_rounds) times_ms.push_back(time_ms);
    }
    std::sort(times_ms.begin(), times_ms.end());
    return times_ms;
}

int take_turns(const robustscanner::Recognizer& recognizer, const std::vector<robustscanner::Image>& images) {
    for (std::string line; std::getline(std::cin, line);) {
        std::string times;
        for (const auto& image : images) {
            times += (times.empty() ? "" : ", ") + std::to_string(read_ms(recognizer, {image.view()}));
        }
        std::printf("[%s]\n", times.c_str());
        std::fflush(stdout);
    }
    check_interrupt();
    return 0;
}

struct Options {
    std::string engine;  // empty: the shipped model
    robustscanner::SessionOptions session;
    int batch = 1, rounds = 200;
    bool turns = false;
    std::vector<std::string> images;
};

Options parse(int count, char* const* texts) {
    Options options;
    options.images =
        read_arguments(count, texts,
                       {{"help", 'h', false, [](auto) { end_with(help); }},
                        {"engine", 0, true, [&](auto value) { options.engine = value; }},
                        {"batch", 0, true, [&](auto value) { options.batch = number(value, 1, 1024); }},
                        {"threads", 0, true,
                         [&](auto value) { options.session.threads = number(value, 1, robustscanner::max_threads); }},
                        {"allow-host-code", 0, false, [&](auto) { options.session.gpu.host_code = true; }},
                        {"device", 0, true, [&](auto value) { options.session.gpu.device = number(value, 0, 1024); }},
                        {"rounds", 0, true, [&](auto value) { options.rounds = number(value, 1, 1'000'000); }},
                        {"no-spinning", 0, false, [&](auto) { options.session.spinning = false; }},
                        {"turns", 0, false, [&](auto) { options.turns = true; }}});
    return options;
}

int run(const Options& options) {
    const auto images = load(options.images);
    const auto began = Clock::now();
    const auto engine = options.engine.empty() ? robustscanner::default_engine() : options.engine;
    const robustscanner::Recognizer recognizer(engine, options.session, options.batch);
    const std::chrono::duration<double, std::milli> opening = Clock::now() - began;
    if (options.turns) return take_turns(recognizer, images);
    const auto times_ms = measure(recognizer, images, static_cast<std::size_t>(options.batch), options.rounds);
    std::printf(
        "{\"batch\": %d, \"threads\": %d, \"rounds\": %d, \"median_ms\": %.3f, \"p95_ms\": %.3f, "
        "\"min_ms\": %.3f, \"open_ms\": %.1f, \"peak_mib\": %.1f}\n",
        options.batch, options.session.threads, options.rounds, percentile(times_ms, 0.5), percentile(times_ms, 0.95),
        times_ms.front(), opening.count(), peak_mib());
    return 0;
}

}  // namespace
}  // namespace programs

int main(int count, char** texts) {
    return programs::exit_status(programs::help, [&] { return programs::run(programs::parse(count, texts)); });
}
