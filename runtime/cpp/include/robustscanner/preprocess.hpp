// Picture to canvas. Normalising happens inside the graph, so there is nothing to disagree on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "robustscanner/export.h"
#include "robustscanner/spec.hpp"

namespace robustscanner {

inline constexpr std::int64_t max_pixels = std::int64_t{1} << 26;  // far beyond a word crop, far below a bomb
inline constexpr std::size_t max_file_mib = 256;

enum class Channels { rgb, bgr, grey };  // bgr: what cv::imread and most cameras give

// Pixels that someone else owns, 8 bits a channel.
struct ImageView {
    const std::uint8_t* pixels = nullptr;
    int height = 0, width = 0;
    Channels channels = Channels::rgb;
    std::size_t row_bytes = 0;  // from one row to the next; 0: rows follow one another without a gap
};

// A decoded picture, RGB [height, width, 3].
struct Image {
    int height = 0, width = 0;
    std::vector<std::uint8_t> pixels;

    ImageView view() const { return {pixels.data(), height, width}; }
};

// What the graph takes. Rows from `valid_width.size()` on are spare.
struct Canvases {
    int width_px = 0;                       // of all of them
    std::vector<std::uint8_t> pixels;       // (N, height, width, 3) RGB
    std::vector<std::int32_t> valid_width;  // (N,) pixels of each canvas that hold the word

    std::size_t count() const { return valid_width.size(); }
};

// Reads a picture file. The path is raw bytes, as from the command line.
// Throws ImageError: missing, empty, not a picture, truncated, or over `max_pixels` or `max_file_mib`.
ROBUSTSCANNER_EXPORT Image load_image(const std::string& path);

// Decodes a picture file in memory. EXIF rotation is applied (not to pictures with transparency), transparency is laid
// over white as viewers do, 16 bits become 8, grey and CMYK become RGB. Throws ImageError as `load_image` does.
ROBUSTSCANNER_EXPORT Image decode_image(const std::uint8_t* data, std::size_t size_bytes);

// Width in pixels that a picture gets on the canvas: ratio kept, rounded half to even, within the canvas.
// Source: PaddleOCR's resize for SAR and RobustScanner, or MMOCR's, in which the ratio is rounded elsewhere.
ROBUSTSCANNER_EXPORT int fitted_width(int height, int width, const InputSpec& spec);

// Resizes a picture into a canvas [height, width, 3], blackens the rest, and returns the valid width in pixels.
// The canvas has the spec's full width; what the word needs of it is `spec.canvas_width` of what is returned.
// Throws ImageError when there is no picture, or one of another kind.
ROBUSTSCANNER_EXPORT int draw_canvas(const ImageView& image, std::uint8_t* canvas, const InputSpec& spec);

// Canvas width in pixels to the rows that share it, by their valid widths: no text depends on its companions.
ROBUSTSCANNER_EXPORT std::map<int, std::vector<std::size_t>> same_width(const std::vector<std::int32_t>& valid_width,
                                                                        const InputSpec& spec);

// Some rows of canvases, cut to `width_px`.
ROBUSTSCANNER_EXPORT Canvases cut(const Canvases& canvases, const std::vector<std::size_t>& rows, int width_px,
                                  const InputSpec& spec);

// Bytes of one canvas of full width.
ROBUSTSCANNER_EXPORT std::size_t canvas_bytes(const InputSpec& spec);

}  // namespace robustscanner
