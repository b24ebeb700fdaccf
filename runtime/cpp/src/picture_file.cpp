// Picture files: what is looked at before and beside their decoder.
#include <array>

#include "file.hpp"
#include "picture_codecs.hpp"
#include "robustscanner/errors.hpp"
#include "robustscanner/preprocess.hpp"

namespace robustscanner {
namespace {

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

// Whether the picture's end is in the file. Whatever follows it (a film, another picture) is not looked at.
bool jpeg_ends(const FileView& file) {
    auto at = next_jpeg_marker(file, 0);
    while (at < file.size() && file[at + 1] != 0xd9) at = next_jpeg_marker(file, at + 2 + file.big(at + 2, 2));
    return at < file.size();
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
    const auto pixels = claimed_pixels(file, *kind);
    if (!pixels) throw ImageError(unreadable);
    if (*pixels > static_cast<std::uint64_t>(max_pixels)) throw too_large();
    if (*kind == PictureKind::png) check_png(file);
    return *kind;
}

}  // namespace

ImageError too_large() {
    return ImageError("over " + std::to_string(max_pixels / 1'000'000) + " megapixels; crop the word out of it");
}

Image load_image(const std::string& path) {
    const auto name = tidy(path);
    if (const auto null = name.find('\0'); null != name.npos) {  // a message ends there
        throw ImageError(name.substr(0, null) + "\\0…: embedded null byte; check the path");
    }
    try {
        const auto data = read_bytes(name, (max_file_mib << 20) + 1);
        if (data.empty() && is_pipe(name)) throw ImageError("a pipe into which nobody writes; give a file");
        return decode_image(data.data(), data.size());
    } catch (const ImageError& error) {
        throw ImageError(name + ": " + error.what());
    } catch (const FileError& error) {
        throw ImageError(name + ": " + reason(error.code()) + "; check the path and its permissions");
    }
}

Image decode_image(const std::uint8_t* data, std::size_t size_bytes) {
    const FileView file(data, data ? size_bytes : 0);
    return decode_pixels(file, check_file(file));
}

}  // namespace robustscanner
