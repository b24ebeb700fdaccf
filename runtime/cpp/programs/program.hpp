// What every program of the kit makes of an error: one line on stderr, and an exit status.
#pragma once

#include <functional>
#include <string>

namespace programs {

// Ctrl-C or SIGTERM: work stops at the next file or batch, and what was half done is removed.
struct Interrupted {
    int signal;

    int exit_status() const { return 128 + signal; }  // as shells report signals
};

class ClosedPipe {};  // who read standard output has had enough, as in `… | head`

// Throws Interrupted when a signal came.
void check_interrupt();

// Writes `error: …`.
void report(const std::string& error);

// Runs a program's work; returns its exit status: what the work says, 1 after `error: …`, 2 after the usage, which is
// the first line of the help, and 130 or 143 after a signal, which is noted, and breaks off reading.
int exit_status(const std::string& help, const std::function<int()>& work);

}  // namespace programs
