#include "program.hpp"

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <new>
#include <opencv2/core/utils/logger.hpp>

#include "arguments.hpp"
#include "file.hpp"
#include "interrupt.hpp"
#include "output.hpp"
#include "robustscanner/errors.hpp"
#include "table.hpp"

namespace programs {

void report(const std::string& error) {
    const auto line = "error: " + as_utf8(on_one_line(error)) + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);  // it may hold a NUL
}

int exit_status(const std::string& usage, const std::function<int()>& work) {
    // A bad file is our error, not OpenCV's line on stderr, where version 4 also writes without its logger.
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    std::cerr.rdbuf(nullptr);
    catch_signals();
    try {
        return work();
    } catch (const UsageError& error) {
        std::fprintf(stderr, "%serror: %s\n", usage.c_str(), error.what());
        return 2;
    } catch (const robustscanner::Error& error) {
        report(error.what());
    } catch (const Interrupted&) {
        return interrupted_status;
    } catch (const StdoutError& error) {
        // A closed pipe: the reader has had enough, as in `… | head`.
        if (error.code().value() != EPIPE) {
            report("standard output: " + robustscanner::reason(error.code()) + "; write to a file with -o");
        }
    } catch (const std::bad_alloc&) {
        report("out of memory; give fewer pictures at once with --batch, or smaller ones");
    }
    return 1;
}

}  // namespace programs
