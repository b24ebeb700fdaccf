// A command line: options with and without a value, in any order with what they apply to.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace programs {

// Wrong usage.
class UsageError : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

struct OptionSpec {
    std::string name;  // "--output"
    char letter;       // 'o'; 0: none
    bool takes_value;
};

// What was given.
class Arguments {
   public:
    // Throws UsageError for an option that is unknown, or has no value, or one too many.
    Arguments(int count, const char* const* texts, const std::vector<OptionSpec>& known);

    const std::vector<std::string>& rest() const { return rest_; }
    bool has(const std::string& name) const { return given_.count(name) > 0; }
    std::string text(const std::string& name, const std::string& otherwise) const;

    // A whole number within bounds; throws UsageError.
    int number(const std::string& name, int otherwise, int least, int most) const;

   private:
    std::map<std::string, std::string> given_;
    std::vector<std::string> rest_;
};

}  // namespace programs
