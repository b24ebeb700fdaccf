#include "lexicon.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "automaton.hpp"
#include "robustscanner/errors.hpp"

namespace robustscanner {
namespace {

constexpr std::size_t most_words = 100000;
constexpr int most_runs = 16;  // of one picture; where nothing can be read, bounds part no words
}  // namespace

Lexicon::Lexicon(const std::vector<std::string>& words, const ModelSpec& spec)
    : end_id_(spec.charset.end_id),
      steps_(static_cast<std::size_t>(spec.network.max_length)),
      classes_(static_cast<std::size_t>(spec.charset.class_count)) {
    std::set<std::string> listed(words.begin(), words.end());
    listed.erase("");
    if (listed.empty() || listed.size() > most_words) {
        throw ConstraintError(std::to_string(listed.size()) + " words; give from 1 to 100,000");
    }
    const auto known = known_characters(spec.charset);
    std::vector<Ids> encoded;
    for (const auto& word : listed) {
        encoded.push_back(spell(word, known));
        if (encoded.back().size() >= steps_) {
            throw ConstraintError("'" + word + "' is longer than the " + std::to_string(steps_ - 1) +
                                  " characters of this model");
        }
        columns_ = std::max(columns_, encoded.back().size() + 1);
    }
    rows_ = encoded.size();
    table_.assign(rows_ * columns_, end_id_);
    for (std::size_t row = 0; row < rows_; ++row) {
        std::copy(encoded[row].begin(), encoded[row].end(), &table_[row * columns_]);
    }
}

Lexicon::Found Lexicon::search(const Result& free, const Run& run) const {
    Branch everything = {1, Rows(rows_), 0, 1};
    std::iota(everything.rows.begin(), everything.rows.end(), std::size_t{0});
    std::vector<Branch> left;
    const auto word = follow(everything, {free, {}}, left);
    double bound = 0;
    for (const auto& branch : left) bound = std::max(bound, branch.bound);
    if (word && word->first >= bound) return {word->second, word->first, bound};
    return search(std::move(everything), run);
}

// Branch after branch, where the free reading alone does not tell.
Lexicon::Found Lexicon::search(Branch everything, const Run& run) const {
    const auto is_less = [](const Branch& left, const Branch& right) { return left.bound < right.bound; };
    std::vector<Branch> waiting;
    waiting.push_back(std::move(everything));
    Word best = {-1, {}};
    double second = 0;
    for (int runs = 0; !waiting.empty() && waiting.front().bound > best.first && runs < most_runs;) {
        std::pop_heap(waiting.begin(), waiting.end(), is_less);
        const auto branch = std::move(waiting.back());
        waiting.pop_back();
        auto word = whole(branch);
        if (!word) {
            ++runs;
            std::vector<Branch> left;
            word = follow(branch, run(mask(branch.rows)), left);
            for (auto& one : left) {
                waiting.push_back(std::move(one));
                std::push_heap(waiting.begin(), waiting.end(), is_less);
            }
        }
        if (!word) continue;
        second = std::max(second, std::min(best.first, word->first));
        best = std::max(best, *word);
    }
    if (best.second.empty()) best = score(waiting.front().rows.front(), run);  // of such words, none stands out
    return {best.second, best.first, std::max(second, waiting.empty() ? 0 : waiting.front().bound)};
}

// The word of a branch that goes no further, and its probability.
std::optional<Lexicon::Word> Lexicon::whole(const Branch& branch) const {
    const auto row = branch.rows.front();
    if (!branch.depth || at(row, branch.depth - 1) != end_id_) return {};
    return Word{branch.probability, ids(row)};
}

// The word at the end of a run's path, if there is one; `left`: the branches that leave the path.
std::optional<Lexicon::Word> Lexicon::follow(const Branch& branch, const Told& read, std::vector<Branch>& left) const {
    auto rows = branch.rows;
    double probability = branch.probability;
    for (std::size_t depth = branch.depth; depth < columns_; ++depth) {
        const auto token = read.result.tokens[depth];
        const auto others =
            std::stable_partition(rows.begin(), rows.end(), [&](std::size_t row) { return at(row, depth) == token; });
        if (others != rows.end()) {
            leave({others, rows.end()}, depth, probability, read, left);
            rows.erase(others, rows.end());
        }
        probability *= static_cast<double>(read.result.scores[depth]);
        if (rows.empty()) return {};
        if (token == end_id_) return Word{probability, ids(rows.front())};
    }
    return {};
}

// Words that leave a path, whose beginning has that probability: by their next token, where all are told.
void Lexicon::leave(const Rows& rows, std::size_t depth, double probability, const Told& read,
                    std::vector<Branch>& left) const {
    if (read.chances.empty()) {
        const auto chance = static_cast<double>(read.result.scores[depth]);
        left.push_back({probability * std::min(chance, 1 - chance), rows, depth, probability});
        return;
    }
    std::map<std::int32_t, Rows> following;
    for (const auto row : rows) following[at(row, depth)].push_back(row);
    for (auto& [token, same] : following) {
        const double reached = probability * read.chances[depth * classes_ + static_cast<std::size_t>(token)];
        left.push_back({reached, std::move(same), depth + 1, reached});
    }
}

// The beginning is fixed; after it, each step may say what some word has there.
Allowed Lexicon::mask(const Rows& rows) const {
    Allowed mask(steps_ * classes_, forbidden);
    for (std::size_t step = 0; step < steps_; ++step) {
        const auto allow = [&](std::int32_t id) { mask[step * classes_ + static_cast<std::size_t>(id)] = 0; };
        if (step >= columns_) allow(end_id_);
        for (std::size_t place = 0; step < columns_ && place < rows.size(); ++place) allow(at(rows[place], step));
    }
    return mask;
}

// One word's own probability.
Lexicon::Word Lexicon::score(std::size_t row, const Run& run) const {
    const auto word = ids(row);
    const auto reading = run(mask({row})).result;
    double probability = 1;
    for (std::size_t step = 0; step <= word.size(); ++step) probability *= static_cast<double>(reading.scores[step]);
    return {probability, word};
}

std::vector<std::int32_t> Lexicon::ids(std::size_t row) const {
    const auto first = table_.begin() + static_cast<std::ptrdiff_t>(row * columns_);
    return {first, std::find(first, first + static_cast<std::ptrdiff_t>(columns_), end_id_)};
}

}  // namespace robustscanner
