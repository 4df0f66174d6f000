// Softmax over a row of logits, by a block of `SOFTMAX_THREADS`, in one pass over memory. The head and the sampler
// share it, so that equal logits give equal bits in training and in rollouts. It uses fmaf wherever a compiler might
// contract a product and a sum in one of them and not in the other.
#pragma once

#include "common.cuh"

constexpr int SOFTMAX_THREADS = 512;
constexpr float MINUS_INFINITY = -INFINITY;

// For z = (logit - max) / temperature: Σ eᶻ and Σ z·eᶻ.
struct Softmax {
    float max, sum, weighted;
};

// Values starting at `column`; columns past the vocabulary are -∞. Rows are padded to a multiple of 8.
__device__ __forceinline__ void load_logits(const float* row, int column, int vocab, float (&to)[8]) {
    load8(row + column, to);
    if (column + 8 > vocab) {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (column + i >= vocab) to[i] = MINUS_INFINITY;
    }
}

// Changes the reference of the sums from `from` to a larger maximum.
__device__ __forceinline__ void rescale(Softmax& softmax, float max, float scale) {
    if (softmax.sum > 0) {
        const float step = (softmax.max - max) * scale, shrink = __expf(step);
        softmax.weighted = shrink * fmaf(step, softmax.sum, softmax.weighted);
        softmax.sum *= shrink;
    }
    softmax.max = max;
}

__device__ __forceinline__ float logprob_of(const Softmax& softmax, float logit, float scale) {
    return fmaf(logit - softmax.max, scale, -logf(softmax.sum));
}

// `scale` is 1 / temperature. The same bits in every thread; all threads must call it.
__device__ __forceinline__ Softmax row_softmax(const float* row, int vocab, float scale) {
    Softmax mine = {MINUS_INFINITY, 0, 0};
    for (int column = 8 * threadIdx.x; column < vocab; column += 8 * SOFTMAX_THREADS) {
        float v[8];
        load_logits(row, column, vocab, v);
        float greatest = v[0];
#pragma unroll
        for (int i = 1; i < 8; ++i) greatest = fmaxf(greatest, v[i]);
        if (greatest > mine.max) rescale(mine, greatest, scale);
        if (mine.max == MINUS_INFINITY) continue;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float z = (v[i] - mine.max) * scale, w = __expf(z);
            mine.sum += w;
            // Skip weights of zero: the logit may be -∞, and the product would be NaN.
            if (w != 0) mine.weighted = fmaf(w, z, mine.weighted);
        }
    }
    const float max = block_max(mine.max);
    rescale(mine, max, scale);
    return {max, block_sum(mine.sum), block_sum(mine.weighted)};
}
