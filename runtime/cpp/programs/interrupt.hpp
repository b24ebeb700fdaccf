// Ctrl-C: work stops at the next file or batch, and what was half done is removed.
#pragma once

#include <exception>

namespace programs {

class Interrupted : public std::exception {};

inline constexpr int interrupted_status = 130;  // as shells report Ctrl-C

// From now on, a signal is only noted, and breaks off reading. Writing to a closed pipe becomes an error.
void catch_signals();

// Throws Interrupted when a signal came.
void check_interrupt();

}  // namespace programs
