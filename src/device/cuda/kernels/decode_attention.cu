// Decode attention: one new token per row attends to the keys of its prompt, which the branches of a group share, and of its
// own branch. CPU version: ops/attention.rs `decode`.
//
//   out = softmax(q · kᵀ / √D) · v
//
// Split over keys (Dao et al., "Flash-Decoding for long-context inference", 2023): a row's keys, first its prompt's and then
// its own, are split into spans of SPAN. One launch processes the spans; a second adds up the spans of each row in order.
// Spans depend only on the row's own lengths, and so does the row's result.
//
// 1. decode_attention_spans_d*: grid (rows, KV, spans), 128 threads, no dynamic shared memory; `spans` is at least
//    ⌈(prompt + branch) / 256⌉ of every row, and blocks for spans that a row does not have end immediately. Neighbors in the
//    grid are the branches of a group, so a span of their shared prompt is read from the L2 cache.
// 2. decode_attention_sum_d*: grid (rows, group · KV), D threads.
//
// Shapes: qkv (rows, (group + 2) · KV · D) bf16, of which q is read, positions applied; keys and values (slots, KV, capacity,
// D) bf16, one pair for prompts and one for branches; prompt_slots, prompt_counts, own_slots, own_counts (rows) int32: row r
// sees the first prompt_counts[r] >= 1 keys of its prompt's slot and the first own_counts[r] keys of its own slot, including the
// new token's (none in an idle row, whose slot may be -1); sums (rows, KV, spans, group, D) and statistics (rows, KV, spans,
// group, 2) f32; out (rows, group · KV · D) bf16, its rows `stride` values apart; the columns after each row belong to an
// adapter. `group` is at most 8.
// Bytes: 4 · KV · D per row and key, each read once for the whole group. The spans' sums add 4 · group · D · 2 per 256 keys,
// 5 % for a group of 7, mostly in the L2 cache. FLOPs: 4 · group · KV · D per row and key; on the tensor cores, with the group
// padded to 16 rows, about 15 % of their time.
//
// Keys and values do not pass through shared memory. The product sums over pairs of dimensions in any order, so a lane loads
// eight consecutive dimensions of a key, 16 bytes, as its part of two steps of the product. For the values, it loads eight
// consecutive dimensions of four keys and interleaves their pairs with two instructions per product. A warp has all loads of
// 16 keys in flight before it uses the first, 8 KiB for D = 128. The 12 warps of a multiprocessor (8 on compute
// capability 8.0) therefore have 96 KiB in flight; 4.3 TB/s at 800 ns need 26.
// Expected on an H200: 80 to 85 % of the copy bandwidth with at least 64 rows and 1,000 keys. With less, the launches, the
// second pass and the last wave of blocks matter: 8 rows and 1,000 keys give 128 blocks for 132 multiprocessors.
//
// History:
// 1. Keys and values are loaded from memory into fragments; four warps per span, each with every fourth 16 keys.
// 2. In the second pass, one block per head instead of per group: its dependent reads take a seventh of the time.

#include "attention.cuh"

constexpr int SPAN = 256, STEP = 16, WARPS = 4, THREADS = 32 * WARPS, GROUP = 8;

// Keys and values of one row and KV head; key i is the prompt's if i < prompt_count.
struct Cache {
    const bf16 *prompt_keys, *prompt_values, *own_keys, *own_values;
    int prompt_count;

    template <int D>
    __device__ __forceinline__ const bf16* key(int i) const {
        return i < prompt_count ? prompt_keys + i * D : own_keys + (i - prompt_count) * D;
    }
    template <int D>
    __device__ __forceinline__ const bf16* value(int i) const {
        return i < prompt_count ? prompt_values + i * D : own_values + (i - prompt_count) * D;
    }
};

__device__ __forceinline__ uint4 load_or_zero(const bf16* from, bool there) {
    return there ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
}

// Pairs of one dimension and two keys, from two keys' pairs of dimensions.
__device__ __forceinline__ unsigned first_halves(unsigned a, unsigned b) { return (a & 0xffffu) | b << 16; }
__device__ __forceinline__ unsigned second_halves(unsigned a, unsigned b) { return a >> 16 | (b & 0xffff0000u); }

