// Reads the words in cropped pictures.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdio>
#include <memory>

#include "arguments.hpp"
#include "file.hpp"
#include "files.hpp"
#include "interrupt.hpp"
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

constexpr const char* usage =
    "usage: recognize [-h] [--engine PATH] [--json | --csv] [-o FILE] [--sheet FILE] [-f] [--batch PICTURES]\n"
    "                 [--threads N] [--device N] [-v] [--version]\n"
    "                 IMAGE [IMAGE ...]\n";

constexpr const char* help = R"(
Reads the words in cropped pictures.

positional arguments:
  IMAGE                 picture, folder, or quoted pattern; - reads paths from stdin

options:
  -h, --help            show this help message and exit
  --engine PATH         NAME.engine folder or NAME.onnx (default: the shipped model)
  --json                JSON Lines: one object a line
  --csv                 CSV with a header
  -o, --output FILE     write there instead of to stdout
  --sheet FILE          draw a contact sheet (.png, .jpg, .webp)
  -f, --force           overwrite existing files
  --batch PICTURES      pictures of one run
  --threads N           CPU threads (default: all cores that are free to use)
  --device N            GPU of a TensorRT engine (default: 0)
  -v, --verbose         say on stderr what runs, and how fast
  --version             show program's version number and exit

examples:
  recognize sign.png                          path, text and score, separated by tabs
  recognize crops/ 'more/*.jpg'               a folder stands for the pictures directly in it
  find . -name '*.png' | recognize -          a list of paths, one a line
  recognize --csv -o words.csv --engine word.engine crops/
  recognize --sheet sheet.png crops/          one picture of all pictures, with what was read below

exit status: 0 all pictures were read, 1 an error, or some could not be read, 2 wrong usage
)";

const std::vector<OptionSpec> known = {{"--help", 'h', false},  {"--engine", 0, true},     {"--json", 0, false},
                                       {"--csv", 0, false},     {"--output", 'o', true},   {"--sheet", 0, true},
                                       {"--force", 'f', false}, {"--batch", 0, true},      {"--threads", 0, true},
                                       {"--device", 0, true},   {"--verbose", 'v', false}, {"--version", 0, false}};

constexpr int max_count = 1024;                 // of pictures a batch and of threads: more is a slip of the finger
constexpr std::size_t progress_pictures = 200;  // shorter work needs no progress line
constexpr std::chrono::milliseconds progress_interval(200);

struct Options {
    std::vector<std::string> images;
    std::string engine, output, sheet;  // empty: not given
    Format format;
    bool force, verbose;
    int batch, threads, device;  // the first two 0: not given
};

bool is_sheet_name(const std::string& path) {
    const auto suffix = robustscanner::lowered(path.substr(std::min(path.find_last_of('.'), path.size())));
    return suffix == ".png" || suffix == ".jpg" || suffix == ".jpeg" || suffix == ".webp";
}

Options parse(const Arguments& given) {
    Options options{given.rest(),
                    given.text("--engine", ""),
                    given.text("--output", ""),
                    given.text("--sheet", ""),
                    given.has("--json")  ? Format::json
                    : given.has("--csv") ? Format::csv
                                         : Format::tsv,
                    given.has("--force"),
                    given.has("--verbose"),
                    given.number("--batch", 0, 1, max_count),
                    given.number("--threads", 0, 1, max_count),
                    given.number("--device", 0, INT_MIN, INT_MAX)};
    if (options.images.empty()) throw UsageError("the following arguments are required: IMAGE");
    if (given.has("--json") && given.has("--csv")) throw UsageError("argument --csv: not allowed with argument --json");
    if (given.has("--sheet") && !is_sheet_name(options.sheet)) {
        throw UsageError("argument --sheet: '" + options.sheet + "' ends neither in .png nor in .jpg, .jpeg or .webp");
    }
    if (!options.sheet.empty() && options.sheet == options.output) {
        throw UsageError("--output and --sheet name the same file");
    }
    return options;
}

