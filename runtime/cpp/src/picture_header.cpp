#include "picture_header.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>

namespace robustscanner {
namespace {

using Pixels = std::optional<std::uint64_t>;

std::uint64_t product(std::uint32_t width, std::uint32_t height) { return std::uint64_t{width} * height; }

std::uint32_t magnitude(std::uint32_t value) { return value >> 31 ? 0u - value : value; }

// ITU T.81: the frame header is the first segment whose marker is C0 … CF, but for C4, C8 and CC.
Pixels jpeg_pixels(const FileView& file) {
    for (auto at = next_jpeg_marker(file, 0); at + 9 < file.size();) {
        const auto marker = file[at + 1];
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) {
            return product(file.big(at + 7, 2), file.big(at + 5, 2));
        }
        at = next_jpeg_marker(file, at + 2 + file.big(at + 2, 2));
    }
    return {};
}

// ITU-T T.800, A.5.1: the codestream begins with the markers SOC and SIZ, its sizes reach from its origin.
Pixels jpeg2000_pixels(const FileView& file) {
    const auto at = file.text().find("\xff\x4f\xff\x51");
    if (at == std::string_view::npos) return {};
    return product(file.big(at + 8, 4), file.big(at + 12, 4));
}

Pixels webp_pixels(const FileView& file) {
    if (file.has(12, "VP8X")) return product(file.little(24, 3) + 1, file.little(27, 3) + 1);
    if (file.has(12, "VP8L")) {
        const auto bits = file.little(21, 4);
        return product((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1);
    }
    return product(file.little(26, 2) & 0x3fff, file.little(28, 2) & 0x3fff);
}

Pixels bmp_pixels(const FileView& file) {
    if (file.little(14, 4) == 12) return product(file.little(18, 2), file.little(20, 2));
    return product(magnitude(file.little(18, 4)), magnitude(file.little(22, 4)));
}

Pixels tiff_pixels(const FileView& file) {
    const bool big = file[0] == 'M';
    const auto number = [&](std::size_t at, int count) { return big ? file.big(at, count) : file.little(at, count); };
    const std::size_t folder = number(4, 4);
    std::uint32_t sides[2] = {0, 0};  // tags 256 and 257; libtiff takes the first of several, this the largest
    for (std::size_t entry = 0; entry < number(folder, 2); ++entry) {
        const auto at = folder + 2 + 12 * entry;
        if (at >= file.size()) return {};
        const auto tag = number(at, 2), type = number(at + 2, 2);
        if (tag != 256 && tag != 257) continue;
        if (type != 3 && type != 4) return {};  // neither SHORT nor LONG: libtiff would look elsewhere
        sides[tag - 256] = std::max(sides[tag - 256], number(at + 8, type == 3 ? 2 : 4));
    }
    return product(sides[0], sides[1]);
}

Pixels pnm_pixels(const FileView& file) {
    std::size_t at = 2;
    const auto width = pnm_number(file, at), height = pnm_number(file, at);
    return product(width, height);
}

}  // namespace

std::uint32_t FileView::big(std::size_t at, int count) const {
    std::uint32_t value = 0;
    for (int index = 0; index < count; ++index) value = value << 8 | (*this)[at + static_cast<std::size_t>(index)];
    return value;
}

std::uint32_t FileView::little(std::size_t at, int count) const {
    std::uint32_t value = 0;
    for (int index = count - 1; index >= 0; --index) value = value << 8 | (*this)[at + static_cast<std::size_t>(index)];
    return value;
}

bool FileView::has(std::size_t at, const char* text) const {
    const auto length = std::strlen(text);
    return at + length <= size_bytes_ && std::memcmp(data_ + at, text, length) == 0;
}

std::uint32_t pnm_number(const FileView& file, std::size_t& at) {
    for (bool comment = false; at < file.size(); ++at) {
        comment = file[at] == '#' || (comment && file[at] != '\n' && file[at] != '\r');
        if (!comment && !std::isspace(static_cast<int>(file[at]))) break;
    }
    std::uint64_t number = 0;
    for (; file[at] >= '0' && file[at] <= '9'; ++at) {
        number = std::min<std::uint64_t>(number * 10 + (file[at] - '0'), UINT32_MAX);
    }
    ++at;  // whatever it is, as OpenCV does
    return static_cast<std::uint32_t>(number);
}

// ITU T.81, B.1.1.2: 0xFF before anything but 0 (then it is a byte of the picture) or 0xFF (filling) is a marker. The
// restarts within a scan, TEM and SOI stand alone; all others have a length and content, but for the end.
std::size_t next_jpeg_marker(const FileView& file, std::size_t at) {
    for (; at + 1 < file.size(); ++at) {
        if (file[at] != 0xff) continue;
        const auto code = file[at + 1];
        if (code > 0x01 && code != 0xff && !(code >= 0xd0 && code <= 0xd8)) return at;
    }
    return file.size();
}

std::optional<PictureKind> kind_of(const FileView& file) {
    if (file.has(0, "\xff\xd8\xff")) return PictureKind::jpeg;
    if (file.has(0, "\x89PNG\r\n\x1a\n")) return PictureKind::png;
    if (file.has(0, "RIFF") && file.has(8, "WEBP")) return PictureKind::webp;
    if (file.has(0, "BM")) return PictureKind::bmp;
    if (file.has(0, "GIF8")) return PictureKind::gif;
    if ((file.has(0, "II") && file.little(2, 2) == 42) || (file.has(0, "MM") && file.big(2, 2) == 42)) {
        return PictureKind::tiff;
    }
    if (file.has(4, "jP  \r\n\x87\n") || file.has(0, "\xff\x4f\xff\x51")) return PictureKind::jpeg2000;
    if (file[0] == 'P' && file[1] >= '1' && file[1] <= '6') return PictureKind::pnm;
    return {};
}

std::optional<std::uint64_t> claimed_pixels(const FileView& file, PictureKind kind) {
    switch (kind) {
        case PictureKind::jpeg:
            return jpeg_pixels(file);
        case PictureKind::png:
            return product(file.big(16, 4), file.big(20, 4));
        case PictureKind::webp:
            return webp_pixels(file);
        case PictureKind::bmp:
            return bmp_pixels(file);
        case PictureKind::gif:
            return product(file.little(6, 2), file.little(8, 2));
        case PictureKind::tiff:
            return tiff_pixels(file);
        case PictureKind::pnm:
            return pnm_pixels(file);
        case PictureKind::jpeg2000:
            return jpeg2000_pixels(file);
    }
    return {};
}

}  // namespace robustscanner
