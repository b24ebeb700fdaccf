#include "program.hpp"

#include <clocale>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <new>
#include <opencv2/core/utils/logger.hpp>

#include "arguments.hpp"
#include "robustscanner/errors.hpp"
#include "table.hpp"

namespace programs {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void prepare() {
    // A bad file is our error, not OpenCV's line on stderr, where version 4 also writes without its logger.
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    std::cerr.rdbuf(nullptr);
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = 1; };  // without SA_RESTART: a read that waits comes back
    sigaction(SIGINT, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);        // writing to a closed pipe becomes an error
    std::setlocale(LC_CTYPE, "C.UTF-8");  // of file names, whatever the user's
}

}  // namespace

void check_interrupt() {
    if (interrupted) throw Interrupted();
}

void report(const std::string& error) {
    const auto line = "error: " + as_utf8(on_one_line(error)) + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);  // it may hold a NUL
}

int exit_status(const std::string& help, const std::function<int()>& work) {
    prepare();
    try {
        return work();
    } catch (const UsageError& error) {
        std::fprintf(stderr, "%s%s\n", error.what(), help.substr(0, help.find('\n')).c_str());
        return 2;
    } catch (const robustscanner::Error& error) {
        report(error.what());
    } catch (const Interrupted&) {
        return 130;  // as shells report Ctrl-C
    } catch (const ClosedPipe&) {
    } catch (const std::bad_alloc&) {
        report("out of memory; give fewer pictures at once with --batch, or smaller ones");
    }
    return 1;
}

}  // namespace programs
