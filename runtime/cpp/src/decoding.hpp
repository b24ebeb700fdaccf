// How decoding is driven: which batch runs in which bucket, how many steps a launch holds, and when to stop.
// Whoever owns the device says how to queue work on it; what is decided here needs no device.
#pragma once

#include <optional>
#include <utility>
#include <vector>

namespace robustscanner {

// One batch bucket on a device that works through a queue while the host goes on.
class Machine {
   public:
    virtual ~Machine() = default;

    // Queues the encoder and a fresh decoding state.
    virtual void start() = 0;

    // Queues a block of steps and, after it, the message whether any row still runs.
    virtual void queue(int block) = 0;

    // Waits for the message of a block.
    virtual bool going(int block) = 0;
};

// How the steps are handed to the device.
struct Schedule {
    int steps_per_launch = 1;  // of one block; divides the model's max_length
    int lookahead = 0;         // blocks queued beyond the awaited one: with 1 the device never idles meanwhile
};

// What a step costs here.
struct StepTimes {
    double step_us = 0;       // on the device
    double launch_us = 0;     // of the host, to queue a step, or a whole block when that is one launch
    double wait_us = 0;       // from the end of a block until the host knows
    bool one_launch = false;  // a block is one launch (a CUDA graph), not one for each step
};

// Runs blocks until no row is left that still reads; `blocks` is the most there may be. Returns those that were queued.
int decode(Machine& machine, int blocks, int lookahead);

// Batch sizes to prepare, ascending: the powers of two between the bounds, and the bounds.
std::vector<int> batch_buckets(int smallest, int largest);

// The smallest of the ascending buckets that holds `count` pictures, at most the last one's.
int bucket_for(int count, const std::vector<int>& buckets);

// The block sizes that leave no remainder, ascending: a step beyond the last would write outside its buffers.
std::vector<int> divisors(int steps);

// The schedule that reads typical words soonest; of equal ones that with the shortest blocks. What is given is kept.
Schedule choose_schedule(const StepTimes& times, int steps, std::optional<int> steps_per_launch,
                         std::optional<int> lookahead);

// Mean time of decoding words of 2 to 12 letters, all equally likely.
double expected_us(const Schedule& schedule, const StepTimes& times, int steps);

}  // namespace robustscanner
