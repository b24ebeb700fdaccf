// Regular expressions, as far as they can be followed character by character.
#pragma once

#include <limits>
#include <string>
#include <vector>

namespace robustscanner {

// A set of characters, by ranges.
class CharacterSet {
   public:
    void add(char32_t first, char32_t last) { ranges_.push_back({first, last, 0, false}); }
    void add_category(char letter, bool negated) { ranges_.push_back({0, 0, letter, negated}); }  // \d, \s, \w
    void negate() { negated_ = true; }
    bool holds(char32_t character) const;

   private:
    struct Range {
        char32_t first, last;
        char category;  // 0: the range counts
        bool negated;
    };
    std::vector<Range> ranges_;
    bool negated_ = false;
};

struct Node;
using Sequence = std::vector<Node>;

inline constexpr int endless = std::numeric_limits<int>::max();

// One character, or one of several sequences; repeated.
struct Node {
    CharacterSet characters;         // where there are no branches
    std::vector<Sequence> branches;  // of a group
    int fewest = 1, most = 1;
};

// Branches of a whole pattern. Throws ConstraintError: it is none, or looks back or ahead.
std::vector<Sequence> parse_pattern(const std::string& pattern);

// "0-9A-F", as inside brackets. Throws ConstraintError.
CharacterSet parse_characters(const std::string& characters);

// Throws ConstraintError where the text is not UTF-8.
std::u32string code_points(const std::string& text);

}  // namespace robustscanner
