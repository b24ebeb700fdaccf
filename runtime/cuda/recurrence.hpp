// Both layers of an LSTM in registers: every thread holds its lanes' share of its units' weights for the whole launch.
// The gates' order is input, forget, output, cell, as in the ONNX graph.
#pragma once

#include "device.hpp"

namespace robustscanner {
namespace cuda {

template <class C>
class Recurrence {
   public:
    template <class T>
    RS_DEVICE Recurrence(const T* lower, const T* upper, int rank) : rank_(rank) {
        for (int u = 0; u < C::kUnits; ++u) {
            read(lower, unit(u), lower_[u]);
            read(upper, unit(u), upper_[u]);
        }
    }

    // The thread's place among those that share its units.
    RS_DEVICE static int lane() { return thread_index() % C::kLanes; }
    // Its u-th unit, counted in the block, and in the layer.
    RS_DEVICE static int own(int u) { return thread_index() / C::kLanes * C::kUnits + u; }
    RS_DEVICE int unit(int u) const { return rank_ * C::kOwn + own(u); }

    // Gates of a unit of the lower layer: `start` and what its own last state [D] gives.
    RS_DEVICE Float4 lower(int u, Float4 start, const float* state) const {
        Float4 gates = first_lane(start);
        add<0>(gates, lower_[u], state);
        return gathered(gates);
    }

    // Likewise of the upper layer, which is also given the lower one's new state.
    RS_DEVICE Float4 upper(int u, Float4 start, const float* below, const float* state) const {
        Float4 gates = first_lane(start);
        add<0>(gates, upper_[u], below);
        add<kLower>(gates, upper_[u], state);
        return gathered(gates);
    }

    // From gates to the unit's state; its cell is read and written. All lanes of the unit call it and get the same.
    RS_DEVICE static float state(Float4 gates, float* cell) {
        const float now = sigmoid(gates.y) * *cell + sigmoid(gates.x) * hyperbolic_tangent(gates.w);
        if (C::kLanes > 1) sync_warp();  // all lanes have read it
        if (lane() == 0) *cell = now;
        return sigmoid(gates.z) * hyperbolic_tangent(now);
    }

   private:
    static constexpr int kLower = C::kHidden / C::kLanes, kUpper = 2 * kLower;  // weights of a gate and thread

    // Weights [unit, 4, n * kLanes]: a lane takes every kLanes-th group of four.
    template <class T, int n>
    RS_DEVICE static void read(const T* weights, int unit, float (&mine)[4][n]) {
        RS_UNROLL
        for (int gate = 0; gate < 4; ++gate) {
            const T* const row = weights + (unit * 4 + gate) * n * C::kLanes;
            RS_UNROLL
            for (int i = 0; i < n; i += 4) {
                const Float4 four = load4(row + i * C::kLanes + 4 * lane());
                mine[gate][i] = four.x, mine[gate][i + 1] = four.y;
                mine[gate][i + 2] = four.z, mine[gate][i + 3] = four.w;
            }
        }
    }

    template <int start, int n>
    RS_DEVICE static void add(Float4& gates, const float (&weights)[4][n], const float* inputs) {
        RS_UNROLL
        for (int i = 0; i < kLower; i += 4) {
            const Float4 x = *reinterpret_cast<const Float4*>(inputs + i * C::kLanes + 4 * lane());
            const int at = start + i;
            gates.x += product(weights[0], at, x), gates.y += product(weights[1], at, x);
            gates.z += product(weights[2], at, x), gates.w += product(weights[3], at, x);
        }
    }

    RS_DEVICE static float product(const float* weights, int at, Float4 x) {
        return weights[at] * x.x + weights[at + 1] * x.y + weights[at + 2] * x.z + weights[at + 3] * x.w;
    }

    RS_DEVICE static Float4 first_lane(Float4 start) { return lane() == 0 ? start : Float4{0, 0, 0, 0}; }

    RS_DEVICE static Float4 gathered(Float4 gates) {
        RS_UNROLL
        for (int lanes = C::kLanes / 2; lanes > 0; lanes /= 2) {
            gates.x += shuffle_xor(gates.x, lanes), gates.y += shuffle_xor(gates.y, lanes);
            gates.z += shuffle_xor(gates.z, lanes), gates.w += shuffle_xor(gates.w, lanes);
        }
        return gates;
    }

    float lower_[C::kUnits][4][kLower], upper_[C::kUnits][4][kUpper];
    int rank_;
};

}  // namespace cuda
}  // namespace robustscanner
