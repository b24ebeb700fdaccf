// The whole decoding loop in one launch: a group of blocks reads a tile of words together, from the start token until
// each has ended. A step is four exchanges: the state of either layer, the scores, and the logits.
#pragma once

#include "call.hpp"
#include "ctc.hpp"
#include "exchange.hpp"
#include "recurrence.hpp"

namespace robustscanner {
namespace cuda {

// Shared memory of a block; every array begins with the words of the tile.
template <class C, class Exchange>
struct DecodeShared {
    RS_DEVICE DecodeShared(const DecodeCall& call, char* base) {
        const int tile = call.tile, width = share_most<C>(call.channels);
        const bool joint = call.columns > 0;
        Carver carver(base);
        lower_slots = 0;
        upper_slots = lower_slots + tile * C::kHidden;
        score_slots = upper_slots + tile * C::kHidden;
        logit_slots = score_slots + tile * call.places;
        prefix_slots = logit_slots + tile * C::kBlocks * call.classes;
        slot_count = prefix_slots + (joint ? tile * call.classes : 0);
        slots = carver.take<Slot>(Exchange::kInShared ? slot_count : 0);
        states = carver.take<float>(2 * tile * 2 * C::kHidden);
        cells = carver.take<float>(2 * tile * C::kOwn);
        scores = carver.take<float>(tile * call.places);
        int most = 2 * width > call.classes ? 2 * width : call.classes;
        most = most > share_most<C>(call.places) ? most : share_most<C>(call.places);
        partial = carver.take<float>(tile * most > C::kThreads ? tile * most : C::kThreads);
        fused = carver.take<float>(tile * 2 * width);
        gated = carver.take<float>(tile * width);
        logits = carver.take<float>(tile * call.classes);
        prefixes = carver.take<float>(joint ? tile * call.classes : 0);
        forward = carver.take<float>(tile * Forward::kArrays * call.columns);
        said = carver.take<int>(tile * call.steps);
        sure = carver.take<float>(tile * call.steps);
        token = carver.take<int>(tile);
        last = carver.take<int>(tile);
        length = carver.take<int>(tile);
        running = carver.take<int>(tile + 1);
        used_bytes = carver.used_bytes();
    }

    int lower_slots, upper_slots, score_slots, logit_slots, prefix_slots;  // where each exchange's slots begin
    int slot_count, used_bytes;
    Slot* slots;
    float* states;    // [2 steps, tile, 2 layers, D]
    float* cells;     // [2 layers, tile, own units]
    float* scores;    // [tile, P], then attention
    float* partial;   // of sum_terms
    float* fused;     // [tile, 2, own channels] content and gate
    float* gated;     // [tile, own channels]
    float* logits;    // [tile, K]
    float* prefixes;  // [tile, K] of the CTC classifier
    float* forward;   // [tile, kArrays, U]
    int* said;        // [tile, T]
    float* sure;      // [tile, T]
    int* token;       // [tile] what each word says now
    int* last;        // [tile] what it said before; -1: nothing
    int* length;      // [tile] steps, once it has ended
    int* running;     // [tile] words that still read, then their number
};

template <class C, class T, class Exchange>
class Decode {
   public:
    RS_DEVICE explicit Decode(const DecodeCall& call)
        : call_(call),
          shared_(call, shared_memory()),
          group_(block_index() / C::kBlocks),
          rank_(block_index() % C::kBlocks),
          recurrence_(static_cast<const T*>(call.lower), static_cast<const T*>(call.upper), rank_),
          exchange_(shared_.slots, shared_.slot_count, call.scratch, call.scratch_slots, group_) {}

    RS_DEVICE void run() {
        for (int first = group_ * call_.tile; first < call_.words; first += call_.groups * call_.tile) {
            const int left = call_.words - first;
            read(first, left < call_.tile ? left : call_.tile);
        }
        exchange_.leave();
    }

   private:
    RS_DEVICE void read(int first, int count) {
        first_ = first;
        start(count);
        for (int step = 0; step < call_.steps && running_ > 0; ++step) {
            lower(step);
            upper(step);
            score(step);
            look(step);
            classify(step);
            choose(step);
        }
        finish(count);
    }

