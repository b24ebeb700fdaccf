// What a picture file says of itself in its first bytes. OpenCV's own limit on sizes is fixed when it is loaded, before
// anyone could set ours; so sizes are looked at here, before anything is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace robustscanner {

enum class PictureKind { jpeg, png, webp, bmp, gif, tiff, pnm, jpeg2000 };

// Bytes of a file, which reading beyond the end gives as zeros.
class FileView {
   public:
    FileView(const std::uint8_t* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

    const std::uint8_t* data() const { return data_; }
    std::size_t size() const { return size_bytes_; }
    std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_bytes_}; }
    std::uint32_t operator[](std::size_t at) const { return at < size_bytes_ ? data_[at] : 0; }
    std::uint32_t big(std::size_t at, int count) const;     // endian, of `count` bytes
    std::uint32_t little(std::size_t at, int count) const;  // likewise
    bool has(std::size_t at, const char* text) const;       // whether a text stands here

   private:
    const std::uint8_t* data_;
    std::size_t size_bytes_;
};

// Nothing for kinds that this library does not read.
std::optional<PictureKind> kind_of(const FileView& file);

// The next number in the header of a portable anymap, at most what 32 bits hold; `at` comes to stand after it and
// the character that ended it.
std::uint32_t pnm_number(const FileView& file, std::size_t& at);

// Where the next JPEG marker stands that has a length and content, or is the end; the size of the file if none does.
std::size_t next_jpeg_marker(const FileView& file, std::size_t at);

// Width times height as the header claims; nothing where it cannot be found.
std::optional<std::uint64_t> claimed_pixels(const FileView& file, PictureKind kind);

}  // namespace robustscanner
