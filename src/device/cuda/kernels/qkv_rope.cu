// The operations between the product that computes q, k and v, and attention: bias, rotary positions, KV cache. And their
// backward. CPU version: ops/rope.rs.
//
//   q, k, v += bias;   (a, b) = (a·cos - b·sin, b·cos + a·sin) for the halves a and b of every head of q and k
//
// Shapes: qkv, d_qkv (rows, (query + 2·kv) · dim) bf16, q, k and v next to each other, changed in place; bias (the width of a
// row) bf16; cos, sin (positions, dim / 2) f32; positions, slots, cells (rows) i32; keys, values (slots, kv, capacity,
// dim) bf16, to which row r is written at slot slots[r] and cell cells[r]. `dim` is a multiple of 16. Rows of d_qkv are `stride`
// values apart; the columns after each row belong to an adapter.
// Launch: one thread per 16 values of a head, 8 of each half: rows · heads · dim / 16 threads in blocks of 256.
// Bytes per row: 4 · (query + 2·kv) · dim, with a cache 4 · kv · dim more; backward 4 · (query + kv) · dim. FLOPs: 4 per
// value. Memory-bound.
//
// History: 1. One thread has both halves of its pairs, so that all accesses are 16 bytes.

#include "common.cuh"

// Rotates the pairs of `first` and `second` by the angles of `position`, in the opposite direction if `direction` is -1.
__device__ __forceinline__ void rotate(
    float (&first)[8], float (&second)[8], const float* cos, const float* sin, size_t angles, float direction) {
    float c[8], s[8];
    load8(cos + angles, c);
    load8(sin + angles, s);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float a = first[i], b = second[i], turn = direction * s[i];
        first[i] = a * c[i] - b * turn;
        second[i] = b * c[i] + a * turn;
    }
}

// `bias` may be null. `keys` may be null: then nothing is cached. A row with a negative slot is not cached.
extern "C" __global__ void __launch_bounds__(256) qkv_rope_forward(
    bf16* qkv, const bf16* bias, const float* cos, const float* sin, const int* positions, bf16* keys, bf16* values,
    const int* slots, const int* cells, int rows, int query, int kv, int dim, int capacity) {
    const int half = dim / 2, chunks = half / 8, heads = query + 2 * kv;
    const unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = unit / (heads * chunks), head = unit / chunks % heads, column = unit % chunks * 8;
    if (row >= rows) return;
    bf16* const place = qkv + (static_cast<size_t>(row) * heads + head) * dim + column;
    float first[8], second[8];
    load8(place, first);
    load8(place + half, second);
    if (bias) {
        float b[8];
        load8(bias + head * dim + column, b);
#pragma unroll
        for (int i = 0; i < 8; ++i) first[i] += b[i];
        load8(bias + head * dim + column + half, b);
#pragma unroll
        for (int i = 0; i < 8; ++i) second[i] += b[i];
    }
    if (head < query + kv) rotate(first, second, cos, sin, static_cast<size_t>(positions[row]) * half + column, 1);
    store8(place, first);
    store8(place + half, second);
    if (keys && head >= query && slots[row] >= 0) {
        const bool is_key = head < query + kv;
        const size_t line = static_cast<size_t>(slots[row]) * kv + (is_key ? head - query : head - query - kv);
        bf16* const cached = (is_key ? keys : values) + (line * capacity + cells[row]) * dim + column;
        store8(cached, first);
        store8(cached + half, second);
    }
}

// The gradient is rotated back by the same angles; v's needs no change, and the frozen bias has none. One thread per 16 values
// of q or k: rows · (query + kv) · dim / 16 threads.
extern "C" __global__ void __launch_bounds__(256) qkv_rope_backward(
    bf16* d_qkv, const float* cos, const float* sin, const int* positions, int rows, int query, int kv, int dim, int stride) {
    const int half = dim / 2, chunks = half / 8, turned = query + kv;
    const unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = unit / (turned * chunks), head = unit / chunks % turned, column = unit % chunks * 8;
    if (row >= rows) return;
    bf16* const place = d_qkv + static_cast<size_t>(row) * stride + head * dim + column;
    float first[8], second[8];
    load8(place, first);
    load8(place + half, second);
    rotate(first, second, cos, sin, static_cast<size_t>(positions[row]) * half + column, -1);
    store8(place, first);
    store8(place + half, second);
}
