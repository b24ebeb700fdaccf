#include "pattern.hpp"

#include <wctype.h>

#include <algorithm>
#include <clocale>
#include <optional>

#include "robustscanner/errors.hpp"

namespace robustscanner {
namespace {

constexpr int most_repeats = 10000;  // more than an automaton holds
constexpr int most_groups = 100;     // inside one another

bool is_digit(char32_t character) { return character >= U'0' && character <= U'9'; }

bool is_alphanumeric(char32_t character) {
    static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    const auto wide = static_cast<wint_t>(character);
    return locale ? iswalnum_l(wide, locale) != 0 : character < 0x80 && iswalnum(wide) != 0;
}

bool is_in_category(char letter, char32_t character) {
    if (letter == 'd') return is_digit(character);
    if (letter == 's') return character == U' ' || (character >= U'\t' && character <= U'\r');
    return character == U'_' || is_alphanumeric(character);
}

class Parser {
   public:
    Parser(const std::string& text, std::u32string points) : text_(text), points_(std::move(points)) {}

    std::vector<Sequence> whole() {
        auto branches = alternatives(0);
        if (!at_end()) fail("an opening bracket is missing");
        return branches;
    }

    CharacterSet brackets() {
        auto found = character_class();
        if (!at_end()) fail("']' has to stand first, or after a backslash");
        return found;
    }

   private:
    bool at_end() const { return at_ >= points_.size(); }
    char32_t peek() const { return at_end() ? U'\0' : points_.data()[at_]; }

    bool take(char32_t wanted) {
        if (at_end() || peek() != wanted) return false;
        ++at_;
        return true;
    }

    char32_t next() {
        if (at_end()) fail("it ends too early");
        return points_[at_++];
    }

    [[noreturn]] void fail(const std::string& why) const {
        throw ConstraintError("'" + text_ + "' is no pattern: " + why);
    }

    [[noreturn]] static void refuse(const std::string& what) {
        throw ConstraintError("a pattern cannot hold " + what +
                              " here: what may follow would depend on more than a place in the pattern; take classes, "
                              "groups, alternatives and repeats");
    }

    std::vector<Sequence> alternatives(int depth) {
        if (depth > most_groups) refuse("so many groups inside one another");
        std::vector<Sequence> branches(1);
        while (!at_end() && peek() != U')') {
            if (take(U'|')) {
                branches.emplace_back();
            } else {
                branches.back().push_back(repeated(atom(depth)));
            }
        }
        return branches;
    }

    Node atom(int depth) {
        Node node;
        const auto character = next();
        if (character == U'(') {
            begin_group();
            node.branches = alternatives(depth + 1);
            if (!take(U')')) fail("a closing bracket is missing");
        } else if (character == U'[') {
            node.characters = character_class();
        } else if (character == U'\\') {
            escape(node.characters);
        } else if (character == U'.') {
            node.characters.negate();
        } else if ((character == U'^' && at_ == 1) || (character == U'$' && at_end())) {
            node.branches.emplace_back();  // nothing: the whole text has to match anyway
        } else if (character == U'^' || character == U'$') {
            refuse("an anchor");
        } else if (character == U'*' || character == U'+' || character == U'?') {
            fail("there is nothing to repeat");
        } else {
            node.characters.add(character, character);
        }
        return node;
    }

    // Plain groups, groups that are not kept, and groups with a name are all the same here.
    void begin_group() {
        if (!take(U'?')) return;
        if (take(U':')) return;
        if (!take(U'P') || !take(U'<')) refuse("a group of this kind");
        while (next() != U'>') {
        }
    }

    Node repeated(Node node) {
        if (!repeat(node)) return node;
        if (take(U'+')) refuse("a possessive repeat");
        take(U'?');
        Node again;
        if (repeat(again)) fail("there is nothing to repeat");
        return node;
    }