    RS_DEVICE void start(int count) {
        sync_block();  // the tile before has been written out
        for (int i = thread_index(); i < 4 * call_.tile * C::kHidden; i += C::kThreads) shared_.states[i] = 0;
        for (int i = thread_index(); i < 2 * call_.tile * C::kOwn; i += C::kThreads) shared_.cells[i] = 0;
        for (int row = thread_index(); row < count; row += C::kThreads) {
            shared_.token[row] = call_.start_id;
            shared_.last[row] = -1;
            shared_.length[row] = call_.steps;
            shared_.running[row] = row;
            if (call_.columns > 0) forward(row).start();
        }
        running_ = count;
        sync_block();
    }

    RS_DEVICE void lower(int step) {
        exchange_.next();
        for (int i = 0; i < running_; ++i) {
            const int row = shared_.running[i];
            for (int u = 0; u < C::kUnits; ++u) {
                const long long share = static_cast<long long>(shared_.token[row]) * C::kHidden + recurrence_.unit(u);
                const Float4 gates = recurrence_.lower(u, load4(call_.table + 4 * share), states(step, row));
                float* const cell = shared_.cells + row * C::kOwn + recurrence_.own(u);
                put_state(shared_.lower_slots, row, u, recurrence_.state(gates, cell));
            }
        }
        collect_states(shared_.lower_slots, step, 0);
    }

    RS_DEVICE void upper(int step) {
        exchange_.next();
        for (int i = 0; i < running_; ++i) {
            const int row = shared_.running[i];
            for (int u = 0; u < C::kUnits; ++u) {
                const Float4 bias = load4(call_.bias + 4 * recurrence_.unit(u));
                const float* const below = states(step + 1, row);
                const Float4 gates = recurrence_.upper(u, bias, below, states(step, row) + C::kHidden);
                float* const cell = shared_.cells + (call_.tile + row) * C::kOwn + recurrence_.own(u);
                put_state(shared_.upper_slots, row, u, recurrence_.state(gates, cell));
            }
        }
        collect_states(shared_.upper_slots, step, C::kHidden);
    }

    // Query times keys, of this block's places; then softmax over all of them, in every block alike.
    RS_DEVICE void score(int step) {
        exchange_.next();
        if (call_.columns > 0 && step > 0) extend(step);
        const int begin = share_begin<C>(call_.places, rank_);
        const int count = share_begin<C>(call_.places, rank_ + 1) - begin;
        const auto key = [&](int output, int unit) {
            const int row = shared_.running[output / count], place = begin + output % count;
            const long long word = first_ + row;
            return (states(step + 1, row) + C::kHidden)[unit] *
                   load(call_.keys + word * C::kHidden * call_.places + unit * call_.key_unit + place * call_.key_place);
        };
        sum_terms<C>(running_ * count, C::kHidden, shared_.partial, key, [&](int output, float sum) {
            const int row = shared_.running[output / count], place = begin + output % count;
            const float mask = load(call_.mask + static_cast<long long>(first_ + row) * call_.places + place);
            exchange_.put(shared_.score_slots + row * call_.places + place, sum + mask, 0, 1);
        });
        for (int i = thread_index(); i < running_ * call_.places; i += C::kThreads) {
            const int index = shared_.running[i / call_.places] * call_.places + i % call_.places;
            shared_.scores[index] = exchange_.take(shared_.score_slots + index);
        }
        sync_block();
        for (int i = warp(); i < running_; i += kWarps) attend(shared_.scores + shared_.running[i] * call_.places);
        sync_block();
    }

    RS_DEVICE void attend(float* scores) const {
        float most = scores[0];
        for (int p = warp_lane(); p < call_.places; p += C::kWarp) most = scores[p] > most ? scores[p] : most;
        most = warp_max<C>(most);
        float sum = 0;
        for (int p = warp_lane(); p < call_.places; p += C::kWarp) {
            scores[p] = exponential(scores[p] - most);
            sum += scores[p];
        }
        sum = warp_sum<C>(sum);
        for (int p = warp_lane(); p < call_.places; p += C::kWarp) scores[p] /= sum;
    }

