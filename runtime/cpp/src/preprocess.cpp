#include "robustscanner/preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

cv::Mat matrix(const ImageView& image) {
    const int kind = image.channels == Channels::grey ? CV_8UC1 : CV_8UC3;
    const auto least = static_cast<std::size_t>(std::max(image.width, 0)) * static_cast<std::size_t>(CV_MAT_CN(kind));
    if (!image.pixels || image.height < 1 || image.width < 1 || (image.row_bytes && image.row_bytes < least)) {
        throw ImageError("picture of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                         " pixels, " + std::to_string(image.row_bytes) +
                         " bytes a row; expected 8 bits a channel, not empty");
    }
    const auto stride = image.row_bytes ? image.row_bytes : least;
    return {image.height, image.width, kind, const_cast<std::uint8_t*>(image.pixels), stride};
}

void to_rgb(cv::Mat& canvas, const cv::Mat& drawn, Channels channels) {
    if (channels == Channels::rgb) {
        drawn.copyTo(canvas);
    } else {
        cv::cvtColor(drawn, canvas, channels == Channels::bgr ? cv::COLOR_BGR2RGB : cv::COLOR_GRAY2RGB);
    }
}

}  // namespace

int fitted_width(int height, int width, const InputSpec& spec) {
    const double tall = spec.height_px, multiple = spec.width_multiple_px;
    const double ideal =
        std::ceil(spec.width_rule == "ratio" ? tall * (static_cast<double>(width) / height) : tall / height * width);
    const double rounded = std::nearbyint(ideal / multiple) * multiple;  // half to even
    return static_cast<int>(std::min<double>(spec.width_px, std::max<double>(spec.min_width_px, rounded)));
}

int draw_canvas(const ImageView& image, std::uint8_t* canvas, const InputSpec& spec) {
    const cv::Mat picture = matrix(image);
    const int valid = fitted_width(image.height, image.width, spec);
    const bool shrinks = image.height > spec.height_px || image.width > valid;
    const int mode = spec.resize == "area" && shrinks ? cv::INTER_AREA : cv::INTER_LINEAR;
    cv::Mat whole(spec.height_px, spec.width_px, CV_8UC3, canvas), drawn;
    try {
        cv::resize(picture, drawn, {valid, spec.height_px}, 0, 0, mode);
    } catch (const cv::Exception& error) {
        throw ImageError("a picture of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                         " pixels cannot be resized (" + first_line(error.err) + ")");
    }
    auto left = whole.colRange(0, valid);
    to_rgb(left, drawn, image.channels);
    whole.colRange(valid, spec.width_px).setTo(0);
    return valid;
}

std::map<int, std::vector<std::size_t>> same_width(const std::vector<std::int32_t>& valid_width,
                                                   const InputSpec& spec) {
    std::map<int, std::vector<std::size_t>> rows;
    for (std::size_t row = 0; row < valid_width.size(); ++row) {
        rows[spec.canvas_width(valid_width[row])].push_back(row);
    }
    return rows;
}

Canvases cut(const Canvases& canvases, const std::vector<std::size_t>& rows, int width_px, const InputSpec& spec) {
    const auto height = static_cast<std::size_t>(spec.height_px), kept = static_cast<std::size_t>(width_px) * 3,
               whole = static_cast<std::size_t>(canvases.width_px) * 3;
    Canvases part{width_px, {}, {}};
    part.pixels.reserve(rows.size() * height * kept);
    for (const auto row : rows) {
        part.valid_width.push_back(canvases.valid_width[row]);
        for (std::size_t line = row * height; line < (row + 1) * height; ++line) {
            const auto* pixels = &canvases.pixels[line * whole];
            part.pixels.insert(part.pixels.end(), pixels, pixels + kept);
        }
    }
    return part;
}

std::size_t canvas_bytes(const InputSpec& spec) {
    return static_cast<std::size_t>(spec.height_px) * static_cast<std::size_t>(spec.width_px) * 3;
}

}  // namespace robustscanner
