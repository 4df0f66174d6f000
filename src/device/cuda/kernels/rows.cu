// Rows of a matrix by index: embeddings of tokens, hidden states of (row, target) pairs, and the gradient of the latter.
// Also copies some columns of all rows: an adapter's product of its input with A, kept for the backward.
//
//   gather_rows    to[i] = from[index[i]]
//   scatter_rows   to[i] = the sum of from[pair] over the pairs of row i, zero if it has no pairs
//   copy_columns   to[i] = the first `width` values of from[i], whose rows are `stride` values apart
//
// Shapes: rows of `width` bf16 values, a multiple of 8; every row starts at a multiple of 16 bytes.
// Launch: one block per row of `to`, min(256, 32 · ⌈width / 256⌉) threads; to copy columns, one thread per 8 values, in blocks
// of 256.
// Bytes: gather and copy 4 · rows · width; scatter 2 · width per pair and per row of `to`. Memory-bound.
//
// The head works on pairs: the prompt's last row predicts a branch's first token, so G pairs share this row, and the other
// rows of a prompt have no pairs. The pairs of row i are pairs[starts[i]] .. pairs[starts[i + 1]], a list made by the host
// (starts has rows + 1 entries). No two blocks write to the same row, so no atomics are needed, and sums are in the order
// of the list. Sums are in f32 and rounded once.
//
// History: 1. One block per row; the scatter writes every row, so the gradient need not be set to zero first.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) gather_rows(const bf16* from, const int* index, bf16* to, int width) {
    const uint4* const source = reinterpret_cast<const uint4*>(from + static_cast<size_t>(index[blockIdx.x]) * width);
    uint4* const target = reinterpret_cast<uint4*>(to + static_cast<size_t>(blockIdx.x) * width);
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) target[i] = source[i];
}

extern "C" __global__ void __launch_bounds__(256)
    scatter_rows(const bf16* from, const int* starts, const int* pairs, bf16* to, int width) {
    const int first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    for (int column = 8 * threadIdx.x; column < width; column += 8 * blockDim.x) {
        float sum[8] = {};
#pragma unroll 4
        for (int i = first; i < end; ++i) {
            float v[8];
            load8(from + static_cast<size_t>(pairs[i]) * width + column, v);
#pragma unroll
            for (int j = 0; j < 8; ++j) sum[j] += v[j];
        }
        store8(to + static_cast<size_t>(blockIdx.x) * width + column, sum);
    }
}

extern "C" __global__ void __launch_bounds__(256) copy_columns(const bf16* from, bf16* to, int stride, int rows, int width) {
    const unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = unit / (width / 8), column = unit % (width / 8) * 8;
    if (row >= rows) return;
    *reinterpret_cast<uint4*>(to + static_cast<size_t>(row) * width + column) =
        *reinterpret_cast<const uint4*>(from + static_cast<size_t>(row) * stride + column);
}
