#include "files.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwctype>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "file.hpp"
#include "program.hpp"
#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace programs {
namespace {

namespace fs = std::filesystem;
using robustscanner::ImageError;
using robustscanner::tidy;

constexpr std::array<const char*, 17> suffixes = {".avif", ".bmp",  ".dib", ".gif",  ".jfif", ".jp2",
                                                  ".jpe",  ".jpeg", ".jpg", ".pbm",  ".pgm",  ".png",
                                                  ".pnm",  ".ppm",  ".tif", ".tiff", ".webp"};

bool is_picture_name(const fs::path& name) {
    const auto suffix = robustscanner::lowered(name.extension().string());
    return name.string()[0] != '.' && std::find(suffixes.begin(), suffixes.end(), suffix) != suffixes.end();
}

std::vector<std::string> naturally_sorted(std::vector<std::string> paths) {
    std::stable_sort(paths.begin(), paths.end(), naturally_before);
    return paths;
}

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
        throw ImageError(folder + ": holds no pictures (" +
                         robustscanner::joined({suffixes.begin(), suffixes.end()}, " ") +
                         "); its folders are not searched");
    }
    return naturally_sorted(std::move(files));
}

bool is_pattern(const std::string& text) { return text.find_first_of("*?[") != text.npos; }

bool is_folder(const fs::path& path) {
    std::error_code unknown;
    return fs::is_directory(path, unknown);
}

// Adds the files below a folder that the pieces of a pattern match, as Python's glob does: ** is any number of folders.
// Symbolic links are followed, until the system finds them too many.
void add_matches(const fs::path& folder, fs::path::iterator piece, fs::path::iterator end,
                 std::vector<std::string>& found) {
    std::error_code unreadable;
    if (piece == end) {
        if (fs::exists(folder, unreadable) && !is_folder(folder)) found.push_back(tidy(folder.string()));
        return;
    }
    const auto next = std::next(piece);
    if (!is_pattern(piece->string())) return add_matches(folder / *piece, next, end, found);
    const bool deep = *piece == "**";
    if (deep) add_matches(folder, next, end, found);
    for (fs::directory_iterator entry(folder.empty() ? "." : folder, unreadable), last; !unreadable && entry != last;
         entry.increment(unreadable)) {
        const auto name = entry->path().filename();
        const bool matches = !fnmatch(piece->c_str(), name.c_str(), FNM_PERIOD | FNM_NOESCAPE);
        const bool enter = !deep || next == end || is_folder(folder / name);
        if (matches && enter) add_matches(folder / name, deep ? piece : next, end, found);
    }
}

// Its order is the natural one: small letters, and before them numbers, each as its length and its digits. A byte that
// is no UTF-8 counts as in Python, as half of a surrogate pair.
std::u32string natural_key(const std::string& path) {
    constexpr char32_t letters = 1 << 16;  // numbers are shorter
    std::u32string key;
    for (std::size_t at = 0, end; at < path.size(); at = end) {
        end = std::min(path.find_first_not_of("0123456789", at), path.size());
        if (end > at) {
            at = std::min(path.find_first_not_of('0', at), end);
            key += static_cast<char32_t>(end - at);
            for (; at < end; ++at) key += static_cast<char32_t>(path[at]);
        } else {
            end = at + std::max<std::size_t>(robustscanner::character_bytes(path, at), 1);
            wchar_t wide = 0;
            const bool known = std::mbtowc(&wide, &path[at], end - at) > 0;
            key += letters + (known ? std::towlower(static_cast<std::wint_t>(wide))
                                    : 0xdc00u + static_cast<unsigned char>(path[at]));
        }
    }
    return key;
}

}  // namespace

std::vector<std::string> find_pictures(const std::string& argument) {
    const auto path = tidy(argument);
    if (is_folder(path)) return in_folder(path);
    std::error_code unknown;
    if (fs::exists(path, unknown) || !is_pattern(argument)) return {path};
    const fs::path pattern(argument);
    std::vector<std::string> found;
    add_matches({}, pattern.begin(), pattern.end(), found);
    if (found.empty()) throw ImageError(argument + ": matches no file; check the pattern");
    return naturally_sorted(std::move(found));
}

std::vector<std::string> read_words(const std::string& path) {
    std::ifstream file(path);
    std::vector<std::string> words;
    for (std::string line; std::getline(file, line);) {
        if (words.empty() && line.rfind("\xEF\xBB\xBF", 0) == 0) line.erase(0, 3);
        const auto first = line.find_first_not_of(" \t\r\f\v");
        words.push_back(first == line.npos ? "" : line.substr(first, line.find_last_not_of(" \t\r\f\v") - first + 1));
    }
    if (!file.eof()) {
        throw robustscanner::ConstraintError(path + ": " + std::strerror(errno) + "; give one word a line");
    }
    if (words.empty()) throw robustscanner::ConstraintError(path + ": holds no words; give one word a line");
    return words;
}

std::vector<std::string> read_list() {
    std::vector<std::string> paths;
    for (std::string line; std::getline(std::cin, line);) {
        line.erase(line.find_last_not_of('\r') + 1);
        if (!line.empty()) paths.push_back(line);
    }
    check_interrupt();
    if (std::ferror(stdin)) {
        throw ImageError(std::string("standard input: ") + std::strerror(errno) + "; give paths instead");
    }
    return paths;
}

bool naturally_before(const std::string& left, const std::string& right) {
    return natural_key(left) < natural_key(right);
}

}  // namespace programs
