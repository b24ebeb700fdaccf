// Patterns of file names as Python's glob knows them: * ? [abc] [!abc], and ** for any number of folders.
#pragma once

#include <string>
#include <vector>

namespace programs {

bool is_pattern(const std::string& text);

// All paths that match, in no order.
std::vector<std::string> matches(const std::string& pattern);

// Whether one name, without slashes, matches one piece of a pattern.
bool name_matches(const std::string& name, const std::string& pattern);

}  // namespace programs
