#include "arguments.hpp"

#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace programs {

std::vector<std::string> read_arguments(int count, char* const* texts, const std::vector<Option>& known) {
    std::string letters;
    std::vector<option> table;
    for (const auto& one : known) {
        table.push_back({one.name, one.takes_value, nullptr, one.letter});
        if (one.letter) letters += std::string(1, one.letter) + (one.takes_value ? ":" : "");
    }
    table.push_back({});
    int index = -1;  // of a long option
    for (int letter; (letter = getopt_long(count, texts, letters.c_str(), table.data(), &index)) != -1; index = -1) {
        if (letter == '?') throw UsageError();
        const auto is_it = [letter](const Option& one) { return one.letter == letter; };
        const auto found = index < 0 ? std::find_if(known.begin(), known.end(), is_it) : known.begin() + index;
        const std::string text = texts[optind - (optarg == texts[optind - 1] ? 2 : 1)];
        if (index >= 0 && text.substr(2, text.find('=') - 2) != found->name) {
            throw UsageError(text + ": write --" + found->name + " in full");
        }
        found->take(optarg);
    }
    if (optind == count) throw UsageError("give at least one IMAGE");
    return {texts + optind, texts + count};
}

void end_with(const char* text) {
    std::fputs(text, stdout);
    std::exit(0);
}

int number(const std::string& text, int least, int most) {
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < least || number > most) {
        throw UsageError("'" + text + "' is not a whole number from " + std::to_string(least) + " to " +
                         std::to_string(most));
    }
    return number;
}

}  // namespace programs
