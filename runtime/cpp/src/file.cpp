#include "file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "sha256.hpp"

namespace robustscanner {
namespace {

constexpr std::size_t piece_bytes = 1 << 16;

class Descriptor {
   public:
    // A pipe is opened without waiting for somebody who writes into it. Who does is waited for when it is read.
    explicit Descriptor(const std::string& path) : number_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
        if (number_ < 0) throw FileError(errno, std::generic_category());
        ::fcntl(number_, F_SETFL, ::fcntl(number_, F_GETFL) & ~O_NONBLOCK);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() { ::close(number_); }

    std::size_t read(std::uint8_t* data, std::size_t size_bytes) const {
        const auto count = ::read(number_, data, size_bytes);
        if (count < 0) throw FileError(errno, std::generic_category());
        return static_cast<std::size_t>(count);
    }

   private:
    int number_;
};

}  // namespace

std::string tidy(const std::string& path) {
    // Two slashes at the start mean something of their own to POSIX; three mean one.
    const bool two = path.rfind("//", 0) == 0 && path.rfind("///", 0) != 0;
    std::string result = two ? "//" : path.rfind('/', 0) == 0 ? "/" : "";
    bool first = true;
    for (std::size_t at = 0; at < path.size();) {
        const auto end = std::min(path.find('/', at), path.size());
        const auto piece = path.substr(at, end - at);
        if (!piece.empty() && piece != ".") {
            result += (first ? "" : "/") + piece;
            first = false;
        }
        at = end + 1;
    }
    return result.empty() ? "." : result;
}

bool is_pipe(const std::string& path) {
    struct stat facts {};
    return ::stat(path.c_str(), &facts) == 0 && S_ISFIFO(facts.st_mode);
}

std::string reason(const std::error_code& code) { return std::generic_category().message(code.value()); }

void read_pieces(const std::string& path, std::size_t limit_bytes,
                 const std::function<void(const std::uint8_t*, std::size_t)>& take) {
    const Descriptor file(path);
    std::array<std::uint8_t, piece_bytes> piece;
    while (limit_bytes) {
        const auto count = file.read(piece.data(), std::min(piece.size(), limit_bytes));
        if (!count) return;
        take(piece.data(), count);
        limit_bytes -= count;
    }
}

std::vector<std::uint8_t> read_bytes(const std::string& path, std::size_t limit_bytes) {
    std::vector<std::uint8_t> data;
    read_pieces(path, limit_bytes,
                [&](const std::uint8_t* piece, std::size_t count) { data.insert(data.end(), piece, piece + count); });
    return data;
}

std::string file_sha256(const std::string& path) {
    Sha256 hash;
    read_pieces(path, std::numeric_limits<std::size_t>::max(),
                [&](const std::uint8_t* piece, std::size_t count) { hash.update(piece, count); });
    return hash.finish();
}

}  // namespace robustscanner
