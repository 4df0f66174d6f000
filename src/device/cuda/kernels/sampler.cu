// Samples a token from each row of logits: temperature, top-k, top-p, min-p, Gumbel noise of a counter-based generator.
// Also computes its log-probability under the untruncated softmax(logits / T). CPU version: rollout/sampler.rs. Both select
// the same tokens, because everything that affects the choice is computed with the same bits.
//
//   token = argmax exp((logit - max) / T) / Eᵢ over the logits that are kept, with Eᵢ exponential from Philox4x32-10
//
// Shapes: logits (rows, stride) f32, of which the first `vocab` columns are used; `stride` is a multiple of 8;
// keys (rows, 2) u32, the keys of the branches' streams; positions (rows) i32; done (rows) i32, or null; tokens (rows) u32;
// logprobs (rows) f32. A row that is done keeps its token and log-probability.
// Launch: one block of 512 threads per row. Two blocks run on a multiprocessor, so that one computes while the other reads.
// Bytes per row of V: 8·V, the second half mostly from the cache; top-k and top-p each add 32 times 4·V. Operations per
// logit: about 80, half of them in the generator. Bound by arithmetic: calculated 60 µs for a row of 152,000 on one SM of an
// H200.
//
// History: 1. Two passes: softmax, then scores. The cutoff of top-k and top-p by bisection of the bits of the logits:
// no sort, no histogram, and sums in a fixed order. 2. 64 registers per thread for two blocks on a multiprocessor: a thread
// has 16 logits at a time, not 32. Rows that are done end immediately.

#include "philox.cuh"
#include "softmax.cuh"

// ---- The CPU's arithmetic (rng.rs, ops/simd.rs), operation for operation ----
// The compiler cannot contract any product and sum here: where they are one operation, the code uses fmaf.

__device__ __forceinline__ float exact_exp(float x) {
    constexpr float ROUND = 12582912.0f;
    const float shifted = fmaf(x, 1.44269504088896340736f, ROUND), n = __fsub_rn(shifted, ROUND);
    float r = fmaf(n, -0.6933594f, x);
    r = fmaf(n, 2.1219444e-4f, r);
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 0.5f);
    p = __fadd_rn(fmaf(p, __fmul_rn(r, r), r), 1.0f);
    const unsigned exponent = (__float_as_uint(shifted) - __float_as_uint(ROUND) + 127) << 23;
    return x < -87.3f ? 0.0f : __fmul_rn(p, __uint_as_float(exponent));
}

__device__ __forceinline__ float exact_ln(float x) {
    const unsigned bits = __float_as_uint(x) - 0x3f3504f3u;
    const float e = static_cast<float>(static_cast<int>(bits) >> 23);
    const float m = __fsub_rn(__uint_as_float((bits & 0x007fffffu) + 0x3f3504f3u), 1.0f);
    float p = 7.0376836e-2f;
    p = fmaf(p, m, -1.151461e-1f);
    p = fmaf(p, m, 1.1676999e-1f);
    p = fmaf(p, m, -1.2420141e-1f);
    p = fmaf(p, m, 1.4249323e-1f);
    p = fmaf(p, m, -1.6668058e-1f);
    p = fmaf(p, m, 2.0000715e-1f);
    p = fmaf(p, m, -2.4999994e-1f);
    p = fmaf(p, m, 3.333333e-1f);
    const float square = __fmul_rn(m, m);
    float y = __fmul_rn(__fmul_rn(p, m), square);
    y = fmaf(e, -2.1219444e-4f, y);
    y = fmaf(square, -0.5f, y);
    return fmaf(e, 0.6933594f, __fadd_rn(m, y));
}

__device__ __forceinline__ float exponential(unsigned bits) {
    const float u = fminf(
        __fmul_rn(__fadd_rn(__uint2float_rn(bits), 0.5f), 2.3283064365386962890625e-10f), 0.99999994039535522461f);
    const float y = __fsub_rn(1.0f, u);
    const float lost = __fsub_rn(__fsub_rn(1.0f, y), u);
    return -__fadd_rn(exact_ln(y), __fdiv_rn(lost, y));
}

// ---- Cutoffs of top-k, top-p and min-p ----

