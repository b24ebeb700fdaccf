// How decoding is driven, without a device.
#include "decoding.hpp"

#include <gtest/gtest.h>

namespace robustscanner {
namespace {

// Ends at a step; counts what was queued.
class Counter : public Machine {
   public:
    explicit Counter(int last_block) : last_block_(last_block) {}
    void start() override { ++started; }
    void queue(int block) override { EXPECT_EQ(block, queued++); }
    bool going(int block) override {
        EXPECT_LT(block, queued);
        return block < last_block_;
    }
    int started = 0, queued = 0;

   private:
    int last_block_;
};

TEST(Decode, StopsWhenNoRowReads) {
    Counter asks_first(2), looks_ahead(2), never_ends(99);
    EXPECT_EQ(decode(asks_first, 10, 0), 3);
    EXPECT_EQ(decode(looks_ahead, 10, 1), 4);
    EXPECT_EQ(decode(never_ends, 10, 1), 10);
    EXPECT_EQ(asks_first.started, 1);
}

TEST(Buckets, ArePowersOfTwoAndTheBounds) {
    EXPECT_EQ(batch_buckets(1, 8), (std::vector<int>{1, 2, 4, 8}));
    EXPECT_EQ(batch_buckets(3, 20), (std::vector<int>{3, 4, 8, 16, 20}));
    EXPECT_EQ(batch_buckets(5, 5), (std::vector<int>{5}));
    EXPECT_EQ(bucket_for(3, {1, 2, 4, 8}), 4);
    EXPECT_EQ(divisors(12), (std::vector<int>{1, 2, 3, 4, 6, 12}));
}

TEST(Schedule, FitsWhatCosts) {
    const StepTimes dear_message{10, 5, 1000, true}, free_message{100, 1, 0, true};
    EXPECT_GT(choose_schedule(dear_message, 40, {}, {}).steps_per_launch, 4);
    EXPECT_EQ(choose_schedule(free_message, 40, {}, {}).steps_per_launch, 1);
    const auto kept = choose_schedule(free_message, 40, 8, 1);
    EXPECT_EQ(kept.steps_per_launch, 8);
    EXPECT_EQ(kept.lookahead, 1);
    // One block of all steps: start to end on the device, and one message.
    EXPECT_DOUBLE_EQ(expected_us({40, 0}, {10, 5, 7, true}, 40), 5 + 400 + 7);
}

}  // namespace
}  // namespace robustscanner
