// The CTC half of joint scoring (arXiv:1609.06773): how likely a prefix is under the encoder's posteriors, extended by
// each class. State of a word: for every column, the probability that the prefix ends there in a label, or in blank.
#pragma once

#include "call.hpp"
#include "device.hpp"

namespace robustscanner {
namespace cuda {

constexpr float CTC_FLOOR = 1e-6f;     // of a class's share, before the logarithm
constexpr float CTC_NOTHING = 1e-30f;  // of the sum of all classes, when nothing fits any more

// A word's forward variables in shared memory, and what the columns say.
struct Forward {
    RS_DEVICE Forward(const DecodeCall& call, int word, float* place)
        : columns(call.columns),
          label_step(call.label_step),
          blank_step(call.blank_step),
          labels(call.labels + static_cast<long long>(word) * call.label_word),
          blanks(call.blanks + static_cast<long long>(word) * call.blank_word),
          label(place),
          blank(place + columns),
          gain(place + 2 * columns),
          keep(place + 3 * columns) {}

    static constexpr int kArrays = 4;  // of `columns` numbers each

    RS_DEVICE float says(int column, int id) const { return load(labels + column * label_step + id); }
    RS_DEVICE float says_nothing(int column) const { return load(blanks + column * blank_step); }

    // Before the first token; by one thread.
    RS_DEVICE void start() const {
        float product = 1;
        for (int t = 0; t < columns; ++t) {
            product *= says_nothing(t);
            label[t] = 0;
            blank[t] = product;
        }
    }

    // What may be extended by `id` from column `t` on: the prefix ended before it.
    RS_DEVICE float before(int t, int id, int last, bool empty) const {
        if (t == 0) return empty ? 1.0f : 0.0f;
        return blank[t - 1] + (id == last ? 0.0f : label[t - 1]);
    }

    // The prefix, which ended in `last`, is now followed by `id`; by a whole warp. Scaled, so that the largest is 1.
    template <class C>
    RS_DEVICE void extend(int id, int last, bool empty) const {
        const int lane = thread_index() % C::kWarp;
        for (int t = lane; t < columns; t += C::kWarp) {
            keep[t] = says(t, id);
            gain[t] = keep[t] * before(t, id, last, empty);
        }
        sync_warp();
        if (lane == 0) follow();
        sync_warp();
        float most = 0;
        for (int t = lane; t < columns; t += C::kWarp) most = larger(most, larger(label[t], blank[t]));
        most = warp_max<C>(most);
        const float scale = most > 0 ? 1.0f / most : 0.0f;
        for (int t = lane; t < columns; t += C::kWarp) label[t] *= scale, blank[t] *= scale;
    }

    RS_DEVICE float ending() const { return label[columns - 1] + blank[columns - 1]; }

    int columns, label_step, blank_step;
    const float *labels, *blanks;
    float *label, *blank, *gain, *keep;

   private:
    RS_DEVICE static float larger(float a, float b) { return a > b ? a : b; }

    RS_DEVICE void follow() const {
        float in_label = 0, in_blank = 0;
        for (int t = 0; t < columns; ++t) {
            const float now = keep[t] * in_label + gain[t];
            in_blank = says_nothing(t) * (in_blank + in_label);
            in_label = now;
            label[t] = in_label;
            blank[t] = in_blank;
        }
    }
};

}  // namespace cuda
}  // namespace robustscanner
