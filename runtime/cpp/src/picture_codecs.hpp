// The decoder of picture files: OpenCV's imgcodecs, or PPM alone where the library is built without it.
#pragma once

#include "picture_header.hpp"
#include "robustscanner/errors.hpp"
#include "robustscanner/preprocess.hpp"

namespace robustscanner {

inline constexpr const char* damaged = "damaged; copy or download it again";
inline constexpr const char* truncated = "truncated; copy or download it again";
inline constexpr const char* unreadable =
    "not a picture, truncated, or of a kind that OpenCV lacks; convert it to PNG or JPEG";

ImageError too_large();

// Decodes a file that was looked at and is of this kind. Throws ImageError.
Image decode_pixels(const FileView& file, PictureKind kind);

}  // namespace robustscanner
