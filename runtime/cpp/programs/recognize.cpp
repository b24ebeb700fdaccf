// Reads the words in cropped pictures.

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <optional>

#include "arguments.hpp"
#include "file.hpp"
#include "files.hpp"
#include "output.hpp"
#include "program.hpp"
#include "robustscanner/recognizer.hpp"
#include "robustscanner/version.h"
#include "sheet.hpp"
#include "table.hpp"
#include "wording.hpp"

namespace programs {
namespace {

using robustscanner::ImageError;
using robustscanner::Reading;
using robustscanner::Recognizer;
using Clock = std::chrono::steady_clock;

constexpr const char* help = R"(usage: recognize [OPTION]... IMAGE...

Reads the words in cropped pictures. IMAGE: a picture, folder or quoted pattern; - reads paths from stdin.

  -h, --help         this text
  --engine PATH      NAME.engine folder or NAME.onnx (default: the shipped model)
  --json             JSON Lines: one object a line
  --csv              CSV with a header
  -o, --output FILE  write there instead of to stdout
  --sheet FILE       draw a contact sheet (.png, .jpg, .webp)
  -f, --force        overwrite existing files
  --characters SET   those that may be read, as in brackets of a regular expression: 0-9A-F
  --pattern REGEX    what a whole text looks like: '[A-Z]{2}\d{2,4}'
  --words FILE       the best word of a list, one a line, as it is written
  --length N[-M]     number of characters, or fewest and most
  --letters          each letter: probability, place, what else it may be
  --min-score P      leave out readings with a lower score, 0…1
  --batch PICTURES   pictures of one run
  --threads N        CPU threads (default: all cores that are free to use)
  --device N         GPU of a TensorRT engine (default: 0)
  --allow-host-code  run the code that a version-compatible TensorRT engine carries: only if you trust it
  -v, --verbose      say on stderr what runs, and how fast
  --version          the version of the kit

Exit status: 0 all pictures were read, 1 an error, or some could not be read, 2 wrong usage,
130 after Ctrl-C: writes nothing, 143 after SIGTERM: writes what was read so far.
)";

constexpr int max_count = 1024;                 // of pictures a batch and of threads: more is a typing error
constexpr std::size_t progress_pictures = 200;  // shorter work needs no progress line
constexpr std::chrono::milliseconds progress_interval(200);

struct Options {
    std::string engine, output, sheet;  // empty: not given
    Format format = Format::tsv;
    bool letters = false, force = false, verbose = false;
    int batch = robustscanner::default_batch;
    std::string words;  // the name of a file
    robustscanner::Constraint constraint;
    double min_score = 0;
    robustscanner::SessionOptions session;
    std::vector<std::string> images;
};

bool is_sheet_name(const std::string& path) {
    const auto suffix = robustscanner::lowered(path.substr(std::min(path.find_last_of('.'), path.size())));
    return suffix == ".png" || suffix == ".jpg" || suffix == ".jpeg" || suffix == ".webp";
}

void set_format(Options& options, Format format) {
    if (options.format != Format::tsv && options.format != format) throw UsageError("either --json or --csv");
    options.format = format;
}

double share(const std::string& text) {
    double share = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), share);
    if (error != std::errc() || end != text.data() + text.size() || !(share >= 0 && share <= 1)) {
        throw UsageError("'" + text + "' is not a number from 0 to 1");
    }
    return share;
}

void set_length(robustscanner::Constraint& constraint, const std::string& text) {
    const auto dash = std::min(text.find('-'), text.size());
    constraint.fewest = number(text.substr(0, dash), 0, INT_MAX);
    constraint.most = dash + 1 >= text.size() ? constraint.fewest : number(text.substr(dash + 1), 0, INT_MAX);
}

Options parse(int count, char* const* texts) {
    Options options;
    options.images = read_arguments(
        count, texts,
        {{"help", 'h', false, [](auto) { end_with(help); }},
         {"version", 0, false, [](auto) { end_with("robustscanner " ROBUSTSCANNER_VERSION "\n"); }},
         {"engine", 0, true, [&](auto value) { options.engine = value; }},
         {"json", 0, false, [&](auto) { set_format(options, Format::json); }},
         {"csv", 0, false, [&](auto) { set_format(options, Format::csv); }},
         {"output", 'o', true, [&](auto value) { options.output = value; }},
         {"sheet", 0, true, [&](auto value) { options.sheet = value; }},
         {"force", 'f', false, [&](auto) { options.force = true; }},
         {"characters", 0, true, [&](auto value) { options.constraint.characters = value; }},
         {"pattern", 0, true, [&](auto value) { options.constraint.pattern = value; }},
         {"words", 0, true, [&](auto value) { options.words = value; }},
         {"length", 0, true, [&](auto value) { set_length(options.constraint, value); }},
         {"letters", 0, false, [&](auto) { options.letters = true; }},
         {"min-score", 0, true, [&](auto value) { options.min_score = share(value); }},
         {"batch", 0, true, [&](auto value) { options.batch = number(value, 1, max_count); }},
         {"threads", 0, true, [&](auto value) { options.session.threads = number(value, 1, max_count); }},
         {"allow-host-code", 0, false, [&](auto) { options.session.gpu.host_code = true; }},
         {"device", 0, true, [&](auto value) { options.session.gpu.device = number(value, INT_MIN, INT_MAX); }},
         {"verbose", 'v', false, [&](auto) { options.verbose = true; }}});
    if (!options.sheet.empty() && !is_sheet_name(options.sheet)) {
        throw UsageError("--sheet: '" + options.sheet + "' ends neither in .png nor in .jpg, .jpeg or .webp");
    }
    if (options.letters && options.format == Format::tsv && options.sheet.empty()) {
        throw UsageError("--letters needs --json, --csv or --sheet to show them in");
    }
    if (!options.words.empty() && !options.constraint.empty()) {
        throw UsageError("--words goes without --characters, --pattern and --length");
    }
    if (!options.sheet.empty() && options.sheet == options.output) {
        throw UsageError("--output and --sheet name the same file");
    }
    return options;
}

