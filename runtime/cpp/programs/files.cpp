#include "files.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <clocale>
#include <cstring>
#include <cwchar>
#include <cwctype>
#include <filesystem>
#include <sstream>

#include "file.hpp"
#include "interrupt.hpp"
#include "pattern.hpp"
#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace programs {
namespace {

namespace fs = std::filesystem;
using robustscanner::ImageError;
using robustscanner::tidy;

constexpr std::array<const char*, 12> suffixes = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm",  ".pgm",
                                                  ".png", ".pnm", ".ppm",  ".tif", ".tiff", ".webp"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_picture_name(const fs::path& name) {
    const auto suffix = robustscanner::lowered(name.extension().string());
    return name.string()[0] != '.' && std::find(suffixes.begin(), suffixes.end(), suffix) != suffixes.end();
}

std::vector<std::string> naturally_sorted(std::vector<std::string> paths) {
    std::stable_sort(paths.begin(), paths.end(), naturally_before);
    return paths;
}

std::string all_suffixes() { return robustscanner::joined({suffixes.begin(), suffixes.end()}, " "); }

std::vector<std::string> in_folder(const std::string& folder) {
    std::vector<std::string> files;
    try {
        for (const auto& entry : fs::directory_iterator(folder)) {
            if (is_picture_name(entry.path().filename())) files.push_back(tidy(entry.path().string()));
        }
    } catch (const fs::filesystem_error& error) {
        throw ImageError(folder + ": " + robustscanner::reason(error.code()) + "; check its permissions");
    }
    if (files.empty()) {
        throw ImageError(folder + ": holds no pictures (" + all_suffixes() + "); its folders are not searched");
    }
    return naturally_sorted(std::move(files));
}

// Small letters, of Unicode as far as the system's C.UTF-8 locale knows it.
std::string folded(const std::string& text) {
    static const locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    std::string result;
    for (const auto& letter : robustscanner::characters(text)) {
        std::mbstate_t state{};
        wchar_t wide = 0;
        const auto before = uselocale(unicode ? unicode : LC_GLOBAL_LOCALE);
        std::array<char, 16> bytes{};
        const bool known = std::mbrtowc(&wide, letter.data(), letter.size(), &state) == letter.size();
        const auto count =
            known ? std::wcrtomb(bytes.data(), static_cast<wchar_t>(std::towlower(static_cast<std::wint_t>(wide))),
                                 &state)
                  : static_cast<std::size_t>(-1);
        uselocale(before);
        result += count < bytes.size() ? std::string(bytes.data(), count) : letter;
    }
    return result;
}

// Text and digits alternate, text first.
std::vector<std::string> natural_key(const std::string& path) {
    std::vector<std::string> pieces(1);
    for (const char c : path) {
        if (is_digit(c) != (pieces.size() % 2 == 0)) pieces.emplace_back();
        pieces.back() += c;
    }
    for (std::size_t index = 0; index < pieces.size(); ++index) {
        auto& piece = pieces[index];
        if (index % 2) {
            piece.erase(0, std::min(piece.find_first_not_of('0'), piece.size()));
        } else {
            piece = folded(piece);
        }
    }
    if (pieces.size() % 2 == 0) pieces.emplace_back();
    return pieces;
}

}  // namespace

std::vector<std::string> find_pictures(const std::string& argument) {
    const auto path = tidy(argument);
    std::error_code unknown;
    if (fs::is_directory(path, unknown)) return in_folder(path);
    if (fs::exists(path, unknown) || !is_pattern(argument)) return {path};
    std::vector<std::string> found;
    for (const auto& match : matches(argument)) {
        if (!fs::is_directory(match, unknown)) found.push_back(tidy(match));
    }
    if (found.empty()) throw ImageError(argument + ": matches no file; check the pattern");
    return naturally_sorted(std::move(found));
}

std::vector<std::string> read_list() {
    std::string text;
    std::array<char, 1 << 14> piece{};
    for (ssize_t count = 1; count; text.append(piece.data(), static_cast<std::size_t>(count))) {
        count = ::read(STDIN_FILENO, piece.data(), piece.size());
        if (count < 0 && errno == EINTR) throw Interrupted();
        if (count < 0)
            throw ImageError(std::string("standard input: ") + std::strerror(errno) + "; give paths instead");
    }
    std::istringstream lines(text);
    std::vector<std::string> paths;
    for (std::string line; std::getline(lines, line);) {
        line.erase(line.find_last_not_of('\r') + 1);
        if (!line.empty()) paths.push_back(line);
    }
    return paths;
}

bool naturally_before(const std::string& left, const std::string& right) {
    const auto first = natural_key(left), second = natural_key(right);
    for (std::size_t index = 0; index < std::min(first.size(), second.size()); ++index) {
        const auto &a = first[index], &b = second[index];
        if (a == b) continue;
        if (index % 2 && a.size() != b.size()) return a.size() < b.size();  // numbers, without leading zeros
        return a < b;
    }
    return first.size() < second.size();
}

}  // namespace programs
