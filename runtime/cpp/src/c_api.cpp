#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
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

struct robustscanner_letters {
    explicit robustscanner_letters(std::vector<robustscanner::Letter> found) : owned(std::move(found)) {
        for (const auto& letter : owned) {
            const auto place = letter.place.value_or(robustscanner::Letter::Place());
            robustscanner_letter one = {letter.text.c_str(),      letter.probability, {},           {},
                                        letter.place.has_value(), place.left,         place.centre, place.right};
            for (std::size_t index = 0; index < letter.others.size(); ++index) {
                one.others[index] = letter.others[index].text.c_str();
                one.other_probabilities[index] = letter.others[index].probability;
            }
            letters.push_back(one);
        }
    }

    std::vector<robustscanner::Letter> owned;
    std::vector<robustscanner_letter> letters;
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
    } catch (const ImageError& error) {
        return failed(ROBUSTSCANNER_BAD_PICTURE, error.what());
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

template <typename Item>
const Item& given(const Item* item) {
    need(item, "picture is null; give one");
    return *item;
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

robustscanner_status find_letters(const robustscanner_recognizer* recognizer, const std::function<Source()>& picture,
                                  const char* text, robustscanner_letters** letters) noexcept {
    return guarded([&] {
        need(letters, "letters is null; give a place for them");
        *letters = nullptr;
        need(recognizer, "recognizer is null; open one first");
        need(text, "text is null; give what the picture says");
        *letters = std::make_unique<robustscanner_letters>(recognizer->recognizer.letters(picture(), text)).release();
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

robustscanner_status robustscanner_letters_in_file(const robustscanner_recognizer* recognizer, const char* path,
                                                   const char* text, robustscanner_letters** letters) {
    return find_letters(
        recognizer, [&] { return source(path); }, text, letters);
}

robustscanner_status robustscanner_letters_in_encoded(const robustscanner_recognizer* recognizer,
                                                      const robustscanner_file* file, const char* text,
                                                      robustscanner_letters** letters) {
    return find_letters(
        recognizer, [&] { return source(given(file)); }, text, letters);
}

robustscanner_status robustscanner_letters_in_picture(const robustscanner_recognizer* recognizer,
                                                      const robustscanner_picture* picture, const char* text,
                                                      robustscanner_letters** letters) {
    return find_letters(
        recognizer, [&] { return source(given(picture)); }, text, letters);
}

size_t robustscanner_letter_count(const robustscanner_letters* letters) {
    return letters ? letters->letters.size() : 0;
}

const robustscanner_letter* robustscanner_letter_at(const robustscanner_letters* letters, size_t index) {
    return index < robustscanner_letter_count(letters) ? &letters->letters[index] : nullptr;
}

void robustscanner_free_letters(robustscanner_letters* letters) {
    const std::unique_ptr<robustscanner_letters> owned(letters);
}

const char* robustscanner_error(void) { return latest_error.c_str(); }

const char* robustscanner_version(void) { return ROBUSTSCANNER_VERSION; }
