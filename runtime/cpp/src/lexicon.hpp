// The best word of a list, under the model's own probabilities; the search is that of Python's words.py.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "robustscanner/constraint.hpp"
#include "robustscanner/session.hpp"
#include "robustscanner/spec.hpp"

namespace robustscanner {

// A list of words in a model's ids.
class Lexicon {
   public:
    // Probabilities are products over all tokens of a word, its end included.
    struct Found {
        std::vector<std::int32_t> ids;
        double probability = -1;
        double others = 0;  // no other word of the list has a higher probability than this
    };
    using Run = std::function<Told(const Allowed&)>;  // reads one picture again

    // Throws ConstraintError: no words, too many, or one that this model cannot write.
    Lexicon(const std::vector<std::string>& words, const ModelSpec& spec);

    // The best word of one picture, whose free reading is `free`.
    Found search(const Result& free, const Run& run) const;

   private:
    using Rows = std::vector<std::size_t>;

    // Words that share a beginning, less some continuations.
    struct Branch {
        double bound;
        Rows rows;           // of the table
        std::size_t depth;   // tokens that they share
        double probability;  // of the beginning
    };
    using Word = std::pair<double, std::vector<std::int32_t>>;

    std::int32_t at(std::size_t row, std::size_t depth) const { return table_[row * columns_ + depth]; }
    Found search(Branch everything, const Run& run) const;
    std::optional<Word> follow(const Branch& branch, const Told& read, std::vector<Branch>& left) const;
    std::optional<Word> whole(const Branch& branch) const;
    void leave(const Rows& rows, std::size_t depth, double probability, const Told& read,
               std::vector<Branch>& left) const;
    Allowed mask(const Rows& rows) const;
    Word score(std::size_t row, const Run& run) const;
    std::vector<std::int32_t> ids(std::size_t row) const;

    std::int32_t end_id_;
    std::size_t steps_, classes_, rows_ = 0, columns_ = 0;
    std::vector<std::int32_t> table_;  // (words, longest + 1), filled up with the end
};

}  // namespace robustscanner
