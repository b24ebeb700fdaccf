// Any bytes through the C API, as an `engine.json` and as a picture: a status, a text, and never an exception.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "robustscanner.h"

namespace {

// One line, as every error has to be.
void check_words(const char* text) {
    if (!text || !*text || std::strchr(text, '\n')) __builtin_trap();
}

robustscanner_recognizer* tiny() {
    const robustscanner_options options = {sizeof options, 1, 1, 1, 0, 0, 0, nullptr, nullptr, 0, 0, nullptr, 0};
    robustscanner_recognizer* recognizer = nullptr;
    if (robustscanner_open(TINY_MODEL, &options, &recognizer) != ROBUSTSCANNER_OK) std::abort();
    return recognizer;
}

std::filesystem::path folder() {
    const auto path = std::filesystem::temp_directory_path() / ("robustscanner-fuzz-" + std::to_string(getpid()));
    std::filesystem::create_directories(path);
    return path;
}

void open_manifest(const std::uint8_t* data, std::size_t size_bytes) {
    static const auto engine = folder();
    std::ofstream(engine / "engine.json")
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size_bytes));
    robustscanner_recognizer* recognizer = nullptr;
    const auto status = robustscanner_open(engine.c_str(), nullptr, &recognizer);
    if (status != ROBUSTSCANNER_BAD_ENGINE || recognizer) __builtin_trap();  // no model lies beside them
    check_words(robustscanner_error());
}

void read_picture(const std::uint8_t* data, std::size_t size_bytes) {
    static robustscanner_recognizer* const recognizer = tiny();
    const robustscanner_file file = {data, size_bytes};
    robustscanner_readings* readings = nullptr;
    if (robustscanner_read_encoded(recognizer, &file, 1, &readings) != ROBUSTSCANNER_OK) __builtin_trap();
    const double score = robustscanner_score(readings, 0);
    if (!(score >= 0 && score <= 1)) __builtin_trap();
    if (const char* problem = robustscanner_problem(readings, 0)) check_words(problem);
    robustscanner_free(readings);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    open_manifest(data, size_bytes);
    read_picture(data, size_bytes);
    return 0;
}
