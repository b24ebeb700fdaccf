// Stands in where the library is built without OpenCV's imgcodecs and the many libraries that it needs.
#include <algorithm>

#include "picture_codecs.hpp"

namespace robustscanner {

Image decode_pixels(const FileView& file, PictureKind) {
    std::size_t at = 2;
    const auto width = pnm_number(file, at), height = pnm_number(file, at), brightest = pnm_number(file, at);
    if (!file.has(0, "P6") || brightest != 255 || !width || !height) {
        throw ImageError(
            "this library was built without picture files other than PPM (P6, 8 bits); convert it, give "
            "pixels, or configure it with ROBUSTSCANNER_IMGCODECS=ON");
    }
    const std::size_t size_bytes = std::size_t{width} * height * 3;
    if (at > file.size() || file.size() - at < size_bytes) throw ImageError(truncated);
    const auto* pixels = file.data() + at;
    return {static_cast<int>(height), static_cast<int>(width), {pixels, pixels + size_bytes}};
}

}  // namespace robustscanner
