// What a GPU is given: both kernels, for half and float memory. The launch (see launch.py and README.md): blocks of
// 256 threads, 8 for each group; from sm_90 on as clusters of 8, before that as a cooperative launch.
#include "decode.hpp"
#include "rows.hpp"

namespace robustscanner {
namespace cuda {

#ifdef RS_CLUSTERS
using GpuExchange = ClusterExchange<GpuConfig>;
#else
using GpuExchange = GridExchange;
#endif

#define RS_KERNEL extern "C" __global__ void __launch_bounds__(GpuConfig::kThreads, 1)

RS_KERNEL robustscanner_decode_half(const DecodeCall call) { Decode<GpuConfig, Half, GpuExchange>(call).run(); }
RS_KERNEL robustscanner_decode_float(const DecodeCall call) { Decode<GpuConfig, float, GpuExchange>(call).run(); }
RS_KERNEL robustscanner_rows_half(const RowsCall call) { Rows<GpuConfig, Half, GpuExchange>(call).run(); }
RS_KERNEL robustscanner_rows_float(const RowsCall call) { Rows<GpuConfig, float, GpuExchange>(call).run(); }

}  // namespace cuda
}  // namespace robustscanner
