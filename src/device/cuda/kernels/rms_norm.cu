// RMSNorm with the residual addition before it, and its backward. CPU version: ops/rms_norm.rs.
//
//   x += delta;  1/rms = 1 / √(mean(x²) + ε);  y = x · 1/rms · weight
//
// Shapes: x, delta, y, dy, dx (rows, width) bf16; weight (width) bf16; scales, the 1/rms, (rows) f32. `width` is a
// multiple of 8 and at most 8192; every row starts at a multiple of 16 bytes. Rows of y in the forward and of dx in the
// backward are `stride` values apart; the columns after each row belong to an adapter.
// Launch: one block per row, 32 · ⌈width / 256⌉ threads. A thread keeps 8 values of the row in registers, so that every
// value is read once.
// Bytes per row: forward 4 · width, with a residual 8 · width; backward 10 · width (dx is read and written). FLOPs per value:
// 4 forward, 9 backward. Memory-bound.
//
// The norm is that of x as stored, after rounding, because the backward sees only this x.
//
// History:
// 1. One block per row, values kept in registers, one pass over memory.
// 2. The backward writes y over dy, with the bits of the forward: the gradients of the adapter that reads y need it, and a
//    kernel that computes it again would read x once more.
// 3. A row whose squares overflow becomes NaN, not zeros.

#include "common.cuh"

// `delta` may be null: then x is not written. `scales` may be null.
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_forward(bf16* x, const bf16* delta, const bf16* weight, bf16* y, float* scales, int width, int stride,
                     float eps) {
    const size_t row = static_cast<size_t>(blockIdx.x) * width;
    const int column = 8 * threadIdx.x;
    const bool inside = column < width;
    float v[8] = {};
    float squares = 0;
    if (inside) {
        load8(x + row + column, v);
        if (delta) {
            float d[8];
            load8(delta + row + column, d);
#pragma unroll
            for (int i = 0; i < 8; ++i) v[i] = rounded(v[i] + d[i]);
            store8(x + row + column, v);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) squares += v[i] * v[i];
    }
    const float scale = inverse_rms(block_sum(squares) / width, eps);
    if (scales && threadIdx.x == 0) scales[blockIdx.x] = scale;
    if (inside) {
        float w[8];
        load8(weight + column, w);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] *= scale * w[i];
        store8(y + static_cast<size_t>(blockIdx.x) * stride + column, v);
    }
}

// dx += 1/rms · (dy·weight - x · mean(dy·weight·x) / rms²), and y is written over dy.
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_backward(bf16* dy, const bf16* x, const float* scales, const bf16* weight, bf16* dx, int width, int stride) {
    const size_t row = static_cast<size_t>(blockIdx.x) * width;
    const int column = 8 * threadIdx.x;
    const bool inside = column < width;
    float weighted[8] = {}, v[8] = {}, w[8] = {};
    float product = 0;
    if (inside) {
        load8(dy + row + column, weighted);
        load8(weight + column, w);
        load8(x + row + column, v);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            weighted[i] *= w[i];
            product += weighted[i] * v[i];
        }
    }
    const float scale = scales[blockIdx.x];
    const float common = block_sum(product) / width * scale * scale;
    if (inside) {
        bf16* const to = dx + static_cast<size_t>(blockIdx.x) * stride + column;
        float d[8];
        load8(to, d);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            d[i] += scale * (weighted[i] - v[i] * common);
            v[i] *= scale * w[i];
        }
        store8(to, d);
        store8(dy + row + column, v);
    }
}