// Adds all pictures, in order; arguments that stand for none are reported, and make it false.
bool collect(const std::vector<std::string>& arguments, std::vector<std::string>& paths) {
    bool clean = true;
    for (const auto& argument : arguments) {
        try {
            const auto found = argument == "-" ? read_list() : find_pictures(argument);
            paths.insert(paths.end(), found.begin(), found.end());
        } catch (const ImageError& error) {
            report(error.what());
            clean = false;
        }
    }
    return clean;
}

// A line that rewrites itself while long work runs on a terminal; nothing elsewhere.
class Progress {
   public:
    Progress(std::size_t total, const Options& options)
        : total_(total),
          // On a terminal, the readings themselves show the progress.
          active_(total > progress_pictures && isatty(STDERR_FILENO) &&
                  !(options.output.empty() && isatty(STDOUT_FILENO))) {}

    void show(std::size_t done) {
        if (!active_ || Clock::now() < next_) return;
        next_ = Clock::now() + progress_interval;
        std::fprintf(stderr, "\r%zu of %zu pictures", done, total_);
    }

    void clear() const {
        if (active_) std::fputs("\r\033[K", stderr);
    }

   private:
    std::size_t total_;
    bool active_;
    Clock::time_point next_{};
};

// What became of the pictures.
struct Work {
    std::vector<Cell> cells;  // of the sheet, if one is wanted
    std::size_t done = 0, bad = 0;
    std::size_t unsure = 0;                 // have a lower score than is wanted
    std::optional<Interrupted> terminated;  // before the end
};

// Reads, writes and reports. SIGTERM ends it early, Ctrl-C throws.
Work read_all(const Recognizer& recognizer, const std::vector<std::string>& paths, Output& output,
              const Options& options) {
    Progress progress(paths.size(), options);
    Work work;
    output.write(header(options.format, options.letters));
    const auto take = [&](std::size_t index, robustscanner::Outcome outcome) {
        check_interrupt();
        Letters letters;
        if (const auto* reading = std::get_if<Reading>(&outcome); reading && options.letters) {
            letters = recognizer.letters(paths[index], reading->text);
        }
        if (const auto* error = std::get_if<ImageError>(&outcome)) {
            ++work.bad;
            progress.clear();
            report(error->what());
        } else if (std::get<Reading>(outcome).score < options.min_score) {
            ++work.unsure;
        } else {
            output.write(line(options.format, paths[index], std::get<Reading>(outcome), letters));
        }
        if (!options.sheet.empty()) {
            work.cells.push_back(
                {paths[index], std::move(outcome), letters.value_or(std::vector<robustscanner::Letter>())});
        }
        progress.show(work.done = index + 1);
    };
    try {
        recognizer.read_each({paths.begin(), paths.end()}, take);
    } catch (const Interrupted& interrupted) {
        if (interrupted.signal != SIGTERM) throw;
        work.terminated = interrupted;
    }
    progress.clear();
    return work;
}

void check_sheet(const Options& options, std::size_t count) {
    check_output(options.sheet, options.force);
    if (count > max_cells) {
        throw OutputError(options.sheet + ": " + std::to_string(count) + " pictures, but a sheet holds " +
                          std::to_string(max_cells) + "; give fewer at once");
    }
}

void save_sheet(const std::vector<Cell>& cells, const Options& options) {
    Output output(options.sheet, options.force);
    output.write(draw_sheet(cells, options.sheet.substr(options.sheet.find_last_of('.'))));
    output.finish();
}

int recognize(const Options& options) {
    std::vector<std::string> paths;
    const bool clean = collect(options.images, paths);
    const auto count = paths.size();
    if (!count && clean) throw ImageError("standard input: lists no pictures; give one path a line");
    if (!count) return 1;
    if (!options.sheet.empty()) check_sheet(options, count);
    const auto started = Clock::now();
    Output output(options.output, options.force);
    auto constraint = options.constraint;
    if (!options.words.empty()) constraint.words = read_words(options.words);
    const auto engine = options.engine.empty() ? robustscanner::default_engine() : options.engine;
    const Recognizer recognizer(engine, options.session, options.batch, constraint);
    if (options.verbose) std::fprintf(stderr, "%s\n", recognizer.description().c_str());
    if (const auto warning = recognizer.warning(); !warning.empty()) std::fprintf(stderr, "%s\n", warning.c_str());
    const auto work = read_all(recognizer, paths, output, options);
    if (!options.sheet.empty() && !work.terminated) save_sheet(work.cells, options);
    output.finish();
    const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
    if (options.verbose) std::fprintf(stderr, "%zu pictures in %.2f s\n", work.done, seconds);
    if (work.bad) std::fprintf(stderr, "%zu of %zu pictures could not be read\n", work.bad, work.done);
    if (work.unsure) {
        std::fprintf(stderr, "%zu of %zu readings are left out: score below %g\n", work.unsure, work.done,
                     options.min_score);
    }
    if (work.terminated) {
        std::fprintf(stderr, "terminated after %zu of %zu pictures\n", work.done, count);
        return work.terminated->exit_status();
    }
    return clean && !work.bad ? 0 : 1;
}

}  // namespace
}  // namespace programs

int main(int count, char** texts) {
    return programs::exit_status(programs::help, [&] { return programs::recognize(programs::parse(count, texts)); });
}
