// The kernels on a GPU that the CPU plays, for tests: a library with a C entry.
#include "decode.hpp"
#include "rows.hpp"

namespace robustscanner {
namespace cuda {
namespace {

// By number: few threads and no shuffles, for speed; a small hidden size; shuffles; and what a GPU really runs.
using Light = Config<128, 2, 1, 32, 1>;
using Tiny = Config<16, 2, 1, 4, 1>;
using Shuffled = Config<128, 2, 4, 16, 8>;

template <template <class, class> class Shared, class C, class Exchange, class Call>
int shared_bytes(const Call& call) {
    return Shared<C, Exchange>(call, nullptr).used_bytes;
}

template <class C, class Exchange, template <class, class, class> class Kernel, template <class, class> class Shared,
          class Call>
int run(const Call& call, bool half) {
    const int bytes = shared_bytes<Shared, C, Exchange>(call);
    emulation::Grid grid(call.groups * C::kBlocks, C::kBlocks, C::kThreads, C::kWarp, bytes);
    emulation::launch(grid, [&] {
        half ? Kernel<C, Half, Exchange>(call).run() : Kernel<C, float, Exchange>(call).run();
    });
    return bytes;
}

template <class C, template <class, class, class> class Kernel, template <class, class> class Shared, class Call>
int with_exchange(const Call& call, bool half, bool clusters) {
    return clusters ? run<C, ClusterExchange<C>, Kernel, Shared>(call, half)
                    : run<C, GridExchange, Kernel, Shared>(call, half);
}

template <template <class, class, class> class Kernel, template <class, class> class Shared, class Call>
int with_config(const Call& call, int config, bool half, bool clusters) {
    switch (config) {
        case 0: return with_exchange<Light, Kernel, Shared>(call, half, clusters);
        case 1: return with_exchange<Tiny, Kernel, Shared>(call, half, clusters);
        case 2: return with_exchange<Shuffled, Kernel, Shared>(call, half, clusters);
        case 3: return with_exchange<GpuConfig, Kernel, Shared>(call, half, clusters);
        default: return -1;
    }
}

}  // namespace
}  // namespace cuda
}  // namespace robustscanner

using namespace robustscanner::cuda;

// All return the shared memory that a block took, in bytes; -1 for a configuration that there is not.
extern "C" int robustscanner_decode(const DecodeCall* call, int config, int half, int clusters) {
    return with_config<Decode, DecodeShared>(*call, config, half != 0, clusters != 0);
}

extern "C" int robustscanner_rows(const RowsCall* call, int config, int half, int clusters) {
    return with_config<Rows, RowsShared>(*call, config, half != 0, clusters != 0);
}

extern "C" int robustscanner_decode_shared_bytes(const DecodeCall* call, int clusters) {
    return clusters ? shared_bytes<DecodeShared, GpuConfig, ClusterExchange<GpuConfig>>(*call)
                    : shared_bytes<DecodeShared, GpuConfig, GridExchange>(*call);
}

extern "C" int robustscanner_rows_shared_bytes(const RowsCall* call, int clusters) {
    return clusters ? shared_bytes<RowsShared, GpuConfig, ClusterExchange<GpuConfig>>(*call)
                    : shared_bytes<RowsShared, GpuConfig, GridExchange>(*call);
}