// An integer with the same order as the logits, and the inverse.
__device__ __forceinline__ unsigned order_of(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float at_order(unsigned order) {
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

struct Weight {
    float max, temperature;
    __device__ __forceinline__ double operator()(float logit) const {
        return exp(static_cast<double>(__fdiv_rn(__fsub_rn(logit, max), temperature)));
    }
};
struct One {
    __device__ __forceinline__ double operator()(float) const { return 1.0; }
};

// Σ weight(logit) over the logits whose order is in `from`..`to`.
template <class Measure>
__device__ __forceinline__ double mass(const float* row, int vocab, uint64_t from, uint64_t to, Measure weight) {
    double sum = 0;
    for (int column = 8 * threadIdx.x; column < vocab; column += 8 * SOFTMAX_THREADS) {
        float v[8];
        load_logits(row, column, vocab, v);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned order = order_of(v[i]);
            if (order >= from && order < to && column + i < vocab) sum += weight(v[i]);
        }
    }
    return block_sum(sum);
}

struct Quantile {
    unsigned order;  // of a logit
    double above;    // the mass of all larger ones
};

// The largest logit such that it and those above it have a mass of at least `enough`; `least` if no larger one has. Every step
// halves the interval and sums only within it.
template <class Measure>
__device__ __forceinline__ Quantile quantile(const float* row, int vocab, unsigned least, double enough, Measure weight) {
    uint64_t from = 0, to = uint64_t(1) << 32;
    double above = 0;
    while (to - from > 1) {
        const uint64_t middle = (from + to) / 2;
        if (middle <= least) {
            from = middle;
            continue;
        }
        const double here = mass(row, vocab, middle, to, weight);
        if (above + here >= enough) {
            from = middle;
        } else {
            above += here;
            to = middle;
        }
    }
    return {static_cast<unsigned>(from), above};
}

// The smallest logit that is kept.
__device__ __forceinline__ float cutoff(
    const float* row, int vocab, float max, float temperature, int top_k, float top_p, float min_p) {
    const Weight weight{max, temperature};
    unsigned least = 0;  // of the first top_k
    double excess = 0;   // the weight of those equal to the last of them, but after it
    if (top_k > 0 && top_k < vocab) {
        const Quantile last = quantile(row, vocab, 0, top_k, One{});
        least = last.order;
        const double value = weight(at_order(least));
        const double equal = mass(row, vocab, least, uint64_t(least) + 1, One{});
        excess = value * (last.above + equal - top_k);
    }
    if (top_p < 1.0f) {
        const double total = mass(row, vocab, least, uint64_t(1) << 32, weight) - excess;
        const unsigned last = quantile(row, vocab, least, static_cast<double>(top_p) * total, weight).order;
        least = last > least ? last : least;
    }
    if (min_p > 0.0f) {
        // The weight increases with the logit, so the smallest sufficient one is found without reading the row.
        unsigned from = 0, to = order_of(max);
        while (from < to) {
            const unsigned middle = from + (to - from) / 2;
            if (weight(at_order(middle)) >= static_cast<double>(min_p))
                to = middle;
            else
                from = middle + 1;
        }
        least = from > least ? from : least;
    }
    return at_order(least);
}

// ---- Sampling ----

// `from` is a multiple of 16 bytes, or 8 if the values are bf16: one access. Rows are padded to a multiple of 8 values.
__device__ __forceinline__ void load4(const float* from, float (&to)[4]) {
    const float4 raw = *reinterpret_cast<const float4*>(from);
    to[0] = raw.x, to[1] = raw.y, to[2] = raw.z, to[3] = raw.w;
}
__device__ __forceinline__ void load4(const bf16* from, float (&to)[4]) {
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    const float2 a = unpack(raw.x), b = unpack(raw.y);
    to[0] = a.x, to[1] = a.y, to[2] = b.x, to[3] = b.y;
}

struct Best {
    float score;
    unsigned token;
    // Of equal scores, the first wins.
    __device__ __forceinline__ void meet(float other, unsigned its_token) {
        if (other > score || (other == score && its_token < token)) score = other, token = its_token;
    }
};

__device__ __forceinline__ unsigned block_best(Best best) {
    __shared__ Best partial[32];
#pragma unroll
    for (int with = 16; with > 0; with /= 2)
        best.meet(__shfl_xor_sync(ALL_LANES, best.score, with), __shfl_xor_sync(ALL_LANES, best.token, with));
    if (lane_index() == 0) partial[warp_index()] = best;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x / 32; ++i) best.meet(partial[i].score, partial[i].token);
    return best.token;
}

// `temperature` 0 selects the first of the largest logits; top_k 0, top_p 1 and min_p 0 keep everything.
extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS, 2)
    sampler_f32(const float* logits, const unsigned* keys, const int* positions, const int* done, unsigned* tokens,
                float* logprobs, int vocab, size_t stride, float temperature, int top_k, float top_p, float min_p) {
    if (done != nullptr && done[blockIdx.x]) return;
    const float* const row = logits + blockIdx.x * stride;
    const bool greedy = temperature == 0;
    const float policy_temperature = greedy ? 1.0f : temperature, scale = 1.0f / policy_temperature;
    const Softmax softmax = row_softmax(row, vocab, scale);

    float least = MINUS_INFINITY;
    if (!greedy && (top_k > 0 || top_p < 1.0f || min_p > 0.0f))
        least = cutoff(row, vocab, softmax.max, temperature, top_k, top_p, min_p);

    const unsigned key0 = keys[2 * blockIdx.x], key1 = keys[2 * blockIdx.x + 1], position = positions[blockIdx.x];
    Best best = {greedy ? MINUS_INFINITY : -1.0f, 0};
    // Word w of block 16·i + l belongs to logit 64·i + 16·w + l. A thread handles four l, so four blocks and 16 logits.
    for (int unit = threadIdx.x; unit / 4 * 64 < vocab; unit += SOFTMAX_THREADS) {
        const int first = unit / 4 * 64 + unit % 4 * 4, block = unit / 4 * 16 + unit % 4 * 4;
        float v[4][4];
#pragma unroll
        for (int w = 0; w < 4; ++w)
            if (first + 16 * w < vocab) load4(row + first + 16 * w, v[w]);
#pragma unroll
        for (int l = 0; l < 4; ++l) {
            const uint4 words = philox(make_uint4(block + l, 0, position, 0), key0, key1);
            const unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                const int token = first + 16 * w + l;
                if (token >= vocab || !(v[w][l] >= least)) continue;
                const float weight = exact_exp(__fmul_rn(__fsub_rn(v[w][l], softmax.max), scale));
                best.meet(greedy ? v[w][l] : __fdiv_rn(weight, exponential(word[w])), token);
            }
        }
    }
    const unsigned token = block_best(best);
    if (threadIdx.x != 0) return;
    tokens[blockIdx.x] = token;
    logprobs[blockIdx.x] = logprob_of(softmax, row[token], scale);
}
