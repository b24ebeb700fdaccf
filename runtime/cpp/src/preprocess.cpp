#include "robustscanner/preprocess.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <new>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string_view>

#include "file.hpp"
#include "picture_header.hpp"
#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

constexpr const char* truncated = "truncated; copy or download it again";
constexpr const char* damaged = "damaged; copy or download it again";
constexpr const char* unreadable =
    "not a picture, truncated, or of a kind that OpenCV lacks; convert it to PNG or JPEG";

ImageError too_large() {
    return ImageError("over " + std::to_string(max_pixels / 1'000'000) + " megapixels; crop the word out of it");
}

std::string_view text_of(const FileView& file) { return {reinterpret_cast<const char*>(file.data()), file.size()}; }

// As in ISO 3309, which PNG uses.
std::uint32_t crc32(const FileView& file, std::size_t start, std::size_t end) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> values{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            auto value = byte;
            for (int bit = 0; bit < 8; ++bit) value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
            values[byte] = value;
        }
        return values;
    }();
    std::uint32_t sum = 0xffffffffu;
    for (auto at = start; at < end; ++at) sum = table[(sum ^ file[at]) & 255] ^ sum >> 8;
    return ~sum;
}

// Checksums of the chunks that matter, and the end: what libpng would complain about on stderr.
void check_png(const FileView& file) {
    std::size_t start = 8;
    while (start + 12 <= file.size()) {  // length, name, content, checksum
        const std::size_t end = start + 8 + file.big(start, 4);
        if (end + 4 > file.size()) break;
        const bool matters = file[start + 4] >= 'A' && file[start + 4] <= 'Z';
        if (matters && crc32(file, start + 4, end) != file.big(end, 4)) throw ImageError(damaged);
        if (file.has(start + 4, "IEND")) return;
        start = end + 4;
    }
    throw ImageError(truncated);
}

bool jpeg_ends(const FileView& file) {
    const auto text = text_of(file);
    const auto scan = text.rfind("\xff\xda");
    return text.find("\xff\xd9", scan == text.npos ? 0 : scan) != text.npos;
}

// Finds what OpenCV may let pass: before version 5, a truncated JPEG is half a picture above half a grey field.
PictureKind check_file(const FileView& file) {
    if (!file.size()) throw ImageError("empty file; copy or download it again");
    if (file.size() > max_file_mib << 20) {
        throw ImageError("larger than " + std::to_string(max_file_mib) + " MiB; crop the word out of it");
    }
    const auto kind = kind_of(file);
    if (!kind) throw ImageError(unreadable);
    if (*kind == PictureKind::jpeg && !jpeg_ends(file)) throw ImageError(truncated);
    if (claimed_pixels(file, *kind).value_or(0) > static_cast<std::uint64_t>(max_pixels)) throw too_large();
    if (*kind == PictureKind::png) check_png(file);
    return *kind;
}

bool mentions_pixels(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text.find("pixels") != text.npos;  // CV_IO_MAX_IMAGE_PIXELS
}

// BGR as uint8, or in IMREAD_UNCHANGED whatever the file holds.
cv::Mat decode(const FileView& file, int mode) {
    // OpenCV takes it as a matrix that could be written to, but does not.
    const cv::Mat data(1, static_cast<int>(file.size()), CV_8U, const_cast<std::uint8_t*>(file.data()));
    cv::Mat image;
    try {
        image = cv::imdecode(data, mode);
    } catch (const cv::Exception& error) {
        if (mentions_pixels(error.what())) throw too_large();
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
        return colour_type == 4 || colour_type == 6 || text_of(file).substr(0, 4096).find("tRNS") != std::string::npos;
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

// BGRA of 8 or 16 bits over white to BGR; an empty picture when there is no alpha channel.
cv::Mat flatten_alpha(const cv::Mat& image) {
    if (image.type() == CV_8UC4) return over_white<std::uint8_t>(image);
    if (image.type() == CV_16UC4) return over_white<std::uint16_t>(image);
    return {};
}

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

Image load_image(const std::string& path) {
    const auto name = tidy(path);
    if (const auto null = name.find('\0'); null != name.npos) {  // a message ends there
        throw ImageError(name.substr(0, null) + "\\0…: embedded null byte; check the path");
    }
    try {
        const auto data = read_bytes(name, (max_file_mib << 20) + 1);
        return decode_image(data.data(), data.size());
    } catch (const ImageError& error) {
        throw ImageError(name + ": " + error.what());
    } catch (const FileError& error) {
        throw ImageError(name + ": " + reason(error.code()) + "; check the path and its permissions");
    }
}

Image decode_image(const std::uint8_t* data, std::size_t size_bytes) {
    const FileView file(data, data ? size_bytes : 0);
    const auto kind = check_file(file);
    cv::Mat picture = may_have_alpha(file, kind) ? flatten_alpha(decode(file, cv::IMREAD_UNCHANGED)) : cv::Mat();
    if (picture.empty()) {  // only this mode applies EXIF rotation and converts grey, CMYK and 16 bits
        picture = decode(file, cv::IMREAD_COLOR);
    }
    Image image{picture.rows, picture.cols, std::vector<std::uint8_t>(picture.total() * 3)};
    cv::Mat rgb(picture.rows, picture.cols, CV_8UC3, image.pixels.data());
    cv::cvtColor(picture, rgb, cv::COLOR_BGR2RGB);
    return image;
}

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

std::size_t canvas_bytes(const InputSpec& spec) {
    return static_cast<std::size_t>(spec.height_px) * static_cast<std::size_t>(spec.width_px) * 3;
}

}  // namespace robustscanner
