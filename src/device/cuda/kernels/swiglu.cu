// SwiGLU, forward and backward. CPU version: ops/swiglu.rs.
//
//   y = silu(gate) · up, silu(x) = x · s, s = 1 / (1 + e⁻ˣ)
//   d_gate = dy · up · s · (1 + gate · (1 - s)),  d_up = dy · gate · s
//
// Shapes: gate_up (rows, 2·width) bf16, gate and up next to each other; y, dy (rows, width) bf16. `width` is a multiple of 8.
// Rows of gate_up are `gate_up_stride` values apart, those of y in the forward `stride`; the columns after each row belong to an
// adapter.
// Launch: one thread per 8 values of y: rows · width / 8 threads in blocks of 256.
// Bytes per row: forward 6 · width, backward 12 · width. FLOPs per value: 5 forward, 13 backward. Memory-bound.
//
// History:
// 1. The backward overwrites gate and up, so that training needs no third tensor of their size.
// 2. It writes y over dy, with the bits of the forward: the gradients of the adapter that reads y need it, and computing it
//    again before would read gate and up twice.

#include "common.cuh"

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

extern "C" __global__ void __launch_bounds__(256)
    swiglu_forward(const bf16* gate_up, bf16* y, int gate_up_stride, int stride, int rows, int width) {
    const unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = unit / (width / 8), column = unit % (width / 8) * 8;
    if (row >= rows) return;
    const bf16* const place = gate_up + static_cast<size_t>(row) * gate_up_stride + column;
    float gate[8], up[8];
    load8(place, gate);
    load8(place + width, up);
#pragma unroll
    for (int i = 0; i < 8; ++i) gate[i] *= sigmoid(gate[i]) * up[i];
    store8(y + static_cast<size_t>(row) * stride + column, gate);
}

// The gradient of gate and up overwrites them, and y overwrites dy.
extern "C" __global__ void __launch_bounds__(256)
    swiglu_backward(bf16* dy, bf16* gate_up, int gate_up_stride, int rows, int width) {
    const unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = unit / (width / 8), column = unit % (width / 8) * 8;
    if (row >= rows) return;
    bf16* const place = gate_up + static_cast<size_t>(row) * gate_up_stride + column;
    bf16* const own = dy + static_cast<size_t>(row) * width + column;
    float d[8], gate[8], up[8];
    load8(own, d);
    load8(place, gate);
    load8(place + width, up);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float s = sigmoid(gate[i]);
        const float d_gate = d[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s)), d_up = d[i] * gate[i] * s;
        d[i] = gate[i] * (s * up[i]);
        gate[i] = d_gate;
        up[i] = d_up;
    }
    store8(own, d);
    store8(place, gate);
    store8(place + width, up);
}
