// The row LSTM as one persistent wave: the upper layer works on column s - 1 while the lower one works on column s, so
// that S columns are S + 1 rounds with one exchange in each but the last.
#pragma once

#include "call.hpp"
#include "exchange.hpp"
#include "recurrence.hpp"

namespace robustscanner {
namespace cuda {

template <class C, class Exchange>
struct RowsShared {
    RS_DEVICE RowsShared(const RowsCall& call, char* base) {
        Carver carver(base);
        slot_count = 2 * call.tile * 2 * C::kHidden;
        slots = carver.take<Slot>(Exchange::kInShared ? slot_count : 0);
        states = carver.take<float>(2 * call.tile * 2 * C::kHidden);
        cells = carver.take<float>(2 * call.tile * C::kOwn);
        used_bytes = carver.used_bytes();
    }

    int slot_count, used_bytes;
    Slot* slots;
    float* states;  // [2 rounds, tile, 2 layers, D]
    float* cells;   // [2 layers, tile, own units]
};

template <class C, class T, class Exchange>
class Rows {
   public:
    RS_DEVICE explicit Rows(const RowsCall& call)
        : call_(call),
          shared_(call, shared_memory()),
          group_(block_index() / C::kBlocks),
          recurrence_(static_cast<const T*>(call.lower), static_cast<const T*>(call.upper),
                      block_index() % C::kBlocks),
          exchange_(shared_.slots, shared_.slot_count, call.scratch, call.scratch_slots, group_) {}

    RS_DEVICE void run() {
        for (int first = group_ * call_.tile; first < call_.sequences; first += call_.groups * call_.tile) {
            const int left = call_.sequences - first;
            wave(first, left < call_.tile ? left : call_.tile);
        }
        exchange_.leave();
    }

   private:
    RS_DEVICE void wave(int first, int count) {
        sync_block();  // the wave before has read what is cleared now
        for (int i = thread_index(); i < 4 * call_.tile * C::kHidden; i += C::kThreads) shared_.states[i] = 0;
        for (int i = thread_index(); i < 2 * call_.tile * C::kOwn; i += C::kThreads) shared_.cells[i] = 0;
        sync_block();
        for (int round = 0; round <= call_.columns; ++round) {
            if (round < call_.columns) exchange_.next();  // one after another: their slots take turns
            for (int row = 0; row < count; ++row) {
                if (round < call_.columns) lower(first + row, row, round);
                if (round > 0) upper(first + row, row, round);
            }
            if (round < call_.columns) collect(count, round);
        }
    }

    RS_DEVICE void lower(int sequence, int row, int round) {
        for (int u = 0; u < C::kUnits; ++u) {
            const int unit = recurrence_.unit(u);
            const T* const share = static_cast<const T*>(call_.shares) +
                                   ((static_cast<long long>(sequence) * call_.columns + round) * C::kHidden + unit) * 4;
            if (recurrence_.lane() == 0 && round + 1 < call_.columns) prefetch(share + 4 * C::kHidden);
            const Float4 gates = recurrence_.lower(u, load4(share), states(round, row));
            put(row, unit, recurrence_.state(gates, shared_.cells + row * C::kOwn + recurrence_.own(u)));
        }
    }

    RS_DEVICE void upper(int sequence, int row, int round) {
        for (int u = 0; u < C::kUnits; ++u) {
            const int unit = recurrence_.unit(u);
            const float* const before = states(round, row);
            const Float4 gates = recurrence_.upper(u, load4(call_.bias + 4 * unit), before, before + C::kHidden);
            const int own = (call_.tile + row) * C::kOwn + recurrence_.own(u);
            const float state = recurrence_.state(gates, shared_.cells + own);
            if (recurrence_.lane() == 0) {
                const long long column = static_cast<long long>(sequence) * call_.columns + round - 1;
                store(static_cast<T*>(call_.states) + column * C::kHidden + unit, state);
            }
            if (round < call_.columns) put(row, C::kHidden + unit, state);
        }
    }

    // What the round before this one gave; the first finds zeros.
    RS_DEVICE float* states(int round, int row) const {
        return shared_.states + ((round & 1) * call_.tile + row) * 2 * C::kHidden;
    }

    RS_DEVICE int slot(int row, int index) const {
        return (static_cast<int>(exchange_.tag() & 1) * call_.tile + row) * 2 * C::kHidden + index;
    }

    RS_DEVICE void put(int row, int index, float state) const {
        exchange_.put(slot(row, index), state, recurrence_.lane(), C::kLanes);
    }

    RS_DEVICE void collect(int count, int round) const {
        for (int i = thread_index(); i < count * 2 * C::kHidden; i += C::kThreads) {
            const int row = i / (2 * C::kHidden), index = i % (2 * C::kHidden);
            if (round == 0 && index >= C::kHidden) continue;  // the upper layer has nothing yet
            states(round + 1, row)[index] = exchange_.take(slot(row, index));
        }
        sync_block();
    }

    const RowsCall& call_;
    RowsShared<C, Exchange> shared_;
    int group_;
    Recurrence<C> recurrence_;
    Exchange exchange_;
};

}  // namespace cuda
}  // namespace robustscanner
