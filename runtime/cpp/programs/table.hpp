// A reading as a line: tab-separated, JSON Lines or CSV.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "robustscanner/charset.hpp"
#include "robustscanner/letters.hpp"

namespace programs {

enum class Format { tsv, json, csv };

using Letters = std::optional<std::vector<robustscanner::Letter>>;  // empty: nobody asked for them

// What comes before the first line; nothing but for CSV.
std::string header(Format format, bool letters = false);

// One line, its end included.
std::string line(Format format, const std::string& path, const robustscanner::Reading& reading,
                 const Letters& letters = {});

// Tabs and line ends as \t, \n and \r, so that one error or reading is one line.
std::string on_one_line(const std::string& text);

// UTF-8; bytes that are none as \udc80 … \udcff.
std::string as_utf8(const std::string& text);

}  // namespace programs
