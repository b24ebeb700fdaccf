#include "arguments.hpp"

#include <algorithm>
#include <charconv>

#include "wording.hpp"

namespace programs {
namespace {

using robustscanner::quoted;

bool is_negative_number(const std::string& text) {
    return text.size() > 1 && text[0] == '-' && text.find_first_not_of("0123456789", 1) == text.npos;
}

bool is_option(const std::string& text) { return text.size() > 1 && text[0] == '-' && !is_negative_number(text); }

std::string both(const OptionSpec& option) {
    return option.letter ? std::string("-") + option.letter + "/" + option.name : option.name;
}

class Reader {
   public:
    Reader(std::vector<std::string> texts, const std::vector<OptionSpec>& known)
        : texts_(std::move(texts)), known_(known) {}

    void read(std::map<std::string, std::string>& given, std::vector<std::string>& rest) {
        bool options = true;
        while (at_ < texts_.size()) {
            const auto text = texts_[at_++];
            if (options && text == "--") {
                options = false;
            } else if (!options || !is_option(text)) {
                rest.push_back(text);
            } else if (text[1] == '-') {
                read_long(text, given);
            } else {
                read_letters(text, given);
            }
        }
    }

   private:
    void read_long(const std::string& text, std::map<std::string, std::string>& given) {
        const auto equals = text.find('=');
        const auto& option = find(text, [&](const OptionSpec& spec) { return spec.name == text.substr(0, equals); });
        if (equals != text.npos && !option.takes_value) {
            throw UsageError("argument " + both(option) + ": ignored explicit argument " +
                             quoted(text.substr(equals + 1)));
        }
        given[option.name] = equals != text.npos ? text.substr(equals + 1) : option.takes_value ? next(option) : "";
    }

    // "-fv" is "-f -v", and "-oFILE" is "-o FILE".
    void read_letters(const std::string& text, std::map<std::string, std::string>& given) {
        for (std::size_t at = 1; at < text.size(); ++at) {
            const auto& option = find(text, [&](const OptionSpec& spec) { return spec.letter == text[at]; });
            if (option.takes_value) {
                given[option.name] = at + 1 < text.size() ? text.substr(at + 1) : next(option);
                return;
            }
            given[option.name] = "";
        }
    }

    template <typename Is>
    const OptionSpec& find(const std::string& text, Is is) const {
        const auto found = std::find_if(known_.begin(), known_.end(), is);
        if (found == known_.end()) throw UsageError("unrecognized arguments: " + text);
        return *found;
    }

    std::string next(const OptionSpec& option) {
        if (at_ == texts_.size() || is_option(texts_[at_])) {
            throw UsageError("argument " + both(option) + ": expected one argument");
        }
        return texts_[at_++];
    }

    std::vector<std::string> texts_;
    const std::vector<OptionSpec>& known_;
    std::size_t at_ = 0;
};

}  // namespace

Arguments::Arguments(int count, const char* const* texts, const std::vector<OptionSpec>& known) {
    Reader({texts + std::min(count, 1), texts + count}, known).read(given_, rest_);
}

std::string Arguments::text(const std::string& name, const std::string& otherwise) const {
    const auto found = given_.find(name);
    return found == given_.end() ? otherwise : found->second;
}

int Arguments::number(const std::string& name, int otherwise, int least, int most) const {
    if (!has(name)) return otherwise;
    const auto value = text(name, "");
    int number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < least || number > most) {
        throw UsageError("argument " + name + ": " + quoted(value) + " is not a whole number from " +
                         std::to_string(least) + " to " + std::to_string(most));
    }
    return number;
}

}  // namespace programs
