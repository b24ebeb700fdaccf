#include "pattern.hpp"

#include <algorithm>
#include <filesystem>

#include "wording.hpp"

namespace programs {
namespace {

namespace fs = std::filesystem;
using Letters = std::vector<std::string>;
using Place = Letters::const_iterator;

// The end of a set that begins behind its "["; `end` when it is no set, and "[" stands for itself.
Place set_end(Place at, Place end) {
    auto from = at;
    if (from != end && *from == "!") ++from;
    if (from != end) ++from;  // a "]" that comes first belongs to the set
    return std::find(std::min(from, end), end, "]");
}

bool in_set(const std::string& letter, Place at, Place end) {
    const bool inverted = at != end && *at == "!";
    if (inverted) ++at;
    bool found = false;
    while (at != end) {
        if (end - at >= 3 && at[1] == "-") {
            found = found || (at[0] <= letter && letter <= at[2]);
            at += 3;
        } else {
            found = *at == letter || found;
            ++at;
        }
    }
    return found != inverted;
}

// Advances past one piece of the pattern when it stands for this letter.
bool takes(const std::string& letter, Place& at, Place end) {
    if (*at == "[") {
        const auto closing = set_end(at + 1, end);
        if (closing != end) {
            const bool found = in_set(letter, at + 1, closing);
            if (found) at = closing + 1;
            return found;
        }
    }
    if (*at != "?" && *at != letter) return false;
    ++at;
    return true;
}

std::vector<std::string> names_in(const std::string& folder) {
    std::vector<std::string> names;
    std::error_code unreadable;
    for (fs::directory_iterator entry(folder.empty() ? "." : folder, unreadable), end; !unreadable && entry != end;
         entry.increment(unreadable)) {
        names.push_back(entry->path().filename().string());
    }
    return names;
}

bool is_folder(const std::string& path) {
    std::error_code unknown;
    return fs::is_directory(path, unknown);
}

std::string beside(const std::string& folder, const std::string& name) {
    return folder.empty() || folder.back() == '/' ? folder + name : folder + "/" + name;
}

// A folder and all below, but for hidden ones. Symbolic links are followed, until the system finds them too many.
void add_folders(const std::string& folder, std::vector<std::string>& found) {
    found.push_back(folder);
    for (const auto& name : names_in(folder)) {
        if (name[0] != '.' && is_folder(beside(folder, name))) add_folders(beside(folder, name), found);
    }
}

std::vector<std::string> expanded(const std::string& folder, const std::string& piece, bool last) {
    std::vector<std::string> found;
    if (piece == "**") {
        add_folders(folder, found);
        if (!last) return found;
        for (const auto& below : std::vector<std::string>(std::move(found))) {
            for (const auto& path : expanded(below, "*", true)) found.push_back(path);
        }
        return found;
    }
    if (!is_pattern(piece)) {
        std::error_code unknown;
        const auto path = beside(folder, piece);
        if (fs::exists(path, unknown)) found.push_back(path);
        return found;
    }
    for (const auto& name : names_in(folder)) {
        const bool hidden = name[0] == '.' && piece[0] != '.';
        if (!hidden && name_matches(name, piece)) found.push_back(beside(folder, name));
    }
    return found;
}

}  // namespace

bool is_pattern(const std::string& text) { return text.find_first_of("*?[") != text.npos; }

bool name_matches(const std::string& name, const std::string& pattern) {
    const auto letters = robustscanner::characters(name), wanted = robustscanner::characters(pattern);
    auto letter = letters.begin();
    auto at = wanted.begin();
    auto retry_letter = letters.end(), retry_at = wanted.end();  // behind the latest "*"
    while (letter != letters.end()) {
        if (at != wanted.end() && *at == "*") {
            retry_at = ++at;
            retry_letter = letter;
        } else if (at != wanted.end() && takes(*letter, at, wanted.end())) {
            ++letter;
        } else if (retry_letter != letters.end()) {
            letter = ++retry_letter;
            at = retry_at;
        } else {
            return false;
        }
    }
    return std::all_of(at, wanted.end(), [](const std::string& rest) { return rest == "*"; });
}

std::vector<std::string> matches(const std::string& pattern) {
    std::vector<std::string> found = {pattern.rfind('/', 0) == 0 ? "/" : ""};
    for (std::size_t at = 0; at < pattern.size();) {
        const auto end = std::min(pattern.find('/', at), pattern.size());
        const auto piece = pattern.substr(at, end - at);
        const bool last = end >= pattern.size();
        at = end + 1;
        if (piece.empty()) continue;
        std::vector<std::string> next;
        for (const auto& folder : found) {
            for (auto& path : expanded(folder, piece, last)) next.push_back(std::move(path));
        }
        found = std::move(next);
    }
    return found;
}

}  // namespace programs