    // The glimpse in this block's channels, fused with the position branch's and gated.
    RS_DEVICE void look(int step) {
        const int begin = share_begin<C>(call_.channels, rank_);
        const int count = share_begin<C>(call_.channels, rank_ + 1) - begin;
        const auto channel = [&](int output) {  // contents first, then their gates
            const int index = output % (2 * count);
            return index < count ? begin + index : call_.channels + begin + index - count;
        };
        const int fused = 2 * call_.channels;
        const auto value = [&](int output, int place) {
            const int row = shared_.running[output / (2 * count)];
            const long long word = first_ + row;
            return shared_.scores[row * call_.places + place] *
                   load(static_cast<const T*>(call_.values) + word * call_.places * fused + place * call_.value_place +
                        channel(output) * call_.value_channel);
        };
        sum_terms<C>(running_ * 2 * count, call_.places, shared_.partial, value, [&](int output, float sum) {
            const long long here = static_cast<long long>(first_ + shared_.running[output / (2 * count)]) * call_.steps;
            shared_.fused[output] =
                sum + load(static_cast<const T*>(call_.position) + (here + step) * fused + channel(output));
        });
        sync_block();
        for (int i = thread_index(); i < running_ * count; i += C::kThreads) {
            const float* const contents = shared_.fused + i / count * 2 * count;
            shared_.gated[i] = contents[i % count] * sigmoid(contents[count + i % count]);
        }
        sync_block();
    }

    // Every block adds its channels' share of all logits, and the prefix scores of its share of the classes.
    RS_DEVICE void classify(int step) {
        exchange_.next();
        const int begin = share_begin<C>(call_.channels, rank_);
        const int count = share_begin<C>(call_.channels, rank_ + 1) - begin;
        const int classes = call_.classes;
        const auto weight = [&](int output, int channel) {
            const long long row = begin + channel;
            return shared_.gated[output / classes * count + channel] *
                   load(static_cast<const T*>(call_.classifier) + row * classes + output % classes);
        };
        sum_terms<C>(running_ * classes, count, shared_.partial, weight, [&](int output, float sum) {
            const int row = shared_.running[output / classes];
            exchange_.put(shared_.logit_slots + (row * C::kBlocks + rank_) * classes + output % classes, sum, 0, 1);
        });
        if (call_.columns > 0) extensions(step);
        for (int i = thread_index(); i < running_ * classes; i += C::kThreads) {
            collect_class(shared_.running[i / classes], i % classes, step);
        }
        sync_block();
    }

    RS_DEVICE void collect_class(int row, int id, int step) const {
        float sum = load(call_.classifier_bias + id);
        for (int rank = 0; rank < C::kBlocks; ++rank) {
            sum += exchange_.take(shared_.logit_slots + (row * C::kBlocks + rank) * call_.classes + id);
        }
        const long long here = static_cast<long long>(first_ + row) * call_.steps + step;
        if (call_.logits && rank_ == 0) call_.logits[here * call_.classes + id] = sum;
        const int index = row * call_.classes + id;
        shared_.logits[index] = sum;
        if (call_.columns > 0) shared_.prefixes[index] = exchange_.take(shared_.prefix_slots + index);
    }

    // What each word said goes into its forward variables, a warp a word.
    RS_DEVICE void extend(int step) const {
        for (int i = warp(); i < running_; i += kWarps) {
            const int row = shared_.running[i];
            forward(row).template extend<C>(shared_.token[row], shared_.last[row], step == 1);
        }
    }

    RS_DEVICE void extensions(int step) const {
        sync_block();  // `partial` is free again
        const int begin = share_begin<C>(call_.classes, rank_);
        const int count = share_begin<C>(call_.classes, rank_ + 1) - begin;
        const auto term = [&](int output, int column) {
            const int row = shared_.running[output / count], id = begin + output % count;
            const Forward word = forward(row);
            const int ended = step > 0 ? shared_.token[row] : -1;
            return word.before(column, id, ended, step == 0) * word.says(column, id);
        };
        sum_terms<C>(running_ * count, call_.columns, shared_.partial, term, [&](int output, float sum) {
            const int row = shared_.running[output / count], id = begin + output % count;
            const float prefix = id == call_.end_id ? forward(row).ending() : sum;
            exchange_.put(shared_.prefix_slots + row * call_.classes + id, prefix, 0, 1);
        });
    }

    // Every block chooses for itself, and all alike.
    RS_DEVICE void choose(int step) {
        for (int i = warp(); i < running_; i += kWarps) say(shared_.running[i], step);
        sync_block();
        if (thread_index() == 0) {
            int left = 0;
            for (int i = 0; i < running_; ++i) {
                const int row = shared_.running[i];
                if (shared_.length[row] > step + 1) shared_.running[left++] = row;
            }
            shared_.running[call_.tile] = left;
        }
        sync_block();
        running_ = shared_.running[call_.tile];
    }

