// Writes to standard output, or to a file beside its place that is renamed into it: complete or not at all.
#pragma once

#include <string>
#include <system_error>

#include "robustscanner/errors.hpp"

namespace programs {

// A file that cannot be written, or must not be.
class OutputError : public robustscanner::Error {
   public:
    using Error::Error;
};

// Standard output that cannot be written; `code().value()` is the errno.
class StdoutError : public std::system_error {
   public:
    using std::system_error::system_error;
};

// Looks, before long work starts, whether a file may be written.
// Throws OutputError: it exists and `force` is not given, it is no regular file, or its folder is missing.
void check_output(const std::string& path, bool force);

// A stream of bytes; nothing is lost unless `finish` throws.
class Output {
   public:
    Output();                                     // standard output
    Output(const std::string& path, bool force);  // throws OutputError; see `check_output`
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
    ~Output();  // a file that was not finished is removed

    void write(const std::string& text);  // throws OutputError or StdoutError
    void finish();                        // likewise

   private:
    void flush();

    std::string path_, temporary_, waiting_;
    int descriptor_;
    bool by_line_;
};

}  // namespace programs