template <int D>
__device__ __forceinline__ void spans(
    const bf16* qkv, const bf16* prompt_keys, const bf16* prompt_values, const bf16* own_keys, const bf16* own_values,
    const int* prompt_slots, const int* prompt_counts, const int* own_slots, const int* own_counts, float* sums,
    float* statistics, int group, int prompt_capacity, int own_capacity) {
    constexpr int CHUNKS = D / 32;        // of 32 dimensions of a key: a lane has 8, the four lanes of a quad have all
    constexpr int PARTS = (D + 63) / 64;  // of 64 dimensions of a value: a lane has 8, the eight lanes of a column have all
    const int row = blockIdx.x, kv_head = blockIdx.y, kv_heads = gridDim.y, heads = group * kv_heads;
    const int prompt_count = prompt_counts[row], count = prompt_count + own_counts[row];
    const int begin = blockIdx.z * SPAN, end = min(begin + SPAN, count);
    if (begin >= count) return;
    const size_t of_prompt = (static_cast<size_t>(prompt_slots[row]) * kv_heads + kv_head) * prompt_capacity * D;
    const size_t of_own = (static_cast<size_t>(own_slots[row]) * kv_heads + kv_head) * own_capacity * D;
    const Cache cache{prompt_keys + of_prompt, prompt_values + of_prompt, own_keys + of_own, own_values + of_own, prompt_count};

    // Row g of a product is head g of the group; column 2t or 2t + 1 is a key; rows 8 ... 15 are zero.
    const int lane = lane_index(), g = lane / 4, t = lane % 4;
    uint4 query[CHUNKS];
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const size_t at = (static_cast<size_t>(row) * (heads + 2 * kv_heads) + kv_head * group + g) * D + 32 * c + 8 * t;
        query[c] = load_or_zero(qkv + at, g < group);
    }

    // For head g: the largest score and this lane's share of the sum; its outputs in dimensions 64·p + 16t + i and + 8 + i.
    float greatest = -INFINITY, sum = 0;
    float outputs[PARTS][8][4] = {};
    for (int start = begin + warp_index() * STEP; start < end; start += WARPS * STEP) {
        uint4 keys[2][CHUNKS], values[4][PARTS];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const int key = start + 8 * n + g;
            const bf16* from = cache.key<D>(key) + 8 * t;
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) keys[n][c] = load_or_zero(from + 32 * c, key < end);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int key = start + 8 * (i / 2) + 2 * t + i % 2;
            const bf16* from = cache.value<D>(key) + 8 * g;
#pragma unroll
            for (int p = 0; p < PARTS; ++p) values[i][p] = load_or_zero(from + 64 * p, key < end && 8 * g + 64 * p < D);
        }

        // The first half of dimensions 8t ... 8t + 7 is used in one step of the product, the second half in the next.
        float scores[2][4] = {};
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            const unsigned low[4] = {query[c].x, 0, query[c].y, 0}, high[4] = {query[c].z, 0, query[c].w, 0};
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                mma_16816(scores[n], low, keys[n][c].x, keys[n][c].y);
                mma_16816(scores[n], high, keys[n][c].z, keys[n][c].w);
            }
        }

        const float factor = SCALE<D> * LOG2_E, before = greatest;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                scores[n][i] = start + 8 * n + 2 * t + i < end ? scores[n][i] : -INFINITY;
                greatest = fmaxf(greatest, scores[n][i]);
            }
        }
        // The first of the 16 keys exists, so this is finite.
        greatest = fmaxf(greatest, __shfl_xor_sync(ALL_LANES, greatest, 1));
        greatest = fmaxf(greatest, __shfl_xor_sync(ALL_LANES, greatest, 2));
        const float shrink = exp2_approximate((before - greatest) * factor);
        unsigned weights[4] = {};
        sum *= shrink;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const float w0 = exp2_approximate(fmaf(scores[n][0], factor, -greatest * factor));
            const float w1 = exp2_approximate(fmaf(scores[n][1], factor, -greatest * factor));
            sum += w0 + w1;
            weights[2 * n] = pack(w0, w1);
        }

        // Column g of product i of a part is dimension 8g + i.