    RS_DEVICE void say(int row, int step) const {
        float* const logits = shared_.logits + row * call_.classes;
        if (call_.columns > 0) join(logits, shared_.prefixes + row * call_.classes);
        const int likeliest = highest(logits, nullptr);
        int best = likeliest;
        if (call_.allowed_rows > 0) {
            best = highest(logits, call_.allowed + (call_.allowed_rows > 1 ? step : 0) * call_.classes);
        }
        const float most = logits[likeliest];
        float sum = 0;  // among all, so that the score says how much was forced
        for (int id = warp_lane(); id < call_.classes; id += C::kWarp) sum += exponential(logits[id] - most);
        sum = warp_sum<C>(sum);
        if (warp_lane() != 0) return;
        shared_.last[row] = step > 0 ? shared_.token[row] : -1;
        shared_.token[row] = best;
        shared_.said[row * call_.steps + step] = best;
        shared_.sure[row * call_.steps + step] = exponential(logits[best] - most) / sum;
        if (best == call_.end_id) shared_.length[row] = step + 1;
    }

    // The id of the highest logit, what is allowed added where that is given; by a whole warp.
    RS_DEVICE int highest(const float* logits, const float* allowed) const {
        float most = 0;
        int best = call_.classes;
        for (int id = warp_lane(); id < call_.classes; id += C::kWarp) {
            const float logit = logits[id] + (allowed ? load(allowed + id) : 0.0f);
            if (best == call_.classes || logit > most) most = logit, best = id;
        }
        for (int lanes = C::kWarp / 2; lanes > 0; lanes /= 2) {  // of equal ones the first, as ArgMax does
            const float other = shuffle_xor(most, lanes);
            const int id = static_cast<int>(shuffle_xor(static_cast<float>(best), lanes));
            if (id < call_.classes && (best == call_.classes || other > most || (other == most && id < best))) {
                most = other, best = id;
            }
        }
        return best;
    }

    // Logits, attention's weight in them already, become joint scores; by a whole warp.
    RS_DEVICE void join(float* logits, const float* prefixes) const {
        float total = 0;
        for (int id = warp_lane(); id < call_.classes; id += C::kWarp) total += prefixes[id];
        total = warp_sum<C>(total);
        total = total > CTC_NOTHING ? total : CTC_NOTHING;
        for (int id = warp_lane(); id < call_.classes; id += C::kWarp) {
            logits[id] += call_.ctc_weight * logarithm(prefixes[id] / total + CTC_FLOOR);
        }
        sync_warp();
    }

    RS_DEVICE void finish(int count) const {
        if (rank_ != 0) return;
        for (int i = thread_index(); i < count * call_.steps; i += C::kThreads) {
            const bool over = i % call_.steps >= shared_.length[i / call_.steps];
            const long long here = static_cast<long long>(first_) * call_.steps + i;
            call_.tokens[here] = over ? call_.pad_id : shared_.said[i];
            call_.scores[here] = over ? 1.0f : shared_.sure[i];
        }
        sync_block();
        for (int row = thread_index(); row < count; row += C::kThreads) {
            announce(call_.lengths + first_ + row, shared_.length[row]);
        }
    }

    RS_DEVICE void put_state(int slots, int row, int u, float state) const {
        exchange_.put(slots + row * C::kHidden + recurrence_.unit(u), state, recurrence_.lane(), C::kLanes);
    }

    RS_DEVICE void collect_states(int slots, int step, int layer) const {
        for (int i = thread_index(); i < running_ * C::kHidden; i += C::kThreads) {
            const int row = shared_.running[i / C::kHidden], unit = i % C::kHidden;
            (states(step + 1, row) + layer)[unit] = exchange_.take(slots + row * C::kHidden + unit);
        }
        sync_block();
    }

    // What the step before this one gave; the first finds zeros.
    RS_DEVICE float* states(int step, int row) const {
        return shared_.states + ((step & 1) * call_.tile + row) * 2 * C::kHidden;
    }

    RS_DEVICE Forward forward(int row) const {
        return Forward(call_, first_ + row, shared_.forward + row * Forward::kArrays * call_.columns);
    }

    static constexpr int kWarps = C::kThreads / C::kWarp;
    RS_DEVICE static int warp() { return thread_index() / C::kWarp; }
    RS_DEVICE static int warp_lane() { return thread_index() % C::kWarp; }

    const DecodeCall& call_;
    DecodeShared<C, Exchange> shared_;
    int group_, rank_;
    Recurrence<C> recurrence_;
    Exchange exchange_;
    int first_ = 0, running_ = 0;  // of the tile that is read
};

}  // namespace cuda
}  // namespace robustscanner
