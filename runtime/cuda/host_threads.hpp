// Who plays the GPU's threads: the system's, which sanitizers watch.
#pragma once

#include <atomic>
#include <barrier>
#include <thread>
#include <vector>

namespace robustscanner {
namespace cuda {
namespace emulation {

using Meeting = std::barrier<>;
using Word = unsigned long long;

inline thread_local void* current = nullptr;  // what belongs to the thread that runs

// Runs work(0) … work(count - 1) at once, and waits for all.
template <class Work>
void run_all(int count, Work work) {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
    for (auto& thread : threads) thread.join();
}

inline void wait_while(std::atomic_ref<Word> place, Word word) { place.wait(word, std::memory_order_relaxed); }

}  // namespace emulation
}  // namespace cuda
}  // namespace robustscanner
