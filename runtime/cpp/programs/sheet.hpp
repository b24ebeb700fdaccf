// Draws a contact sheet: what was read, below each picture.
#pragma once

#include <string>
#include <vector>

#include "robustscanner/recognizer.hpp"

namespace programs {

inline constexpr std::size_t max_cells = 1000;  // larger sheets open nowhere

// One picture of the sheet.
struct Cell {
    std::string path;
    robustscanner::Outcome outcome;
    std::vector<robustscanner::Letter> letters;  // shown where they stand
};

// A sheet of all cells in order, as the bytes of a picture file; the suffix (.png, .jpg, .webp) says of which kind.
// Throws ImageError: a picture that was read has been deleted since.
std::string draw_sheet(const std::vector<Cell>& cells, const std::string& suffix);

}  // namespace programs
