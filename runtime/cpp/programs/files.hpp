// Finds picture files: what a program's arguments stand for.
#pragma once

#include <string>
#include <vector>

namespace programs {

// A file stands for itself, a folder for the pictures directly in it, a pattern for the files it matches. A path that
// does not exist is passed on: reading it tells why, beside all other pictures that cannot be read.
// Throws ImageError: a folder without pictures, or a pattern that matches no file.
std::vector<std::string> find_pictures(const std::string& argument);

// Paths from standard input, one a line; empty lines are skipped. Throws Interrupted.
std::vector<std::string> read_list();

// Words of a list, one a line. Throws ConstraintError: it cannot be read.
std::vector<std::string> read_words(const std::string& path);

// Whether word_9 comes before word_10. Letters beyond ASCII need a locale with UTF-8, as patterns do.
bool naturally_before(const std::string& left, const std::string& right);

}  // namespace programs
