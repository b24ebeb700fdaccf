// Reads files whole, or piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

namespace robustscanner {

// What a system call that failed says: `code().value()` is the errno.
using FileError = std::system_error;

// Like Python's `str(pathlib.Path(path))`: no doubled or trailing slashes, no "." in between.
std::string tidy(const std::string& path);

// Whether a named pipe stands there.
bool is_pipe(const std::string& path);

// "No such file or directory" and the like.
std::string reason(const std::error_code& code);

// Gives at most `limit_bytes` of a file, in pieces. Throws FileError; also when a signal came, with EINTR.
void read_pieces(const std::string& path, std::size_t limit_bytes,
                 const std::function<void(const std::uint8_t*, std::size_t)>& take);

// At most `limit_bytes` of a file: the path may be an endless device. Throws FileError.
std::vector<std::uint8_t> read_bytes(const std::string& path, std::size_t limit_bytes);

// SHA-256 of a file, hexadecimal. Throws FileError.
std::string file_sha256(const std::string& path);

}  // namespace robustscanner
