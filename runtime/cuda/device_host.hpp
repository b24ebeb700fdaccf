// A GPU played by the CPU: blocks, warps and clusters meet at barriers, and what other blocks write is atomic. The only
// C++20 here.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <memory>
#include <vector>

#ifdef ROBUSTSCANNER_THREADS
#include "host_threads.hpp"
#else
#include "host_fibers.hpp"
#endif

#define RS_DEVICE inline
#define RS_UNROLL
#define RS_CLUSTERS

namespace robustscanner {
namespace cuda {

using Slot = emulation::Word;

struct Half {
    unsigned short bits;
};
struct alignas(16) Float4 {
    float x, y, z, w;
};

namespace emulation {

struct Warp {
    explicit Warp(int threads) : meet(threads), values{std::vector<float>(threads), std::vector<float>(threads)} {}
    Meeting meet;
    std::vector<float> values[2];  // what is shuffled; shuffles take turns
};

struct Block {
    Block(int threads, int warp, int shared_bytes) : meet(threads), shared(shared_bytes / sizeof(Float4) + 1) {
        for (int i = 0; i < threads / warp; ++i) warps.push_back(std::make_unique<Warp>(warp));
        for (auto& word : shared) word = {NAN, NAN, NAN, NAN};  // whoever reads what nobody wrote shall notice
    }
    char* memory() { return reinterpret_cast<char*>(shared.data()); }

    Meeting meet;
    std::vector<Float4> shared;
    std::vector<std::unique_ptr<Warp>> warps;
};

struct Grid {
    Grid(int blocks_, int cluster_, int threads_, int warp_, int shared_bytes)
        : cluster(cluster_), threads(threads_), warp(warp_) {
        for (int i = 0; i < blocks_; ++i) blocks.push_back(std::make_unique<Block>(threads, warp, shared_bytes));
        for (int i = 0; i < blocks_ / cluster; ++i) {
            clusters.push_back(std::make_unique<Meeting>(cluster * threads));
        }
    }
    int cluster, threads, warp;
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<std::unique_ptr<Meeting>> clusters;
};

struct Thread {
    Grid* grid;
    int block, index, shuffles = 0;

    Block& here() const { return *grid->blocks[block]; }
    Warp& warp() const { return *here().warps[index / grid->warp]; }
};

inline Thread& self() { return *static_cast<Thread*>(current); }

// Runs `kernel` in every thread of the grid.
template <class Kernel>
void launch(Grid& grid, Kernel kernel) {
    run_all(static_cast<int>(grid.blocks.size()) * grid.threads, [&grid, &kernel](int index) {
        Thread thread{&grid, index / grid.threads, index % grid.threads};
        current = &thread;
        kernel();
    });
}

}  // namespace emulation

inline int thread_index() { return emulation::self().index; }
inline int block_index() { return emulation::self().block; }
inline int block_count() { return static_cast<int>(emulation::self().grid->blocks.size()); }
inline void sync_block() { emulation::self().here().meet.arrive_and_wait(); }
inline void sync_warp() { emulation::self().warp().meet.arrive_and_wait(); }
inline void sync_cluster() {
    auto& self = emulation::self();
    self.grid->clusters[self.block / self.grid->cluster]->arrive_and_wait();
}
inline float shuffle_xor(float value, int lanes) {
    auto& self = emulation::self();
    auto& warp = self.warp();
    auto& values = warp.values[self.shuffles++ & 1];
    const int lane = self.index % self.grid->warp;
    values[lane] = value;
    warp.meet.arrive_and_wait();
    return values[lane ^ lanes];
}
inline float exponential(float x) { return std::exp(x); }
inline float logarithm(float x) { return std::log(x); }
inline unsigned float_bits(float value) { return std::bit_cast<unsigned>(value); }
inline float bits_float(unsigned bits) { return std::bit_cast<float>(bits); }

inline char* shared_memory() { return emulation::self().here().memory(); }

inline float from_bits(unsigned short bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
inline float load(const float* place) { return *place; }
inline float load(const Half* place) { return from_bits(place->bits); }
template <class T>
Float4 load4(const T* place) {
    return {load(place), load(place + 1), load(place + 2), load(place + 3)};
}
inline void store(float* place, float value) { *place = value; }
inline void store(Half* place, float value) { place->bits = std::bit_cast<unsigned short>(static_cast<_Float16>(value)); }
inline void prefetch(const void*) {}

inline std::atomic_ref<Slot> atomic(const Slot* place) { return std::atomic_ref<Slot>(*const_cast<Slot*>(place)); }
inline Slot load_slot(const Slot* place) { return atomic(place).load(std::memory_order_relaxed); }
// Once it is another.
inline Slot load_slot_after(const Slot* place, Slot word) {
    emulation::wait_while(atomic(place), word);
    return load_slot(place);
}
inline void store_slot(Slot* place, Slot word) {
    atomic(place).store(word, std::memory_order_relaxed);
    atomic(place).notify_all();
}
inline Slot load_shared_slot(const Slot* place) { return load_slot(place); }
inline Slot load_shared_slot_after(const Slot* place, Slot word) { return load_slot_after(place, word); }
inline void store_peer_slot(Slot* place, int rank, Slot word) {
    auto& self = emulation::self();
    const int peer = self.block / self.grid->cluster * self.grid->cluster + rank;
    const std::ptrdiff_t offset = reinterpret_cast<char*>(place) - shared_memory();
    store_slot(reinterpret_cast<Slot*>(self.grid->blocks[peer]->memory() + offset), word);
}
inline unsigned load_counter(const unsigned* place) {
    return std::atomic_ref<unsigned>(*const_cast<unsigned*>(place)).load(std::memory_order_acquire);
}
inline unsigned count_up(unsigned* place) { return std::atomic_ref<unsigned>(*place).fetch_add(1); }
inline void announce(int* place, int value) { std::atomic_ref<int>(*place).store(value, std::memory_order_release); }

}  // namespace cuda
}  // namespace robustscanner
