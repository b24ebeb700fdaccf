#include "letters.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "automaton.hpp"
#include "robustscanner/errors.hpp"

namespace robustscanner {
namespace {

constexpr int column_px = 8;     // of the canvas: what CTC sees as one column
constexpr double floor_ = 1e-7;  // of probabilities, as in training/model/joint.py

using Row = std::vector<double>;
using Rows = std::vector<Row>;

std::size_t at(std::int32_t id) { return static_cast<std::size_t>(id); }

// The letter's own probability to the power of 1 / temperature; the others share what is left.
void temper(Row& row, std::size_t own, double temperature) {
    const double before = row[own], after = std::pow(before, 1 / temperature);
    for (auto& chance : row) chance *= (1 - after) / std::max(1 - before, floor_);
    row[own] = after;
}

std::vector<Letter::Guess> next_best(const Row& row, std::size_t own, const CharsetSpec& charset) {
    std::vector<std::size_t> order(row.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    order.erase(order.begin() + static_cast<std::ptrdiff_t>(own));
    const auto middle = order.begin() + std::min<std::ptrdiff_t>(2, static_cast<std::ptrdiff_t>(order.size()));
    std::partial_sort(order.begin(), middle, order.end(),
                      [&](std::size_t left, std::size_t right) { return row[left] > row[right]; });
    std::vector<Letter::Guess> best;
    for (auto index = order.begin(); index != middle; ++index) {
        const bool ends = *index == at(charset.end_id);
        best.push_back({ends ? "" : charset.tokens[*index], row[*index]});
    }
    return best;
}

// Sums over all beginnings of alignments with the columns, scaled so that each column's are 1 together.
Rows forward(const Rows& emitted, const Ids& states) {
    Rows sums(emitted.size(), Row(states.size()));
    for (std::size_t column = 0; column < emitted.size(); ++column) {
        auto& now = sums[column];
        for (std::size_t state = 0; state < states.size(); ++state) {
            double reached = column ? sums[column - 1][state] : state < 2 ? 1 : 0;
            if (column && state) reached += sums[column - 1][state - 1];
            // A blank may be left out between different letters.
            const bool skips = state > 1 && states[state] >= 0 && states[state] != states[state - 2];
            if (column && skips) reached += sums[column - 1][state - 2];
            now[state] = reached * emitted[column][state];
        }
        const double sum = std::accumulate(now.begin(), now.end(), 0.0);
        for (auto& share : now) share /= sum;
    }
    return sums;
}

Rows reversed(Rows rows) {
    std::reverse(rows.begin(), rows.end());
    for (auto& row : rows) std::reverse(row.begin(), row.end());
    return rows;
}

// What each column gives to each state of the text: its letters, with blanks around them.
Rows emitted(const float* seen, std::size_t columns, std::size_t classes, const Ids& states) {
    Rows rows(columns, Row(states.size()));
    for (std::size_t column = 0; column < columns; ++column) {
        const float* row = seen + column * classes;
        const double blank = 1 - std::accumulate(row, row + classes, 0.0);
        for (std::size_t state = 0; state < states.size(); ++state) {
            rows[column][state] = std::max(states[state] < 0 ? blank : double{row[at(states[state])]}, floor_);
        }
    }
    return rows;
}

// Where each letter stands on the canvas, in pixels: the mean place of the columns, by their share in it (Graves et
// al., «Connectionist temporal classification», ICML 2006, equations 5 to 16).
Row centres(const float* seen, std::size_t columns, std::size_t classes, const Ids& ids) {
    Ids states(2 * ids.size() + 1, -1);
    for (std::size_t index = 0; index < ids.size(); ++index) states[2 * index + 1] = ids[index];
    const auto given = emitted(seen, columns, classes, states);
    const auto before = forward(given, states);
    const auto after = reversed(forward(reversed(given), {states.rbegin(), states.rend()}));
    Row weights(ids.size()), places(ids.size());
    for (std::size_t column = 0; column < columns; ++column) {
        Row through(states.size());
        for (std::size_t state = 0; state < states.size(); ++state) {
            through[state] = before[column][state] * after[column][state] / given[column][state];
        }
        const double sum = std::accumulate(through.begin(), through.end(), 0.0);
        for (std::size_t index = 0; index < ids.size(); ++index) {
            const double share = through[2 * index + 1] / sum;
            weights[index] += share;
            places[index] += share * (static_cast<double>(column) + 0.5) * column_px;
        }
    }
    for (std::size_t index = 0; index < ids.size(); ++index) places[index] /= weights[index];
    return places;
}

// The first and the last letter reach as far to either side, within the picture.
std::vector<Letter::Place> extents(const Row& middles, double picture_px) {
    const auto within = [&](double px) { return std::clamp(px, 0.0, picture_px); };
    std::vector<Letter::Place> places;
    double left = middles.size() > 1 ? 2 * middles[0] - (middles[0] + middles[1]) / 2 : 0;
    for (std::size_t index = 0; index < middles.size(); ++index) {
        const bool last = index + 1 == middles.size();
        double right = picture_px;
        if (!last) right = (middles[index] + middles[index + 1]) / 2;
        if (last && index) right = 2 * middles[index] - left;
        places.push_back({within(left), within(middles[index]), within(right)});
        left = right;
    }
    return places;
}

}  // namespace

Ids spelled(const std::string& text, const ModelSpec& spec) {
    const auto& charset = spec.charset;
    const auto known = known_characters(charset);
    const int unknown = charset.unknown_id.value_or(charset.class_count);
    const std::string token = unknown < charset.class_count ? charset.tokens[at(unknown)] : "";
    Ids ids;
    for (std::size_t begin = 0; begin <= text.size();) {
        const auto end = token.empty() ? text.size() : std::min(text.find(token, begin), text.size());
        const auto part = spell(text.substr(begin, end - begin), known);
        ids.insert(ids.end(), part.begin(), part.end());
        if (end == text.size()) break;
        ids.push_back(unknown);  // as readings write what the model lacks
        begin = end + token.size();
    }
    const auto steps = static_cast<std::size_t>(spec.network.max_length);
    if (ids.size() > steps) {
        throw ConstraintError("'" + text + "' is longer than the " + std::to_string(steps) +
                              " characters of this model");
    }
    return ids;
}

Allowed forced(const Ids& ids, const ModelSpec& spec) {
    const auto steps = at(spec.network.max_length), classes = at(spec.charset.class_count);
    Allowed mask(steps * classes, forbidden);
    for (std::size_t step = 0; step < steps; ++step) {
        mask[step * classes + at(step < ids.size() ? ids[step] : spec.charset.end_id)] = 0;
    }
    return mask;
}

std::vector<Letter> describe(const Ids& ids, const Trace& trace, const ModelSpec& spec, int picture_px, int valid_px) {
    const auto classes = at(spec.charset.class_count);
    const auto columns = trace.columns.size() / classes;  // the last one says that the word ends
    std::vector<Letter::Place> places;
    std::size_t repeats = 0;  // each takes a blank column between the two
    for (std::size_t index = 1; index < ids.size(); ++index) repeats += ids[index] == ids[index - 1];
    if (ids.size() + repeats < columns) {
        auto middles = centres(trace.columns.data(), columns - 1, classes, ids);
        for (auto& middle : middles) middle *= static_cast<double>(picture_px) / valid_px;
        places = extents(middles, picture_px);
    }
    std::vector<Letter> letters;
    for (std::size_t index = 0; index < ids.size(); ++index) {
        const auto first = trace.chances.begin() + static_cast<std::ptrdiff_t>(index * classes);
        Row row(first, first + static_cast<std::ptrdiff_t>(classes));
        temper(row, at(ids[index]), spec.network.score_temperature);
        letters.push_back({spec.charset.tokens[at(ids[index])], row[at(ids[index])],
                           next_best(row, at(ids[index]), spec.charset),
                           places.empty() ? std::nullopt : std::optional(places[index])});
    }
    return letters;
}

}  // namespace robustscanner
