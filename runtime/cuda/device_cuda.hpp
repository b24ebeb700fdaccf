// The GPU itself. No header of CUDA's is needed, so that NVRTC compiles it as it is.
#pragma once

#define RS_DEVICE __device__ __forceinline__
#define RS_UNROLL _Pragma("unroll")

namespace robustscanner {
namespace cuda {

using Slot = unsigned long long;

struct Half {
    unsigned short bits;
};
struct alignas(16) Float4 {
    float x, y, z, w;
};

RS_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
RS_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
RS_DEVICE int block_count() { return static_cast<int>(gridDim.x); }
RS_DEVICE void sync_block() { __syncthreads(); }
RS_DEVICE void sync_warp() { __syncwarp(); }
RS_DEVICE float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
RS_DEVICE float exponential(float x) { return expf(x); }
RS_DEVICE float logarithm(float x) { return logf(x); }
RS_DEVICE unsigned float_bits(float value) { return __float_as_uint(value); }
RS_DEVICE float bits_float(unsigned bits) { return __uint_as_float(bits); }

RS_DEVICE char* shared_memory() {
    extern __shared__ Float4 robustscanner_shared[];
    return reinterpret_cast<char*>(robustscanner_shared);
}

// Of memory that no kernel writes while this one runs.
RS_DEVICE float from_bits(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
RS_DEVICE float load(const float* place) { return __ldg(place); }
RS_DEVICE float load(const Half* place) { return from_bits(__ldg(&place->bits)); }
RS_DEVICE Float4 load4(const float* place) {
    const float4 four = __ldg(reinterpret_cast<const float4*>(place));
    return {four.x, four.y, four.z, four.w};
}
RS_DEVICE Float4 load4(const Half* place) {
    const ushort4 four = __ldg(reinterpret_cast<const ushort4*>(place));
    return {from_bits(four.x), from_bits(four.y), from_bits(four.z), from_bits(four.w)};
}
RS_DEVICE void store(float* place, float value) { *place = value; }
RS_DEVICE void store(Half* place, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(place->bits) : "f"(value));
}
RS_DEVICE void prefetch(const void* place) { asm volatile("prefetch.global.L2 [%0];" ::"l"(place)); }

// Slots that other blocks write: whole words of 64 bits, value and tag together, so that no order among words matters.
RS_DEVICE Slot load_slot(const Slot* place) {
    Slot word;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(word) : "l"(place) : "memory");
    return word;
}
// Once more: a GPU asks again and again.
RS_DEVICE Slot load_slot_after(const Slot* place, Slot) { return load_slot(place); }
RS_DEVICE void store_slot(Slot* place, Slot word) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(place), "l"(word) : "memory");
}
RS_DEVICE unsigned load_counter(const unsigned* place) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(place) : "memory");
    return value;
}
// Adds one; what this block did before is seen by whoever finds the new number.
RS_DEVICE unsigned count_up(unsigned* place) {
    __threadfence();
    const unsigned before = atomicAdd(place, 1u);
    __threadfence();
    return before;
}
// For the host: after everything that this block has written to its memory.
RS_DEVICE void announce(int* place, int value) {
    __threadfence_system();
    *reinterpret_cast<volatile int*>(place) = value;
}

#if __CUDA_ARCH__ >= 900
#define RS_CLUSTERS
// Releases and acquires, which CUDA 11.8 does not let one say; not aligned, as warps may come here in parts.
RS_DEVICE void sync_cluster() {
    asm volatile("barrier.cluster.arrive;" ::: "memory");
    asm volatile("barrier.cluster.wait;" ::: "memory");
}
RS_DEVICE unsigned shared_address(const void* place) {
    return static_cast<unsigned>(__cvta_generic_to_shared(place));
}
RS_DEVICE Slot load_shared_slot(const Slot* place) {
    Slot word;
    asm volatile("ld.relaxed.cluster.shared::cta.u64 %0, [%1];" : "=l"(word) : "r"(shared_address(place)) : "memory");
    return word;
}
RS_DEVICE Slot load_shared_slot_after(const Slot* place, Slot) { return load_shared_slot(place); }
// Into the shared memory of a block of this cluster, where ours has `place`.
RS_DEVICE void store_peer_slot(Slot* place, int rank, Slot word) {
    unsigned remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(shared_address(place)), "r"(rank));
    asm volatile("st.relaxed.cluster.shared::cluster.u64 [%0], %1;" ::"r"(remote), "l"(word) : "memory");
}
#endif

}  // namespace cuda
}  // namespace robustscanner
