// Log-probability of a target and entropy from rows of logits, and the gradient of the logits. Twin: ops/head.rs.
//
//   p = softmax(logits / T);  logprob = ln p[target];  H = -Σ p·ln p
//   dlogit = (g·(1[target] - p) - h·p·(ln p + H)) / T for the derivatives g of the log-probability and h of the entropy
//
// Shapes: logits (rows, stride) bf16 or f32, of which the first `vocab` columns count; `stride` is a multiple of 8;
// targets (rows) i32; logprob, entropy, lse, the ln Σ exp(logits / T), and the derivatives (rows) f32.
// Launch: a block of 512 threads for each row.
// Bytes a row of V: forward b·V, backward (b + 2)·V with b = 2 or 4. FLOPs a logit: 8 forward, 10 backward.
// Memory-bound: the exponentials of a row take half as long as its bytes on an H200.
//
// Logits in f32 cost twice the bytes and keep what bf16 drops, up to 0.06 in a logit of 20.
//
// History: 1. maximum and sums in one pass, relative to the greatest so far; the backward in place.

#include "softmax.cuh"

template <class T>
__device__ __forceinline__ void forward(
    const T* logits, const int* targets, float* logprob, float* entropy, float* lse, int vocab, size_t stride,
    float temperature) {
    const T* const row = logits + blockIdx.x * stride;
    const float scale = 1.0f / temperature;
    const Softmax softmax = row_softmax(row, vocab, scale);
    if (threadIdx.x != 0) return;
    const float log_sum = logf(softmax.sum);
    logprob[blockIdx.x] = logprob_of(softmax, to_float(row[targets[blockIdx.x]]), scale);
    entropy[blockIdx.x] = log_sum - softmax.weighted / softmax.sum;
    lse[blockIdx.x] = softmax.max * scale + log_sum;
}

// The gradient is bf16 and starts where the row of logits did: of f32 logits it fills the first half of every row. What
// lies between `vocab` and `stride` becomes zero.
template <class T>
__device__ __forceinline__ void backward(
    T* logits, const int* targets, const float* entropy, const float* lse, const float* d_logprob,
    const float* d_entropy, int vocab, size_t stride, float temperature) {
    T* const row = logits + blockIdx.x * stride;
    bf16* const out = reinterpret_cast<bf16*>(row);
    const float scale = 1.0f / temperature, log_sum = lse[blockIdx.x], h = entropy[blockIdx.x];
    const float by_logprob = d_logprob[blockIdx.x], by_entropy = d_entropy[blockIdx.x];
    const int target = targets[blockIdx.x], columns = static_cast<int>(stride);
    for (int first = 0; first < columns; first += 8 * SOFTMAX_THREADS) {
        const int column = first + 8 * threadIdx.x;
        float v[8] = {};
        if (column < columns) load_logits(row, column, vocab, v);
        // The bf16 of this stretch may lie where its own f32 have been, and nowhere after.
        if (sizeof(T) > sizeof(bf16)) __syncthreads();
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

#define HEAD(NAME, T)                                                                                              \
    extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS) head_forward_##NAME(                             \
        const T* logits, const int* targets, float* logprob, float* entropy, float* lse, int vocab, size_t stride, \
        float temperature) {                                                                                       \
        forward(logits, targets, logprob, entropy, lse, vocab, stride, temperature);                               \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS) head_backward_##NAME(                            \
        T* logits, const int* targets, const float* entropy, const float* lse, const float* d_logprob,             \
        const float* d_entropy, int vocab, size_t stride, float temperature) {                                     \
        backward(logits, targets, entropy, lse, d_logprob, d_entropy, vocab, stride, temperature);                 \
    }
HEAD(bf16, bf16)
HEAD(f32, float)
