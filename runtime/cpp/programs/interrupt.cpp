#include "interrupt.hpp"

#include <csignal>

namespace programs {
namespace {

volatile std::sig_atomic_t came = 0;

void note(int) { came = 1; }

}  // namespace

void catch_signals() {
    struct sigaction action {};
    action.sa_handler = note;  // without SA_RESTART: a read that waits comes back
    sigaction(SIGINT, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

void check_interrupt() {
    if (came) throw Interrupted();
}

}  // namespace programs
