// What every program of the kit makes of an error: one line on stderr, and an exit status.
#pragma once

#include <functional>
#include <string>

namespace programs {

// Writes `error: …`.
void report(const std::string& error);

// Runs a program's work; returns its exit status: what the work says, 1 behind `error: …`, 2 behind how to use it, and
// 130 after Ctrl-C.
int exit_status(const std::string& usage, const std::function<int()>& work);

}  // namespace programs
