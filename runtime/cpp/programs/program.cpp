#include "program.hpp"

#include <unistd.h>

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

// Again and again: a read that begins just after the signal came would wait on.
void wake(int) { alarm(1); }

void note(int signal) {
    interrupted = signal;
    wake(signal);
}

void on(int signal, void (*handle)(int)) {
    struct sigaction action {};
    action.sa_handler = handle;  // without SA_RESTART: a read that waits comes back
    sigaction(signal, &action, nullptr);
}

void prepare() {
    // A bad file is our error, not OpenCV's line on stderr, where version 4 also writes without its logger.
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    std::cerr.rdbuf(nullptr);
    on(SIGINT, note);
    on(SIGTERM, note);
    on(SIGALRM, wake);
    std::signal(SIGPIPE, SIG_IGN);        // writing to a closed pipe becomes an error
    std::setlocale(LC_CTYPE, "C.UTF-8");  // of file names, whatever the user's
}

}  // namespace

void check_interrupt() {
    if (!interrupted) return;
    alarm(0);  // what is written now shall not be broken off
    throw Interrupted{interrupted};
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
    } catch (const Interrupted& signal) {
        return signal.exit_status();
    } catch (const ClosedPipe&) {
    } catch (const std::bad_alloc&) {
        report("out of memory; give fewer pictures at once with --batch, or smaller ones");
    }
    return 1;
}

}  // namespace programs