    bool repeat(Node& node) {
        if (take(U'*')) return set_repeat(node, 0, endless);
        if (take(U'+')) return set_repeat(node, 1, endless);
        if (take(U'?')) return set_repeat(node, 0, 1);
        const auto start = at_;
        if (take(U'{')) {
            const int fewest = count();
            const bool open = take(U',');
            const int most = open ? count() : fewest;
            if (take(U'}') && (fewest >= 0 || open))
                return set_repeat(node, std::max(fewest, 0), most < 0 ? endless : most);
            at_ = start;  // a brace that begins no repeat stands for itself
        }
        return false;
    }

    bool set_repeat(Node& node, int fewest, int most) const {
        if (fewest > most) fail("the fewest are more than the most");
        node.fewest = fewest;
        node.most = most;
        return true;
    }

    int count() {
        if (!is_digit(peek())) return -1;
        int found = 0;
        while (is_digit(peek())) {
            found = std::min(found * 10 + static_cast<int>(next() - U'0'), most_repeats);
        }
        return found;
    }

    CharacterSet character_class() {
        CharacterSet found;
        if (take(U'^')) found.negate();
        for (bool first = true; first || !at_end(); first = false) {
            if (!first && take(U']')) return found;
            item(found);
        }
        fail("']' is missing");
    }

    void item(CharacterSet& found) {
        const auto low = single(found);
        if (!low) return;
        if (peek() != U'-' || at_ + 1 >= points_.size() || points_[at_ + 1] == U']') return found.add(*low, *low);
        ++at_;
        CharacterSet unused;
        const auto high = single(unused);
        if (!high || *high < *low) fail("a range ends before it begins");
        found.add(*low, *high);
    }

    // One character; none where it was a category, which is added.
    std::optional<char32_t> single(CharacterSet& found) {
        const auto character = next();
        return character == U'\\' ? escape_in(found) : std::optional(character);
    }

    void escape(CharacterSet& found) {
        if (const auto character = escape_in(found)) found.add(*character, *character);
    }

    std::optional<char32_t> escape_in(CharacterSet& found) {
        const auto character = next();
        const auto letter = static_cast<char>(character | 0x20U);
        if (character < 0x80 && (letter == 'd' || letter == 's' || letter == 'w')) {
            found.add_category(letter, character < U'a');
            return {};
        }
        if (character == U't') return U'\t';
        if (character == U'n') return U'\n';
        if (is_digit(character)) refuse("a look at a group");
        if (letter >= 'a' && letter <= 'z' && character < 0x80)
            refuse(std::string("\\") + static_cast<char>(character));
        return character;
    }

    const std::string& text_;
    std::u32string points_;
    std::size_t at_ = 0;
};

}  // namespace

bool CharacterSet::holds(char32_t character) const {
    const auto is_in = [character](const Range& range) {
        if (!range.category) return character >= range.first && character <= range.last;
        return is_in_category(range.category, character) != range.negated;
    };
    return std::any_of(ranges_.begin(), ranges_.end(), is_in) != negated_;
}

std::u32string code_points(const std::string& text) {
    std::u32string found;
    for (std::size_t at = 0; at < text.size();) {
        const auto lead = static_cast<unsigned char>(text[at]);
        const std::size_t size = lead < 0x80   ? 1
                                 : lead < 0xC2 ? 0
                                 : lead < 0xE0 ? 2
                                 : lead < 0xF0 ? 3
                                 : lead < 0xF5 ? 4
                                               : 0;
        if (!size || at + size > text.size()) throw ConstraintError("'" + text + "' is not UTF-8; write it as such");
        char32_t point = size == 1 ? lead : lead & (0x7FU >> size);
        for (std::size_t next = 1; next < size; ++next) {
            const auto byte = static_cast<unsigned char>(text[at + next]);
            if ((byte & 0xC0U) != 0x80) throw ConstraintError("'" + text + "' is not UTF-8; write it as such");
            point = point << 6U | (byte & 0x3FU);
        }
        found += point;
        at += size;
    }
    return found;
}

std::vector<Sequence> parse_pattern(const std::string& pattern) {
    Parser parser(pattern, code_points(pattern));
    return parser.whole();
}

CharacterSet parse_characters(const std::string& characters) {
    Parser parser(characters, code_points(characters + "]"));
    return parser.brackets();
}

}  // namespace robustscanner
