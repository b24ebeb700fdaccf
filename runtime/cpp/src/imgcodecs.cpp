// Decodes with OpenCV: the only file that uses its imgcodecs.
#include <limits>
#include <new>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "picture_codecs.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

// BGR as uint8, or in IMREAD_UNCHANGED whatever the file holds.
cv::Mat decode(const FileView& file, int mode) {
    // OpenCV takes it as a matrix that could be written to, but does not.
    const cv::Mat data(1, static_cast<int>(file.size()), CV_8U, const_cast<std::uint8_t*>(file.data()));
    cv::Mat image;
    try {
        image = cv::imdecode(data, mode);
    } catch (const cv::Exception& error) {
        if (lowered(error.what()).find("pixels") != std::string::npos) throw too_large();  // CV_IO_MAX_IMAGE_PIXELS
        throw ImageError(damaged);
    } catch (const std::bad_alloc&) {
        throw ImageError(damaged);
    }
    if (image.empty()) throw ImageError(unreadable);
    if (static_cast<std::int64_t>(image.total()) > max_pixels) throw too_large();
    return image;
}

// A cheap look that saves most files a second decode.
bool may_have_alpha(const FileView& file, PictureKind kind) {
    if (kind == PictureKind::jpeg || kind == PictureKind::bmp) return false;  // BMP's fourth byte is mostly padding
    if (kind == PictureKind::png) {
        const auto colour_type = file[25];
        return colour_type == 4 || colour_type == 6 || file.text().substr(0, 4096).find("tRNS") != std::string::npos;
    }
    return !file.has(8, "WEBPVP8 ");  // plain lossy WebP
}

template <typename Level>
cv::Mat over_white(const cv::Mat& image) {
    constexpr auto full = static_cast<float>(std::numeric_limits<Level>::max());
    constexpr auto to_byte = static_cast<float>(255.0 / std::numeric_limits<Level>::max());
    cv::Mat result(image.size(), CV_8UC3);
    for (int row = 0; row < image.rows; ++row) {
        const auto* from = image.ptr<Level>(row);
        auto* to = result.ptr<std::uint8_t>(row);
        for (int column = 0; column < image.cols; ++column, from += 4, to += 3) {
            const float alpha = static_cast<float>(from[3]) / full;
            for (int channel = 0; channel < 3; ++channel) {
                const float blended = static_cast<float>(from[channel]) * alpha + full * (1 - alpha);
                to[channel] = static_cast<std::uint8_t>(blended * to_byte + 0.5f);
            }
        }
    }
    return result;
}

bool is_opaque(const cv::Mat& image) {
    cv::Mat alpha;
    cv::extractChannel(image, alpha, 3);
    return cv::countNonZero(alpha != 255) == 0;
}

// BGRA of 8 or 16 bits over white to BGR; an empty picture when there is no alpha channel, or one that hides nothing.
cv::Mat flatten_alpha(const cv::Mat& image) {
    if (image.type() == CV_8UC4) return is_opaque(image) ? cv::Mat() : over_white<std::uint8_t>(image);
    if (image.type() == CV_16UC4) return over_white<std::uint16_t>(image);
    return {};
}

}  // namespace

Image decode_pixels(const FileView& file, PictureKind kind) {
    cv::Mat picture = may_have_alpha(file, kind) ? flatten_alpha(decode(file, cv::IMREAD_UNCHANGED)) : cv::Mat();
    if (picture.empty()) {  // only this mode applies EXIF rotation and converts grey, CMYK and 16 bits
        picture = decode(file, cv::IMREAD_COLOR);
    }
    Image image{picture.rows, picture.cols, std::vector<std::uint8_t>(picture.total() * 3)};
    cv::Mat rgb(picture.rows, picture.cols, CV_8UC3, image.pixels.data());
    cv::cvtColor(picture, rgb, cv::COLOR_BGR2RGB);
    return image;
}

}  // namespace robustscanner
