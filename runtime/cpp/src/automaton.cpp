#include "automaton.hpp"

#include <algorithm>

#include "robustscanner/errors.hpp"
#include "wording.hpp"

namespace robustscanner {
namespace {

constexpr std::size_t most_states = 5000;

// The characters of a model that a constraint leaves.
Characters readable(const Constraint& constraint, const CharsetSpec& charset) {
    auto found = readable_characters(charset);
    if (!constraint.characters) return found;
    const auto wanted = parse_characters(*constraint.characters);
    const auto is_unwanted = [&](const auto& one) { return !wanted.holds(one.second); };
    found.erase(std::remove_if(found.begin(), found.end(), is_unwanted), found.end());
    if (found.empty()) {
        throw ConstraintError("characters '" + *constraint.characters + "': this model reads none of them");
    }
    return found;
}

}  // namespace

Characters readable_characters(const CharsetSpec& charset) {
    const std::set<int> special = {charset.start_id, charset.end_id, charset.pad_id, charset.unknown_id.value_or(-1)};
    Characters found;
    for (int id = 0; id < charset.class_count; ++id) {
        if (special.count(id)) continue;
        found.emplace_back(id, code_points(charset.tokens[static_cast<std::size_t>(id)]).front());
    }
    return found;
}

std::map<char32_t, std::int32_t> known_characters(const CharsetSpec& charset) {
    std::map<char32_t, std::int32_t> known;
    for (const auto& [id, character] : readable_characters(charset)) known[character] = id;
    return known;
}

Ids spell(const std::string& text, const std::map<char32_t, std::int32_t>& known) {
    Ids ids;
    const auto letters = characters(text);
    for (const auto& letter : letters) {
        const auto found = known.find(code_points(letter).front());
        if (found == known.end()) {
            throw ConstraintError("'" + text + "' holds '" + letter + "', which this model does not read");
        }
        ids.push_back(found->second);
    }
    return ids;
}

Automaton::Automaton(const Constraint& constraint, const ModelSpec& spec)
    : end_id_(spec.charset.end_id),
      steps_count_(spec.network.max_length),
      classes_(spec.charset.class_count),
      fewest_(constraint.fewest),
      most_(std::min(constraint.most.value_or(endless), steps_count_ - 1)),
      characters_(readable(constraint, spec.charset)) {
    if (fewest_ < 0 || constraint.most.value_or(endless) < fewest_) {
        throw ConstraintError("the fewest characters are more than the most; give lengths that a text can have");
    }
    begin_ = new_state();
    Node whole;
    whole.branches = parse_pattern(constraint.pattern.value_or(".*"));
    whole_ = add_repeated(whole, begin_);
    find_alive();
    if (begin().empty()) {
        throw ConstraintError("no text of at most " + std::to_string(steps_count_ - 1) +
                              " of this model's characters is as the constraint wants it");
    }
}

bool Automaton::accepts(const Ids& ids) const {
    if (known(ids) != ids.size()) return false;
    auto states = begin();
    int length = 0;
    for (const auto id : ids) states = moved(states, {id}, length++);
    return may_end(length, states);
}

std::size_t Automaton::known(const Ids& ids) const {
    auto states = begin();
    for (std::size_t index = 0; index < ids.size(); ++index) {
        states = moved(states, {ids[index]}, static_cast<int>(index));
        if (states.empty()) return index;
    }
    return ids.size();
}

Allowed Automaton::mask(const Ids& prefix) const {
    const auto classes = static_cast<std::size_t>(classes_);
    Allowed mask(static_cast<std::size_t>(steps_count_) * classes, forbidden);
    const auto allow = [&](int step, std::int32_t id) {
        mask[static_cast<std::size_t>(step) * classes + static_cast<std::size_t>(id)] = 0;
    };
    auto states = begin();
    int step = 0;
    for (; step < steps_count_ && !states.empty(); ++step) {
        const bool fixed = static_cast<std::size_t>(step) < prefix.size();
        if (!fixed && may_end(step, states)) allow(step, end_id_);
        const auto ids = fixed ? std::set<std::int32_t>{prefix[static_cast<std::size_t>(step)]} : next(states, step);
        for (const auto id : ids) allow(step, id);
        states = moved(states, ids, step);
    }
    for (; step < steps_count_; ++step) allow(step, end_id_);  // never reached: a word has ended before
    return mask;
}

int Automaton::new_state() {
    if (steps_.size() >= most_states) {
        throw ConstraintError("the pattern is too large; write it with fewer or smaller repeats");
    }
    steps_.emplace_back();
    jumps_.emplace_back();
    return static_cast<int>(steps_.size()) - 1;
}

int Automaton::add(const Sequence& nodes, int start) {
    for (const auto& node : nodes) start = add_repeated(node, start);
    return start;
}

int Automaton::add_repeated(const Node& node, int start) {
    if (node.fewest == 1 && node.most == 1) return add_once(node, start);
    const int most = std::min(node.most, std::max(most_, node.fewest));
    std::vector<int> ends = {start};
    while (static_cast<int>(ends.size()) <= most) ends.push_back(add_once(node, ends.back()));
    return joined({ends.begin() + node.fewest, ends.end()});
}

int Automaton::add_once(const Node& node, int start) {
    if (node.branches.empty()) {
        const int end = new_state();
        std::set<std::int32_t> ids;
        for (const auto& [id, character] : characters_) {
            if (node.characters.holds(character)) ids.insert(id);
        }
        steps_[static_cast<std::size_t>(start)].push_back({std::move(ids), end});
        return end;
    }
    std::vector<int> ends;
    for (const auto& one : node.branches) ends.push_back(add(one, branch(start)));
    return joined(ends);
}

int Automaton::branch(int start) {
    const int state = new_state();
    jumps_[static_cast<std::size_t>(start)].push_back(state);
    return state;
}

int Automaton::joined(const std::vector<int>& ends) {
    const int state = new_state();
    for (const int end : ends) jumps_[static_cast<std::size_t>(end)].push_back(state);
    return state;
}

Automaton::States Automaton::begin() const { return only_alive(closure({begin_}), 0); }

Automaton::States Automaton::closure(States states) const { return closure(std::move(states), jumps_); }

Automaton::States Automaton::closure(States states, const std::vector<std::vector<int>>& jumps) const {
    std::vector<int> waiting(states.begin(), states.end());
    while (!waiting.empty()) {
        const auto& reached = jumps[static_cast<std::size_t>(waiting.back())];
        waiting.pop_back();
        for (const int to : reached) {
            if (states.insert(to).second) waiting.push_back(to);
        }
    }
    return states;
}

Automaton::States Automaton::only_alive(const States& states, int length) const {
    const auto& alive = alive_[static_cast<std::size_t>(length)];
    States kept;
    std::set_intersection(states.begin(), states.end(), alive.begin(), alive.end(), std::inserter(kept, kept.end()));
    return kept;
}

Automaton::States Automaton::moved(const States& states, const std::set<std::int32_t>& ids, int length) const {
    if (length >= most_) return {};
    const auto is_wanted = [&](std::int32_t id) { return ids.count(id) != 0; };
    States reached;
    for (const int state : states) {
        for (const auto& step : steps_[static_cast<std::size_t>(state)]) {
            if (std::any_of(step.ids.begin(), step.ids.end(), is_wanted)) reached.insert(step.to);
        }
    }
    return only_alive(closure(std::move(reached)), length + 1);
}

std::set<std::int32_t> Automaton::next(const States& states, int length) const {
    std::set<std::int32_t> found;
    if (length >= most_) return found;
    const auto& alive = alive_[static_cast<std::size_t>(length) + 1];
    for (const int state : states) {
        for (const auto& step : steps_[static_cast<std::size_t>(state)]) {
            if (alive.count(step.to)) found.insert(step.ids.begin(), step.ids.end());
        }
    }
    return found;
}

bool Automaton::may_end(int length, const States& states) const {
    return fewest_ <= length && length <= most_ && states.count(whole_);
}

void Automaton::find_alive() {
    std::vector<std::vector<int>> before(jumps_.size());
    for (std::size_t from = 0; from < jumps_.size(); ++from) {
        for (const int to : jumps_[from]) before[static_cast<std::size_t>(to)].push_back(static_cast<int>(from));
    }
    alive_.resize(static_cast<std::size_t>(std::max(most_, 0)) + 1);
    for (int length = most_; length >= 0; --length) {
        States found;
        if (fewest_ <= length) found.insert(whole_);
        for (std::size_t state = 0; length < most_ && state < steps_.size(); ++state) {
            const auto& after = alive_[static_cast<std::size_t>(length) + 1];
            const auto leads_on = [&](const Step& step) { return !step.ids.empty() && after.count(step.to); };
            if (std::any_of(steps_[state].begin(), steps_[state].end(), leads_on))
                found.insert(static_cast<int>(state));
        }
        alive_[static_cast<std::size_t>(length)] = closure(std::move(found), before);
    }
}

}  // namespace robustscanner
