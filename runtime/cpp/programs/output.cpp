#include "output.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "file.hpp"
#include "program.hpp"

namespace programs {
namespace {

namespace fs = std::filesystem;

OutputError cannot(const std::string& path, const std::error_code& code) {
    return OutputError(path + ": cannot be written: " + robustscanner::reason(code) + "; choose another place");
}

fs::path folder_of(const std::string& path) { return "." / fs::path(path).parent_path(); }

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

Output::Output(const std::string& path, bool force) : path_(path.empty() ? "" : robustscanner::tidy(path)) {
    if (path.empty()) return;
    check_output(path_, force);
    const auto suffix = fs::path(path_).extension().string();
    temporary_ = (folder_of(path_) / (".robustscanner.XXXXXX" + suffix)).string();
    const int descriptor = mkostemps(temporary_.data(), static_cast<int>(suffix.size()), O_CLOEXEC);
    if (descriptor < 0) fail();
    const auto mask = umask(0);  // it can only be read by setting it
    umask(mask);
    fchmod(descriptor, 0666 & ~mask);  // mkostemps' 0600 would outlive the rename
    file_ = fdopen(descriptor, "w");
}

Output::~Output() {
    if (path_.empty()) return;
    if (file_) std::fclose(file_);
    unlink(temporary_.c_str());  // of no effect once it was renamed
}

void Output::write(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), file_) != text.size()) fail();
}

void Output::finish() {
    if (std::fflush(file_)) fail();
    if (path_.empty()) return;
    if (std::fclose(std::exchange(file_, nullptr)) || std::rename(temporary_.c_str(), path_.c_str())) fail();
}

void Output::fail() const {
    const std::error_code code(errno, std::generic_category());
    check_interrupt();
    if (!path_.empty()) throw cannot(path_, code);
    if (code.value() == EPIPE) throw ClosedPipe();
    throw OutputError("standard output: " + robustscanner::reason(code) + "; write to a file with -o");
}

}  // namespace programs
