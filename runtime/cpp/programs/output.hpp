// Writes to standard output, or to a file beside its place that is renamed into it: complete or not at all.
#pragma once

#include <cstdio>
#include <string>

#include "robustscanner/errors.hpp"

namespace programs {

// A file that cannot be written, or must not be.
class OutputError : public robustscanner::Error {
   public:
    using Error::Error;
};

// Looks, before long work starts, whether a file may be written.
// Throws OutputError: it exists and `force` is not given, it is no regular file, or its folder is missing.
void check_output(const std::string& path, bool force);

// A stream of bytes; nothing is lost unless `finish` throws.
class Output {
   public:
    Output(const std::string& path, bool force);  // no path: standard output; throws as `check_output` does
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
    ~Output();  // a file that was not finished is removed

    void write(const std::string& text);  // throws OutputError, ClosedPipe or Interrupted
    void finish();                        // likewise

   private:
    [[noreturn]] void fail() const;

    std::string path_, temporary_;
    std::FILE* file_ = stdout;
};

}  // namespace programs
