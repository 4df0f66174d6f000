// Log-probability of a target and entropy from rows of logits, and the gradient of the logits. CPU version: ops/head.rs, and
// ops/distill.rs for the divergence from a teacher.
//
//   p = softmax(logits / T);  logprob = ln p[target];  H = -Σ p·ln p
//   dlogit = (g·(1[target] - p) - h·p·(ln p + H)) / T for the derivatives g of the log-probability and h of the entropy
//   KL = Σ p·(ln p - ln q) for q = softmax(teacher's logits / T);  dlogit = w·p·(ln p - ln q - KL) / T for its weight w
//
// Shapes: logits (rows, stride) f32, of which the first `vocab` columns are used; `stride` is a multiple of 8;
// targets (rows) i32; logprob, entropy, lse (ln Σ exp(logits / T)), the derivatives and weights, and kl (rows) f32.
// Launch: one block of 512 threads per row.
// Bytes per row of V: forward 4·V, backward 6·V, distill 18·V. FLOPs per logit: 8 forward, 10 backward, 16 distill.
// Memory-bound: the exponentials of a row take half as long as its bytes on an H200.
//
// Logits are f32 because bf16 loses up to 0.06 of a logit of 20.
//
// History: 1. Maximum and sums in one pass, relative to the largest logit so far; the backward in place. 2. The divergence from a
// teacher, and its gradient from a second pass over both rows.

#include "softmax.cuh"

extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS)
    head_forward_f32(const float* logits, const int* targets, float* logprob, float* entropy, float* lse, int vocab,
                     size_t stride, float temperature) {
    const float* const row = logits + blockIdx.x * stride;
    const float scale = 1.0f / temperature;
    const Softmax softmax = row_softmax(row, vocab, scale);
    if (threadIdx.x != 0) return;
    const float log_sum = logf(softmax.sum);
    logprob[blockIdx.x] = logprob_of(softmax, row[targets[blockIdx.x]], scale);
    entropy[blockIdx.x] = log_sum - softmax.weighted / softmax.sum;
    lse[blockIdx.x] = softmax.max * scale + log_sum;
}

// The gradient is bf16 and overwrites the first half of the row of logits. The columns between `vocab` and `stride` become
// zero.
extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS)
    head_backward_f32(float* logits, const int* targets, const float* entropy, const float* lse, const float* d_logprob,
                      const float* d_entropy, int vocab, size_t stride, float temperature) {
    float* const row = logits + blockIdx.x * stride;
    bf16* const out = reinterpret_cast<bf16*>(row);
    const float scale = 1.0f / temperature, log_sum = lse[blockIdx.x], h = entropy[blockIdx.x];
    const float by_logprob = d_logprob[blockIdx.x], by_entropy = d_entropy[blockIdx.x];
    const int target = targets[blockIdx.x], columns = static_cast<int>(stride);
    for (int first = 0; first < columns; first += 8 * SOFTMAX_THREADS) {
        const int column = first + 8 * threadIdx.x;
        float v[8] = {};
        if (column < columns) load_logits(row, column, vocab, v);
        // The bf16 of this part may overwrite its own f32 values, but nothing after them.
        __syncthreads();
        if (column >= columns) continue;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float ln_p = v[i] * scale - log_sum, p = __expf(ln_p);
            const float of_entropy = p == 0 ? 0 : p * (ln_p + h);
            const float of_logprob = (column + i == target ? 1.0f : 0.0f) - p;
            v[i] = scale * (by_logprob * of_logprob - by_entropy * of_entropy);
        }
        store8(out + column, v);
    }
}

// p, and ln p - ln q. A probability of zero has no part in the divergence, whatever the teacher's is.
__device__ __forceinline__ float log_ratio(float logit, float teacher, float log_sum, float teacher_sum, float scale,
                                           float& p) {
    const float ln_p = logit * scale - log_sum;
    p = __expf(ln_p);
    return p == 0 ? 0 : ln_p - (teacher * scale - teacher_sum);
}

// The divergence of each row from the teacher's, which has the same shape, and the gradient of the logits as in
// `head_backward_f32`.
extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS)
    head_distill_f32(float* logits, const float* teacher, const float* lse, const float* teacher_lse,
                     const float* weights, float* kl, int vocab, size_t stride, float temperature) {
    float* const row = logits + blockIdx.x * stride;
    const float* const other = teacher + blockIdx.x * stride;
    bf16* const out = reinterpret_cast<bf16*>(row);
    const float scale = 1.0f / temperature, log_sum = lse[blockIdx.x], teacher_sum = teacher_lse[blockIdx.x];
    float mine = 0;
    for (int column = 8 * threadIdx.x; column < vocab; column += 8 * SOFTMAX_THREADS) {
        float v[8], u[8];
        load_logits(row, column, vocab, v);
        load_logits(other, column, vocab, u);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float p;
            const float gap = log_ratio(v[i], u[i], log_sum, teacher_sum, scale, p);
            mine += p * gap;
        }
    }
    // Every thread has read its logits when the sum is known.
    const float divergence = block_sum(mine);
    if (threadIdx.x == 0) kl[blockIdx.x] = divergence;
    const float weight = weights[blockIdx.x] * scale;
    const int columns = static_cast<int>(stride);
    for (int first = 0; first < columns; first += 8 * SOFTMAX_THREADS) {
        const int column = first + 8 * threadIdx.x;
        float v[8] = {}, u[8] = {};
        if (column < columns) {
            load_logits(row, column, vocab, v);
            load_logits(other, column, vocab, u);
        }
        // As in `head_backward_f32`.
        __syncthreads();
        if (column >= columns) continue;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float p;
            const float gap = log_ratio(v[i], u[i], log_sum, teacher_sum, scale, p);
            v[i] = weight * p * (gap - divergence);
        }
        store8(out + column, v);
    }
}