struct Pictures {
    std::vector<std::string> paths;
    bool clean = true;  // every argument stood for some
};

// All pictures in order; arguments that stand for none are reported.
Pictures collect(const std::vector<std::string>& arguments) {
    Pictures pictures;
    for (const auto& argument : arguments) {
        try {
            const auto found = argument == "-" ? read_list() : find_pictures(argument);
            pictures.paths.insert(pictures.paths.end(), found.begin(), found.end());
        } catch (const ImageError& error) {
            report(error.what());
            pictures.clean = false;
        }
    }
    return pictures;
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

Recognizer open(const Options& options) {
    robustscanner::SessionOptions session;
    if (options.threads) session.threads = options.threads;
    session.gpu.device = options.device;
    const auto engine = options.engine.empty() ? robustscanner::default_engine() : options.engine;
    return Recognizer(engine, session, options.batch ? options.batch : robustscanner::default_batch);
}

// Reads, writes and reports; returns the number of bad pictures. Cells are kept only for a sheet.
std::size_t read_all(const Recognizer& recognizer, const std::vector<std::string>& paths, Output& output,
                     const Options& options, std::vector<Cell>& cells) {
    Progress progress(paths.size(), options);
    std::size_t bad = 0;
    output.write(header(options.format));
    const std::vector<robustscanner::Source> sources(paths.begin(), paths.end());
    recognizer.read_each(sources, [&](std::size_t index, robustscanner::Outcome outcome) {
        check_interrupt();
        if (const auto* error = std::get_if<ImageError>(&outcome)) {
            ++bad;
            progress.clear();
            report(error->what());
        } else {
            output.write(line(options.format, paths[index], std::get<Reading>(outcome)));
        }
        if (!options.sheet.empty()) cells.push_back({paths[index], std::move(outcome)});
        progress.show(index + 1);
    });
    progress.clear();
    return bad;
}

void check_sheet(const Options& options, std::size_t count) {
    check_output(options.sheet, options.force);
    if (count > max_cells) {
        throw OutputError(options.sheet + ": " + std::to_string(count) + " pictures, but a sheet holds " +
                          std::to_string(max_cells) + "; give fewer at once");
    }
}

void save_sheet(const std::vector<Cell>& cells, const Options& options) {
    const auto suffix = options.sheet.substr(options.sheet.find_last_of('.'));
    Output output(options.sheet, options.force);
    output.write(draw_sheet(cells, suffix));
    output.finish();
}

int recognize(const Options& options) {
    const auto pictures = collect(options.images);
    const auto count = pictures.paths.size();
    if (!count && pictures.clean) throw ImageError("standard input: lists no pictures; give one path a line");
    if (!count) return 1;
    if (!options.sheet.empty()) check_sheet(options, count);
    const auto started = Clock::now();
    const auto output =
        options.output.empty() ? std::make_unique<Output>() : std::make_unique<Output>(options.output, options.force);
    const auto recognizer = open(options);
    if (options.verbose) std::fprintf(stderr, "%s\n", recognizer.description().c_str());
    std::vector<Cell> cells;
    const auto bad = read_all(recognizer, pictures.paths, *output, options, cells);
    if (!options.sheet.empty()) save_sheet(cells, options);
    output->finish();
    const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
    if (options.verbose) std::fprintf(stderr, "%zu pictures in %.2f s\n", count, seconds);
    if (bad) std::fprintf(stderr, "%zu of %zu pictures could not be read\n", bad, count);
    return pictures.clean && !bad ? 0 : 1;
}

int run(int count, const char* const* texts) {
    const Arguments given(count, texts, known);
    if (given.has("--help") || given.has("--version")) {
        Output output;
        output.write(given.has("--help") ? std::string(usage) + help : "robustscanner " ROBUSTSCANNER_VERSION "\n");
        output.finish();
        return 0;
    }
    return recognize(parse(given));
}

}  // namespace
}  // namespace programs

int main(int count, char** texts) {
    return programs::exit_status(std::string(programs::usage) + "recognize: ",
                                 [&] { return programs::run(count, texts); });
}
