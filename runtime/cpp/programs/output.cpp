#include "output.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "file.hpp"

namespace programs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t buffer_bytes = 1 << 16;

OutputError cannot(const std::string& path, const std::error_code& code) {
    return OutputError(path + ": cannot be written: " + robustscanner::reason(code) + "; choose another place");
}

std::error_code latest() { return {errno, std::generic_category()}; }

fs::path folder_of(const std::string& path) {
    const auto folder = fs::path(path).parent_path();
    return folder.empty() ? fs::path(".") : folder;
}

}  // namespace

void check_output(const std::string& path, bool force) {
    std::error_code code;
    const auto kind = fs::status(path, code);
    if (kind.type() == fs::file_type::none) throw cannot(path, code);
    if (fs::exists(kind) && !fs::is_regular_file(kind)) {  // renaming onto /dev/null would replace the device
        throw OutputError(path + ": exists and is not a regular file; choose another name");
    }
    if (fs::exists(kind) && !force) {
        throw OutputError(path + ": exists; choose another name, or overwrite it with --force");
    }
    if (!fs::is_directory(folder_of(path), code)) {
        throw OutputError(path + ": its folder does not exist; create it first");
    }
}

Output::Output() : descriptor_(STDOUT_FILENO), by_line_(isatty(STDOUT_FILENO) == 1) {}

Output::Output(const std::string& path, bool force) : path_(robustscanner::tidy(path)), by_line_(false) {
    check_output(path_, force);
    const auto suffix = fs::path(path_).extension().string();
    temporary_ = (folder_of(path_) / (".robustscanner.XXXXXX" + suffix)).string();
    descriptor_ = mkostemps(temporary_.data(), static_cast<int>(suffix.size()), O_CLOEXEC);
    if (descriptor_ < 0) throw cannot(path_, latest());
    const auto mask = umask(0);  // it can only be read by setting it
    umask(mask);
    fchmod(descriptor_, 0666 & ~mask);  // mkostemps' 0600 would outlive the rename
}

Output::~Output() {
    if (path_.empty()) return;
    if (descriptor_ >= 0) close(descriptor_);
    unlink(temporary_.c_str());  // of no effect once it was renamed
}

void Output::write(const std::string& text) {
    waiting_ += text;
    if (by_line_ || waiting_.size() > buffer_bytes) flush();
}

void Output::finish() {
    flush();
    if (path_.empty()) return;
    const int descriptor = std::exchange(descriptor_, -1);
    if (close(descriptor) || std::rename(temporary_.c_str(), path_.c_str())) throw cannot(path_, latest());
}

void Output::flush() {
    for (std::size_t done = 0; done < waiting_.size();) {
        const auto count = ::write(descriptor_, waiting_.data() + done, waiting_.size() - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && path_.empty()) throw StdoutError(latest());
        if (count < 0) throw cannot(path_, latest());
        done += static_cast<std::size_t>(count);
    }
    waiting_.clear();
}

}  // namespace programs
