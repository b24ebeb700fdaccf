#include "decoding.hpp"

#include <algorithm>
#include <set>

namespace robustscanner {
namespace {

// A word of a sign rarely has more letters, and a schedule chosen for the longest possible word would run thirty steps
// to read "EXIT".
constexpr int fewest_letters = 2, most_letters = 12;

// A machine that only counts time, with two clocks: of the host and of the device.
class TwoClocks : public Machine {
   public:
    TwoClocks(int steps_per_launch, const StepTimes& times, int needed)
        : steps_per_launch_(steps_per_launch), times_(times), needed_(needed) {}

    void start() override {}

    void queue(int) override {
        const int launches = times_.one_launch ? 1 : steps_per_launch_;
        double busy_until = ends_us_.empty() ? 0 : ends_us_.back();
        for (int launch = 0; launch < launches; ++launch) {
            host_us_ += times_.launch_us;
            busy_until = std::max(busy_until, host_us_) + times_.step_us * steps_per_launch_ / launches;
        }
        ends_us_.push_back(busy_until);
    }

    bool going(int block) override {
        host_us_ = std::max(host_us_, ends_us_[static_cast<std::size_t>(block)]) + times_.wait_us;
        return (block + 1) * steps_per_launch_ < needed_;
    }

    double end_us() const { return std::max(host_us_, ends_us_.back()) + times_.wait_us; }

   private:
    int steps_per_launch_;
    const StepTimes& times_;
    int needed_;  // steps of the word
    double host_us_ = 0;
    std::vector<double> ends_us_;  // of the blocks, on the device
};

}  // namespace

int decode(Machine& machine, int blocks, int lookahead) {
    machine.start();
    for (int block = 0; block < blocks; ++block) {
        const int known = block - 1 - lookahead;
        if (known >= 0 && !machine.going(known)) return block;
        machine.queue(block);
    }
    return blocks;
}

std::vector<int> batch_buckets(int smallest, int largest) {
    std::set<int> sizes = {smallest, largest};
    for (long size = 1; size < largest; size *= 2) {
        if (size > smallest) sizes.insert(static_cast<int>(size));
    }
    return {sizes.begin(), sizes.end()};
}

int bucket_for(int count, const std::vector<int>& buckets) {
    return *std::lower_bound(buckets.begin(), buckets.end(), count);
}

std::vector<int> divisors(int steps) {
    std::vector<int> sizes;
    for (int size = 1; size <= steps; ++size) {
        if (steps % size == 0) sizes.push_back(size);
    }
    return sizes;
}

Schedule choose_schedule(const StepTimes& times, int steps, std::optional<int> steps_per_launch,
                         std::optional<int> lookahead) {
    const auto sizes = steps_per_launch ? std::vector<int>{*steps_per_launch} : divisors(steps);
    const auto aheads = lookahead ? std::vector<int>{*lookahead} : std::vector<int>{0, 1};
    Schedule best;
    double best_us = -1;
    for (const int size : sizes) {
        for (const int ahead : aheads) {
            const double us = expected_us({size, ahead}, times, steps);
            if (best_us < 0 || us < best_us) {
                best = {size, ahead};
                best_us = us;
            }
        }
    }
    return best;
}

double expected_us(const Schedule& schedule, const StepTimes& times, int steps) {
    double sum_us = 0;
    for (int letters = fewest_letters; letters <= most_letters; ++letters) {
        TwoClocks clocks(schedule.steps_per_launch, times, std::min(letters + 1, steps));  // one more for the end token
        decode(clocks, steps / schedule.steps_per_launch, schedule.lookahead);
        sum_us += clocks.end_us();
    }
    return sum_us / (most_letters - fewest_letters + 1);
}

}  // namespace robustscanner