#pragma unroll
        for (int p = 0; p < PARTS; ++p) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                outputs[p][i][0] *= shrink;
                outputs[p][i][1] *= shrink;
            }
            const auto multiply = [&](int i, unsigned k0, unsigned k1, unsigned k8, unsigned k9) {
                mma_16816(outputs[p][i], weights, first_halves(k0, k1), first_halves(k8, k9));
                mma_16816(outputs[p][i + 1], weights, second_halves(k0, k1), second_halves(k8, k9));
            };
            multiply(0, values[0][p].x, values[1][p].x, values[2][p].x, values[3][p].x);
            multiply(2, values[0][p].y, values[1][p].y, values[2][p].y, values[3][p].y);
            multiply(4, values[0][p].z, values[1][p].z, values[2][p].z, values[3][p].z);
            multiply(6, values[0][p].w, values[1][p].w, values[2][p].w, values[3][p].w);
        }
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);

    // The warps' sums, in the order of the warps. Four more values per row spread the rows over the banks.
    __shared__ float warp_greatest[WARPS][GROUP], warp_sum[WARPS][GROUP];
    __align__(16) __shared__ float warp_outputs[WARPS][GROUP][D + 4];
    const int warp = warp_index();
    if (t == 0) {
        warp_greatest[warp][g] = greatest;
        warp_sum[warp][g] = sum;
    }
#pragma unroll
    for (int p = 0; p < PARTS; ++p) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            // Columns 2t and 2t + 1 of the eight products are dimensions 16t ... 16t + 15.
            const int dimension = 64 * p + 16 * t + 8 * i;
            float eight[8];
#pragma unroll
            for (int j = 0; j < 8; ++j) eight[j] = outputs[p][j][i];
            if (dimension < D) store8(&warp_outputs[warp][g][dimension], eight);
        }
    }
    __syncthreads();
    const size_t at = ((static_cast<size_t>(row) * kv_heads + kv_head) * gridDim.z + blockIdx.z) * group;
    for (int i = threadIdx.x; i < group * D; i += THREADS) {
        const int head = i / D;
        float most = warp_greatest[0][head];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) most = fmaxf(most, warp_greatest[w][head]);
        float total = 0, output = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            // The share of a warp that had no keys is zero.
            const float share = exp2_approximate((warp_greatest[w][head] - most) * (SCALE<D> * LOG2_E));
            total += share * warp_sum[w][head];
            output += share * warp_outputs[w][head][i % D];
        }
        sums[at * D + i] = output;
        if (i % D == 0) {
            statistics[2 * (at + head)] = most;
            statistics[2 * (at + head) + 1] = total;
        }
    }
}

template <int D>
__device__ __forceinline__ void sum_of_spans(
    const float* sums, const float* statistics, const int* prompt_counts, const int* own_counts, bf16* out, int group, int spans,
    int stride) {
    const int row = blockIdx.x, head = blockIdx.y, heads = gridDim.y;
    const int used = (prompt_counts[row] + own_counts[row] + SPAN - 1) / SPAN;
    const size_t line = (static_cast<size_t>(row) * heads + head) / group * spans * group + head % group;
    sums += line * D + threadIdx.x;
    statistics += line * 2;
    float most = -INFINITY;
    for (int s = 0; s < used; ++s) most = fmaxf(most, statistics[2 * s * group]);
    float total = 0, output = 0;
    for (int s = 0; s < used; ++s) {
        const float share = exp2_approximate((statistics[2 * s * group] - most) * (SCALE<D> * LOG2_E));
        total += share * statistics[2 * s * group + 1];
        output += share * sums[s * group * D];
    }
    out[static_cast<size_t>(row) * stride + head * D + threadIdx.x] = __float2bfloat16_rn(output / total);
}

#define DECODE(D)                                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_spans_d##D(                                      \
        const bf16* qkv, const bf16* prompt_keys, const bf16* prompt_values, const bf16* own_keys, const bf16* own_values,  \
        const int* prompt_slots, const int* prompt_counts, const int* own_slots, const int* own_counts, float* sums,        \
        float* statistics, int group, int prompt_capacity, int own_capacity) {                                              \
        spans<D>(qkv, prompt_keys, prompt_values, own_keys, own_values, prompt_slots, prompt_counts, own_slots, own_counts, \
                 sums, statistics, group, prompt_capacity, own_capacity);                                                   \
    }                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(D) decode_attention_sum_d##D(                                              \
        const float* sums, const float* statistics, const int* prompt_counts, const int* own_counts, bf16* out, int group,  \
        int spans, int stride) {                                                                                            \
        sum_of_spans<D>(sums, statistics, prompt_counts, own_counts, out, group, spans, stride);                            \
    }

DECODE(32)
DECODE(64)
DECODE(128)
