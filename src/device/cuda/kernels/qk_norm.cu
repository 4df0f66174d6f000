// RMSNorm of each head of q and k (Qwen3), before positions are applied, and its backward. CPU version: ops/qk_norm.rs.
//
//   y = x · weight / √(mean(x²) + ε) over the values of a head, with one weight for all heads of q and one for those of k
//
// Shapes: qkv, d_qkv (rows, (query + 2·kv) · dim) bf16, q, k and v next to each other, changed in place; weights (2, dim) bf16,
// q's and k's; before (rows, (query + kv) · dim) bf16, q and k before the norm. `dim` is 32, 64 or 128. Rows of d_qkv are
// `stride` values apart; the columns after each row belong to an adapter.
// Launch: one thread per 8 values of q and k, so that a head is dim / 8 neighboring lanes:
// rows · (query + kv) · dim / 8 threads in blocks of 256.
// Bytes per value of q and k: forward 4, with `before` 6; backward 6. FLOPs per value: 4 and 10. Memory-bound.
//
// The backward recomputes 1/rms from `before`: the same sum in the same order, so the same bits as in the forward.
//
// History: 1. A head's sum is computed within its lanes, without shared memory. 2. A head whose squares overflow becomes NaN,
// not zeros.

#include "common.cuh"

namespace {

// The position of a thread's 8 values: in the row of qkv, in the row of `before`, and in a head.
struct Place {
    bool inside, is_query;
    size_t joined, own;
    int column;
};

__device__ __forceinline__ Place place_of(int rows, int query, int kv, int dim, int stride) {
    const int chunks = dim / 8, heads = query + kv;
    const unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = unit / (heads * chunks), head = unit / chunks % heads, column = unit % chunks * 8;
    const size_t of_head = static_cast<size_t>(head) * dim + column;
    return {row < rows, head < query, static_cast<size_t>(row) * stride + of_head,
            static_cast<size_t>(row) * heads * dim + of_head, column};
}

// Σ over the lanes of a head, the same bits in each.
__device__ __forceinline__ float head_sum(float value, int dim) {
    for (int with = dim / 16; with > 0; with /= 2) value += __shfl_xor_sync(ALL_LANES, value, with);
    return value;
}

__device__ __forceinline__ float head_scale(const float (&x)[8], int dim, float eps) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) squares = fmaf(x[i], x[i], squares);
    return inverse_rms(head_sum(squares, dim) / dim, eps);
}

}  // namespace

// `before` may be null.
extern "C" __global__ void __launch_bounds__(256)
    qk_norm_forward(bf16* qkv, const bf16* weights, bf16* before, int rows, int query, int kv, int dim, float eps) {
    const Place at = place_of(rows, query, kv, dim, (query + 2 * kv) * dim);
    float x[8] = {};
    if (at.inside) load8(qkv + at.joined, x);
    const float scale = head_scale(x, dim, eps);
    if (!at.inside) return;
    if (before) store8(before + at.own, x);
    float weight[8];
    load8(weights + (at.is_query ? 0 : dim) + at.column, weight);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] *= scale * weight[i];
    store8(qkv + at.joined, x);
}

// dx = 1/rms · (dy·weight - x · mean(dy·weight·x) / rms²), written over dy
extern "C" __global__ void __launch_bounds__(256) qk_norm_backward(
    bf16* d_qkv, const bf16* weights, const bf16* before, int rows, int query, int kv, int dim, int stride, float eps) {
    const Place at = place_of(rows, query, kv, dim, stride);
    float x[8] = {}, weighted[8] = {};
    float product = 0;
    if (at.inside) {
        float weight[8];
        load8(before + at.own, x);
        load8(d_qkv + at.joined, weighted);
        load8(weights + (at.is_query ? 0 : dim) + at.column, weight);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            weighted[i] *= weight[i];
            product += weighted[i] * x[i];
        }
    }
    const float scale = head_scale(x, dim, eps);
    const float common = head_sum(product, dim) / dim * scale * scale;
    if (!at.inside) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) weighted[i] = scale * (weighted[i] - x[i] * common);
    store8(d_qkv + at.joined, weighted);
}
