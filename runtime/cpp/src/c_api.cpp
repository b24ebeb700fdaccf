#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "robustscanner.h"
#include "robustscanner/recognizer.hpp"
#include "robustscanner/version.h"

struct robustscanner_recognizer {
    robustscanner_recognizer(const std::string& engine, const robustscanner::SessionOptions& options, int batch_size,
                             const robustscanner::Constraint& constraint)
        : recognizer(engine, options, batch_size, constraint) {}

    robustscanner::Recognizer recognizer;
};

struct robustscanner_readings {
    std::vector<robustscanner::Outcome> outcomes;
};

namespace robustscanner {
namespace {

thread_local std::string latest_error;

class ArgumentError : public Error {
   public:
    using Error::Error;
};

robustscanner_status failed(robustscanner_status status, const char* text) noexcept {
    try {
        latest_error = text;
    } catch (...) {
        latest_error.clear();  // no memory for the text
    }
    return status;
}

// Runs what may throw; no exception may pass into C.
template <typename Action>
robustscanner_status guarded(Action action) noexcept {
    try {
        action();
        return ROBUSTSCANNER_OK;
    } catch (const ArgumentError& error) {
        return failed(ROBUSTSCANNER_BAD_ARGUMENT, error.what());
    } catch (const Error& error) {
        return failed(ROBUSTSCANNER_BAD_ENGINE, error.what());
    } catch (const std::bad_alloc&) {
        return failed(ROBUSTSCANNER_FAILED, "out of memory; give fewer or smaller pictures");
    } catch (const std::exception& error) {
        return failed(ROBUSTSCANNER_FAILED, error.what());
    } catch (...) {
        return failed(ROBUSTSCANNER_FAILED, "unknown failure; please report it");
    }
}

void need(bool condition, const char* what) {
    if (!condition) throw ArgumentError(what);
}

robustscanner_options complete(const robustscanner_options* given) {
    robustscanner_options options{};
    if (!given) return options;
    need(given->size >= sizeof given->size && given->size <= sizeof options,
         "options.size is not that of this version's robustscanner_options; set it to sizeof, or update the library");
    std::memcpy(&options, given, given->size);
    return options;
}

SessionOptions session_options(const robustscanner_options& options) {
    SessionOptions session;
    if (options.threads) session.threads = options.threads;
    session.spinning = !options.no_spinning;
    session.gpu.device = options.device;
    session.gpu.cuda_graphs = !options.no_cuda_graphs;
    session.gpu.host_code = options.allow_host_code != 0;
    return session;
}

Constraint constraint_of(const robustscanner_options& options) {
    Constraint constraint;
    if (options.characters) constraint.characters = options.characters;
    if (options.pattern) constraint.pattern = options.pattern;
    constraint.fewest = options.fewest;
    if (options.most) constraint.most = options.most;
    need(options.words || !options.word_count, "words are null; give as many as word_count says");
    for (std::size_t index = 0; index < options.word_count; ++index) {
        need(options.words[index], "a word is null; give word_count of them");
        constraint.words.emplace_back(options.words[index]);
    }
    return constraint;
}

Source source(const char* path) {
    need(path, "a path is null; give one for every picture");
    return std::string(path);
}

Source source(const robustscanner_file& file) { return EncodedImage{file.data, file.size_bytes}; }

Source source(const robustscanner_picture& picture) {
    need(picture.channels >= ROBUSTSCANNER_RGB && picture.channels <= ROBUSTSCANNER_GREY,
         "channels is no robustscanner_channels; give ROBUSTSCANNER_RGB, _BGR or _GREY");
    return ImageView{picture.pixels, picture.height, picture.width, static_cast<Channels>(picture.channels),
                     picture.row_bytes};
}

template <typename Item>
robustscanner_status read(const robustscanner_recognizer* recognizer, const Item* items, std::size_t count,
                          robustscanner_readings** readings) noexcept {
    return guarded([&] {
        need(readings, "readings is null; give a place for them");
        *readings = nullptr;
        need(recognizer, "recognizer is null; open one first");
        need(items || !count, "pictures are null; give as many as count says");
        std::vector<Source> sources;
        sources.reserve(count);
        std::for_each(items, items + count, [&](const Item& item) { sources.push_back(source(item)); });
        auto found = std::make_unique<robustscanner_readings>();
        found->outcomes.reserve(count);
        recognizer->recognizer.read_each(
            sources, [&](std::size_t, Outcome outcome) { found->outcomes.push_back(std::move(outcome)); });
        *readings = found.release();
    });
}

template <typename Kind>
const Kind* outcome(const robustscanner_readings* readings, std::size_t index) {
    if (!readings || index >= readings->outcomes.size()) return nullptr;
    return std::get_if<Kind>(&readings->outcomes[index]);
}

}  // namespace
}  // namespace robustscanner

using namespace robustscanner;

robustscanner_status robustscanner_open(const char* engine, const robustscanner_options* options,
                                        robustscanner_recognizer** recognizer) {
    return guarded([&] {
        need(recognizer, "recognizer is null; give a place for it");
        *recognizer = nullptr;
        const auto chosen = complete(options);
        const std::string path = engine ? engine : default_engine();
        const int batch_size = chosen.batch_size ? chosen.batch_size : default_batch;
        auto opened = std::make_unique<robustscanner_recognizer>(path, session_options(chosen), batch_size,
                                                                 constraint_of(chosen));
        *recognizer = opened.release();
    });
}

void robustscanner_close(robustscanner_recognizer* recognizer) {
    const std::unique_ptr<robustscanner_recognizer> owned(recognizer);
}

robustscanner_status robustscanner_read_files(const robustscanner_recognizer* recognizer, const char* const* paths,
                                              size_t count, robustscanner_readings** readings) {
    return read(recognizer, paths, count, readings);
}

robustscanner_status robustscanner_read_encoded(const robustscanner_recognizer* recognizer,
                                                const robustscanner_file* files, size_t count,
                                                robustscanner_readings** readings) {
    return read(recognizer, files, count, readings);
}

robustscanner_status robustscanner_read_pictures(const robustscanner_recognizer* recognizer,
                                                 const robustscanner_picture* pictures, size_t count,
                                                 robustscanner_readings** readings) {
    return read(recognizer, pictures, count, readings);
}

size_t robustscanner_count(const robustscanner_readings* readings) { return readings ? readings->outcomes.size() : 0; }

const char* robustscanner_text(const robustscanner_readings* readings, size_t index) {
    const auto* reading = outcome<Reading>(readings, index);
    return reading ? reading->text.c_str() : "";
}

double robustscanner_score(const robustscanner_readings* readings, size_t index) {
    const auto* reading = outcome<Reading>(readings, index);
    return reading ? reading->score : 0;
}

const char* robustscanner_problem(const robustscanner_readings* readings, size_t index) {
    if (!readings || index >= readings->outcomes.size()) return "there is no such picture; see robustscanner_count";
    const auto* error = outcome<ImageError>(readings, index);
    return error ? error->what() : nullptr;
}

void robustscanner_free(robustscanner_readings* readings) {
    const std::unique_ptr<robustscanner_readings> owned(readings);
}

const char* robustscanner_error(void) { return latest_error.c_str(); }

const char* robustscanner_version(void) { return ROBUSTSCANNER_VERSION; }
