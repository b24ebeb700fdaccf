// How the blocks of a group give each other numbers. A slot is a word of 64 bits, a number and a tag; whoever needs the
// number waits until the slot has this exchange's tag. So an exchange is one write and one read, without a barrier beside
// it (NCCL's «LL» protocol does the same between GPUs).
//
// A slot may be written again once every block has surely read it: when each block has waited for something of every
// other in an exchange in between, as a block gives a number only after it has taken those of the exchange before.
#pragma once

#include "device.hpp"

namespace robustscanner {
namespace cuda {

// In global memory, that is in the L2 cache: for GPUs without clusters. All blocks have to run at once (a cooperative
// launch). Tags go on from launch to launch, so that nothing has to be cleared before one.
class GridExchange {
   public:
    static constexpr bool kInShared = false;
    static constexpr unsigned kTagsOfLaunch = 1u << 16;

    // What begins the scratch memory; the slots of all groups follow.
    struct Header {
        unsigned epoch;  // tags of this launch lie above it
        unsigned exits;  // blocks that are done
        unsigned unused[2];
    };

    RS_DEVICE GridExchange(Slot*, int count, void* scratch, int scratch_slots, int group)
        : header_(static_cast<Header*>(scratch)),
          all_(reinterpret_cast<Slot*>(header_ + 1)),
          slots_(all_ + static_cast<long long>(group) * count),
          all_count_(scratch_slots),
          tag_(load_counter(&header_->epoch)) {}

    RS_DEVICE void next() { ++tag_; }
    RS_DEVICE unsigned tag() const { return tag_; }

    // Threads 0, 1, … of `helpers` call it with the same number.
    RS_DEVICE void put(int index, float value, int thread, int) const {
        if (thread == 0) store_slot(slots_ + index, static_cast<Slot>(tag_) << 32 | float_bits(value));
    }

    RS_DEVICE float take(int index) const {
        Slot word = load_slot(slots_ + index);
        while (static_cast<unsigned>(word >> 32) != tag_) word = load_slot_after(slots_ + index, word);
        return bits_float(static_cast<unsigned>(word));
    }

    // The last block to go leaves the header as the next launch wants it.
    RS_DEVICE void leave() const {
        sync_block();
        if (thread_index() != 0 || count_up(&header_->exits) + 1 != static_cast<unsigned>(block_count())) return;
        const unsigned epoch = load_counter(&header_->epoch) + kTagsOfLaunch;
        if (epoch == 0) {  // numbers begin again, once in 65,536 launches: no old tag may look like a new one
            for (int i = 0; i < all_count_; ++i) store_slot(all_ + i, 0);
        }
        header_->exits = 0;
        header_->epoch = epoch;
    }

   private:
    Header* header_;
    Slot* all_;
    Slot* slots_;
    int all_count_;
    unsigned tag_;
};

#ifdef RS_CLUSTERS
// In the shared memory of every block of a cluster: a number is written to all of them, and each reads its own.
template <class C>
class ClusterExchange {
   public:
    static constexpr bool kInShared = true;

    RS_DEVICE ClusterExchange(Slot* slots, int count, void*, int, int) : slots_(slots) {
        for (int i = thread_index(); i < count; i += C::kThreads) slots_[i] = 0;
        sync_cluster();  // before anybody writes here
    }

    RS_DEVICE void next() { ++tag_; }
    RS_DEVICE unsigned tag() const { return tag_; }

    RS_DEVICE void put(int index, float value, int thread, int helpers) const {
        const Slot word = static_cast<Slot>(tag_) << 32 | float_bits(value);
        for (int peer = thread; peer < C::kBlocks; peer += helpers) store_peer_slot(slots_ + index, peer, word);
    }

    RS_DEVICE float take(int index) const {
        Slot word = load_shared_slot(slots_ + index);
        while (static_cast<unsigned>(word >> 32) != tag_) word = load_shared_slot_after(slots_ + index, word);
        return bits_float(static_cast<unsigned>(word));
    }

    RS_DEVICE void leave() const { sync_cluster(); }  // nobody goes while others write to its memory

   private:
    Slot* slots_;
    unsigned tag_ = 0;
};
#endif

}  // namespace cuda
}  // namespace robustscanner
