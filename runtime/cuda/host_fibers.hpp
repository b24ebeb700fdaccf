// Who plays the GPU's threads: fibers of one thread, which take turns whenever one has to wait. The same at every run,
// and quick even where 2,048 of them share two busy cores.
#pragma once

#include <ucontext.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace robustscanner {
namespace cuda {
namespace emulation {

using Word = unsigned long long;

inline void* current = nullptr;  // what belongs to the fiber that runs

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    void* own = nullptr;  // `current`, while others run
    bool done = false;
};

inline std::vector<Fiber> fibers;
inline std::size_t running = 0;
inline ucontext_t outside;
inline std::function<void(int)> task;

constexpr std::size_t STACK_BYTES = 1 << 19;  // weights lie on it

// To the next that has work left.
inline void pass() {
    const std::size_t before = running;
    do running = (running + 1) % fibers.size();
    while (fibers[running].done && running != before);
    if (running == before) return;
    fibers[before].own = current;
    current = fibers[running].own;
    swapcontext(&fibers[before].context, &fibers[running].context);
}

inline void fiber_main() {
    task(static_cast<int>(running));
    fibers[running].done = true;
    pass();
    setcontext(&outside);  // all are done
}

// Runs work(0) … work(count - 1) in turns, and waits for all.
template <class Work>
void run_all(int count, Work work) {
    task = work;
    fibers = std::vector<Fiber>(count);
    for (auto& fiber : fibers) {
        getcontext(&fiber.context);
        fiber.stack.reset(new char[STACK_BYTES]);  // not zeroed: only what is used becomes memory
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
    }
    running = 0;
    current = nullptr;
    swapcontext(&outside, &fibers[0].context);
    fibers.clear();
}

class Meeting {
   public:
    explicit Meeting(int expected) : expected_(expected) {}

    void arrive_and_wait() {
        const unsigned now = round_;
        if (++arrived_ == expected_) {
            arrived_ = 0;
            ++round_;
        }
        while (round_ == now) pass();
    }

   private:
    int expected_, arrived_ = 0;
    unsigned round_ = 0;
};

inline void wait_while(std::atomic_ref<Word> place, Word word) {
    while (place.load(std::memory_order_relaxed) == word) pass();
}

}  // namespace emulation
}  // namespace cuda
}  // namespace robustscanner
