// RMSNorm with the residual addition before it, and its backward. Twin: ops/rms_norm.rs.
//
//   x += delta;  1/rms = 1 / √(mean(x²) + ε);  y = x · 1/rms · weight
//
// Shapes: x, delta, y, dy, dx (rows, width) bf16; weight (width) bf16; scales, the 1/rms, (rows) f32. `width` is a
// multiple of 8 and at most 8192; every row starts at a multiple of 16 bytes.
// Launch: a block for each row, 32 · ⌈width / 256⌉ threads: a thread holds 8 values of the row in registers, so that
// every value is read once.
// Bytes a row: forward 4 · width, with a residual 8 · width; backward 8 · width (dx is read and written); recompute
// 4 · width. FLOPs a value: 4 forward, 8 backward. Memory-bound.
//
// The norm is of x as it is stored, after rounding: the backward and `rms_norm_recompute` see no other x.
//
// History: 1. a block a row, values kept in registers, one pass over memory.

#include "common.cuh"

// `delta` may be null: then x is not written. `scales` may be null.
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_forward(bf16* x, const bf16* delta, const bf16* weight, bf16* y, float* scales, int width, float eps) {
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
    const float scale = 1.0f / sqrtf(block_sum(squares) / width + eps);
    if (scales && threadIdx.x == 0) scales[blockIdx.x] = scale;
    if (inside) {
        float w[8];
        load8(weight + column, w);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] *= scale * w[i];
        store8(y + row + column, v);
    }
}

// y again from x and the saved 1/rms: the bits of the forward.
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_recompute(const bf16* x, const float* scales, const bf16* weight, bf16* y, int width) {
    const size_t row = static_cast<size_t>(blockIdx.x) * width;
    const int column = 8 * threadIdx.x;
    if (column >= width) return;
    const float scale = scales[blockIdx.x];
    float v[8], w[8];
    load8(x + row + column, v);
    load8(weight + column, w);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] *= scale * w[i];
    store8(y + row + column, v);
}

// dx += 1/rms · (dy·weight - x · mean(dy·weight·x) / rms²)
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_backward(const bf16* dy, const bf16* x, const float* scales, const bf16* weight, bf16* dx, int width) {
    const size_t row = static_cast<size_t>(blockIdx.x) * width;
    const int column = 8 * threadIdx.x;
    const bool inside = column < width;
    float weighted[8] = {}, v[8] = {};
    float product = 0;
    if (inside) {
        float w[8];
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
        float d[8];
        load8(dx + row + column, d);
#pragma unroll
        for (int i = 0; i < 8; ++i) d[i] += scale * (weighted[i] - v[i] * common);
        store8(dx + row + column, d);
    }
}
