// Any bytes as a picture file: drawn or refused.
#include "robustscanner/errors.hpp"
#include "robustscanner/preprocess.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    static const robustscanner::InputSpec spec;
    static std::vector<std::uint8_t> canvas(robustscanner::canvas_bytes(spec));
    try {
        robustscanner::draw_canvas(robustscanner::decode_image(data, size_bytes).view(), canvas.data(), spec);
    } catch (const robustscanner::ImageError&) {
    }
    return 0;
}
