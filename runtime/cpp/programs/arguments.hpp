// A command line, as getopt_long(3) reads it.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace programs {

// Wrong usage; without a text where getopt_long has said already what is wrong.
class UsageError : public std::runtime_error {
   public:
    explicit UsageError(const std::string& error = "") : std::runtime_error(error.empty() ? "" : error + "\n") {}
};

struct Option {
    const char* name;  // of the long form, without dashes
    char letter;       // of the short form; 0: none
    bool takes_value;
    std::function<void(const char* value)> take;
};

// Hands options to what takes them; returns all other arguments: the pictures.
// Throws UsageError: no picture, or an option that is unknown or abbreviated, lacks its value, or has one too many.
std::vector<std::string> read_arguments(int count, char* const* texts, const std::vector<Option>& known);

// Ends the program with this on standard output: the answer to --help.
[[noreturn]] void end_with(const char* text);

// A whole number within bounds; throws UsageError.
int number(const std::string& text, int least, int most);

}  // namespace programs
