// What may follow a text so far; the rules are those of Python's constraint.py.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pattern.hpp"
#include "robustscanner/constraint.hpp"
#include "robustscanner/spec.hpp"

namespace robustscanner {

using Ids = std::vector<std::int32_t>;
using Characters = std::vector<std::pair<std::int32_t, char32_t>>;  // ids, and what they stand for

inline constexpr float forbidden = -1e9F;  // in a mask, see Allowed

// Those that a model can write.
Characters readable_characters(const CharsetSpec& charset);

// The ids of a text. Throws ConstraintError: a character that the model cannot write.
Ids spell(const std::string& text, const std::map<char32_t, std::int32_t>& known);

// What `spell` needs to know.
std::map<char32_t, std::int32_t> known_characters(const CharsetSpec& charset);

// A constraint for one model.
class Automaton {
   public:
    // Throws ConstraintError: no pattern, or this model writes no such text.
    Automaton(const Constraint& constraint, const ModelSpec& spec);

    // Whether a text is whole and allowed.
    bool accepts(const Ids& ids) const;

    // How many of the first ids can be the beginning of an allowed text.
    std::size_t known(const Ids& ids) const;

    // What each step may say after a beginning that is fixed. It is exact for the step after the beginning; for later
    // ones, it is all that can follow anything.
    Allowed mask(const Ids& prefix = {}) const;

   private:
    using States = std::set<int>;
    struct Step {
        std::set<std::int32_t> ids;
        int to;
    };

    int new_state();
    int add(const Sequence& nodes, int start);
    int add_repeated(const Node& node, int start);
    int add_once(const Node& node, int start);
    int branch(int start);
    int joined(const std::vector<int>& ends);

    States begin() const;
    States closure(States states) const;
    States closure(States states, const std::vector<std::vector<int>>& jumps) const;
    States only_alive(const States& states, int length) const;
    States moved(const States& states, const std::set<std::int32_t>& ids, int length) const;
    std::set<std::int32_t> next(const States& states, int length) const;
    bool may_end(int length, const States& states) const;
    void find_alive();

    std::int32_t end_id_;
    int steps_count_, classes_, fewest_, most_;
    Characters characters_;                 // that may be read
    std::vector<std::vector<Step>> steps_;  // from each state
    std::vector<std::vector<int>> jumps_;   // where one gets without an id
    int begin_ = 0, whole_ = 0;
    std::vector<States> alive_;  // by the number of characters read: from where a whole text is within reach
};

}  // namespace robustscanner
