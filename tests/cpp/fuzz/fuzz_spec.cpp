// Any bytes as the spec of a model: what passes its checks decodes any ids and draws any picture.
#include "robustscanner/charset.hpp"
#include "robustscanner/errors.hpp"
#include "robustscanner/preprocess.hpp"

namespace {

constexpr std::size_t most_canvas_bytes = 1 << 20;  // larger ones are drawn alike, but slowly

void use(const robustscanner::ModelSpec& spec) {
    const auto last = static_cast<std::int32_t>(spec.charset.tokens.size()) - 1;
    const std::int32_t ids[] = {0, last / 2, last};
    const float scores[] = {1, 0.5f, 0};
    robustscanner::Charset(spec.charset).decode(ids, scores, 3);
    if (robustscanner::canvas_bytes(spec.input) > most_canvas_bytes) return;
    std::vector<std::uint8_t> canvas(robustscanner::canvas_bytes(spec.input));
    static const std::vector<std::uint8_t> pixels(7 * 90 * 3, 200);
    for (const int width : {1, 7, 90}) {
        const int valid = robustscanner::draw_canvas({pixels.data(), 7, width}, canvas.data(), spec.input);
        if (valid < spec.input.min_width_px || valid > spec.input.width_px) __builtin_trap();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    try {
        use(robustscanner::ModelSpec::from_json({data, data + size_bytes}));
    } catch (const robustscanner::SpecError&) {
    }
    return 0;
}
