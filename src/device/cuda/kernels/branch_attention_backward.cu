// Branch attention, backward: the gradient of qkv from that of the outputs. CPU version: ops/attention.rs `backward`.
//
//   w = exp(q · kᵀ / √D - lse);  ds = w ∘ (d_out · vᵀ - Σ d_out ∘ out);  dq = ds · k / √D;  dk = dsᵀ · q / √D;  dv = wᵀ · d_out
//
// The scores are computed again (Dao et al., arXiv 2205.14135), once for the tiles of queries and once for the tiles of keys:
// seven matrix products instead of five, but no atomics, so every gradient is a sum in a fixed order. The gradients of a key are
// summed over all heads of its group, in registers. A prompt's keys are seen by all branches, so their queries are divided
// among several blocks, whose f32 sums are added up by a final kernel (ops/attention_tiles.rs).
//
// The kernels, in this order:
//
// 1. branch_attention_dots: Σ d_out ∘ out for every token and head.
//    out, d_out (T, heads, D) bf16, dots (T · heads) f32; count is T · heads. One thread per 8 values, in blocks of 256.
//    Memory-bound: 4 bytes per value.
// 2. branch_attention_backward_queries_d*: dq. tiles (n) of 5 int32, `QueryTile`, as in the forward.
//    Grid (n, KV), 128 threads; shared bytes 98,304 for D = 128, 65,536 for 64, 32,768 for 32. FLOPs: 6 · D per pair of
//    query and key.
// 3. branch_attention_backward_keys_d*: dk and dv. tiles (n) of 7 int32, `KeyTile`, count <= 64; partial (slots, KV, 2, 64, D)
//    f32, not read. Grid (n, KV), 128 threads, 768 · D + 1,024 shared bytes. FLOPs: 8 · D per pair.
// 4. branch_attention_backward_sum: the sum of partial gradients. tiles (n) of 4 int32, `SumTile`. Grid (n, KV), 256 threads.
//    Bytes: 1,024 · D per slot and KV head, usually from the L2 cache.
//
// qkv, d_qkv (T, (group + 2) · KV · D) bf16; lse, dots (T, group · KV) f32; d_out (T, group · KV · D) bf16. Every value of
// d_qkv is written once: q by kernel 2, k and v by 3 or 4. Rows of out and d_qkv are `stride` values apart; the columns after
// each row belong to an adapter.
//
// Tile sizes, for D = 128. Queries: a warp has 32 rows. 128 registers of dq, and 32 keys of scores and of d_out · vᵀ (64),
// leave no room for more keys; shared memory and tensor cores then take about equally long. Keys: a warp has 16 keys. dk and dv
// need 128 registers, 64 rows of queries another 64; here shared memory is the bottleneck and takes 1.4 times as long as the
// tensor cores of compute capability 9.0. Both have two blocks per multiprocessor. Expected on an H200: 200 to 250 TFLOP/s,
// counting all seven products.
//
// History:
// 1. Two kernels; the scores of the second are transposed, so that its weights are in the registers where its last two products
//    need them, and shared memory contains only unmodified tiles.
// 2. Between the two products of its weights, the second kernel keeps them rounded: 16 registers less, and no spills.
// 3. A branch before the last product of the second kernel: no spills with the compiler of CUDA 11.8 either.
// Not done: two warps that share 16 keys, each with half of dk and dv. It would halve the shared memory reads, but add an
// exchange of weights.

#include "attention.cuh"

constexpr int WARPS = 4, THREADS = 32 * WARPS;

// Consecutive keys and some of the tokens that see them. The tokens are numbered: first those of the keys' own sequence from
// `start` up to `own_end`, then the part's branches from `others_start` on. A key is seen by the first ones causally, and by all
// of the others.
struct KeyTile {
    int start, count, own_end, others_start, from, to, slot;

    __device__ __forceinline__ int token_row(int number) const {
        const int own = own_end - start;
        return number + (number < own ? start : others_start - own);
    }
};

struct SumTile {
    int start, count, slot, slots;
};

// ---- Σ d_out ∘ out ----

extern "C" __global__ void __launch_bounds__(256)
    branch_attention_dots(const bf16* out, const bf16* d_out, float* dots, int count, int heads, int dim, int stride) {
    const int lanes = dim / 8, line = (blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    float sum = 0;
    if (line < count) {
        const int column = threadIdx.x % lanes * 8;
        float a[8], b[8];
        load8(out + static_cast<size_t>(line / heads) * stride + line % heads * dim + column, a);
        load8(d_out + static_cast<size_t>(line) * dim + column, b);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += a[i] * b[i];
    }
    for (int with = lanes / 2; with > 0; with /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, with);
    if (line < count && threadIdx.x % lanes == 0) dots[line] = sum;
}

// ---- Queries ----

template <int D>
__device__ __forceinline__ void backward_queries(const bf16* qkv, const float* lse, const bf16* d_out, const float* dots,
                                                 bf16* d_qkv, const QueryTile* tiles, int group, int stride) {
    constexpr int ROWS = 128, KEYS = D == 128 ? 32 : 64, MT = ROWS / WARPS / 16, NT = KEYS / 8;
    DYNAMIC_SHARED(shared);
    bf16* const queries = reinterpret_cast<bf16*>(shared);  // (ROWS, D)
    bf16* const d_outs = queries + ROWS * D;                // (ROWS, D)
    bf16* const keys = d_outs + ROWS * D;                   // 2 x (KEYS, D)
    bf16* const values = keys + 2 * KEYS * D;               // 2 x (KEYS, D)

    const int kv_heads = gridDim.y, kv_head = blockIdx.y, heads = group * kv_heads;
    const unsigned row_bytes = 2 * (heads + 2 * kv_heads) * D;
    const QueryTile tile = tiles[blockIdx.x];
    const GroupRows rows(group);
    const int used = tile.count * group, key_count = tile.keys(), first_last = tile.last_key(0);
    const int first = warp_index() * (ROWS / WARPS), lane = lane_index();

    each_chunk<D, ROWS, THREADS>([&](int row, int column, int at) {
        const int token = tile.start + rows.token(row), from = (kv_head * group + rows.head(row)) * D + column;
        cp_async16(queries + at, row_of(qkv, token, row_bytes) + from, row < used);
        cp_async16(d_outs + at, row_of(d_out, token, 2 * heads * D) + from, row < used);
    });
    const auto copy_keys = [&](int start, int stage) {
        const bf16* const key_head = qkv + (heads + kv_head) * D;
        copy_seen_keys<D, KEYS, THREADS>(key_head, kv_heads * D, row_bytes, tiles[blockIdx.x], start, key_count,
                                         keys + stage * KEYS * D, values + stage * KEYS * D);
    };
    copy_keys(0, 0);

    // For rows first + 16·m + 8·h + lane / 4; rows past the end have no weights.
    float log_sum[MT][2], dot[MT][2];
#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = first + 16 * m + 8 * h + lane / 4;
            const size_t at = static_cast<size_t>(tile.start + rows.token(row)) * heads + kv_head * group + rows.head(row);
            log_sum[m][h] = row < used ? lse[at] * LOG2_E : INFINITY;
            dot[m][h] = row < used ? dots[at] : 0;
        }
    }
    float d_queries[MT][D / 8][4] = {};

    for (int start = 0, stage = 0; start < key_count; start += KEYS, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // the copies have arrived, and no warp reads the other stage any more
        if (start + KEYS < key_count) copy_keys(start + KEYS, stage ^ 1);

        float scores[MT][NT][4] = {}, d_weights[MT][NT][4] = {};
        multiply_rows<D>(scores, queries, first, keys + stage * KEYS * D);
        if (start + KEYS - 1 > first_last) {
#pragma unroll
            for (int m = 0; m < MT; ++m) {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int last = first_last - start + rows.token(first + 16 * m + 8 * h + lane / 4) - 2 * (lane % 4);
                    hide_after(scores, m, h, last);
                }
            }
        }
        multiply_rows<D>(d_weights, d_outs, first, values + stage * KEYS * D);
        unsigned d_scores[MT][NT / 2][4];
#pragma unroll
        for (int m = 0; m < MT; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
#pragma unroll
                for (int n = 0; n < NT; ++n) {
                    float d[2];
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const float weight = exp2_approximate(fmaf(scores[m][n][2 * h + i], SCALE<D> * LOG2_E, -log_sum[m][h]));
                        d[i] = weight * (d_weights[m][n][2 * h + i] - dot[m][h]);
                    }
                    d_scores[m][n / 2][n % 2 * 2 + h] = pack(d[0], d[1]);
                }
            }
        }
        multiply_weights<D>(d_queries, d_scores, keys + stage * KEYS * D);
    }

    // A warp reads only its own queries, so its gradients can overwrite them.
    round_rows<D>(queries, first, d_queries, [](int, int) { return SCALE<D>; });
    // Read again, because keeping it during the loop costs a register.
    const int count = tiles[blockIdx.x].count * group;
    write_rows<D, ROWS / WARPS>(queries, first, [&](int row) {
        const size_t token = tile.start + rows.token(row);
        return row < count ? d_qkv + token * stride + (kv_head * group + rows.head(row)) * D : nullptr;
    });
}

// ---- Keys and values ----

template <int D>
__device__ __forceinline__ void backward_keys(const bf16* qkv, const float* lse, const bf16* d_out, const float* dots,
                                              bf16* d_qkv, float* partial, const KeyTile* tiles, int group, int stride) {
    constexpr int ROWS = 64, KEYS = 64, NT = ROWS / 8;
    DYNAMIC_SHARED(shared);
    bf16* const keys = reinterpret_cast<bf16*>(shared);                          // (KEYS, D)
    bf16* const values = keys + KEYS * D;                                        // (KEYS, D)
    bf16* const queries = values + KEYS * D;                                     // 2 x (ROWS, D)
    bf16* const d_outs = queries + 2 * ROWS * D;                                 // 2 x (ROWS, D)
    float* const statistics = reinterpret_cast<float*>(d_outs + 2 * ROWS * D);   // 2 x (log-sum-exp, dot) x ROWS

    const int kv_heads = gridDim.y, kv_head = blockIdx.y, heads = group * kv_heads;
    const unsigned row_bytes = 2 * (heads + 2 * kv_heads) * D;
    const KeyTile tile = tiles[blockIdx.x];
    const GroupRows rows(group);
    const int tokens = ROWS / group, first = warp_index() * (KEYS / WARPS), lane = lane_index();

    each_chunk<D, KEYS, THREADS>([&](int row, int column, int at) {
        const bf16* from = row_of(qkv + (heads + kv_head) * D + column, tile.start + row, row_bytes);
        cp_async16(keys + at, from, row < tile.count);
        cp_async16(values + at, from + kv_heads * D, row < tile.count);
    });
    const auto copy_queries = [&](int number, int stage) {
        const KeyTile tile = tiles[blockIdx.x];  // read again each time, so that it does not occupy registers
        each_chunk<D, ROWS, THREADS>([&](int row, int column, int at) {
            const int ahead = rows.token(row), token = tile.token_row(number + ahead);
            const int from = (kv_head * group + rows.head(row)) * D + column;
            const bool there = ahead < tokens && number + ahead < tile.to;
            cp_async16(queries + stage * ROWS * D + at, row_of(qkv, token, row_bytes) + from, there);
            cp_async16(d_outs + stage * ROWS * D + at, row_of(d_out, token, 2 * heads * D) + from, there);
        });
        cp_async_commit();
    };
    // The first threads fetch a row's log-sum-exp, the others its dot. Rows past the end have no weights.
    const auto statistic = [&](int number) {
        const KeyTile tile = tiles[blockIdx.x];
        const int row = threadIdx.x % ROWS, ahead = rows.token(row);
        const bool there = ahead < tokens && number + ahead < tile.to;
        const size_t at = static_cast<size_t>(tile.token_row(number + ahead)) * heads + kv_head * group + rows.head(row);
        if (threadIdx.x < ROWS) return there ? lse[at] * LOG2_E : INFINITY;
        return there ? dots[at] : 0;
    };
    copy_queries(tile.from, 0);
    statistics[threadIdx.x] = statistic(tile.from);

    float d_keys[1][D / 8][4] = {}, d_values[1][D / 8][4] = {};
    for (int number = tile.from, stage = 0; number < tile.to; number += tokens, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // the copies have arrived, and no warp reads the other stage any more
        float next = 0;
        if (number + tokens < tile.to) {
            copy_queries(number + tokens, stage ^ 1);
            next = statistic(number + tokens);
        }

        // Keys by queries.
        float scores[1][NT][4] = {};
        multiply_rows<D>(scores, keys, first, queries + stage * ROWS * D);
        if (number < KEYS - 1) {
            // Key i is hidden from the queries of tokens before number i.
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int rows_before = (first + 8 * h + lane / 4 - number) * group - 2 * (lane % 4);
#pragma unroll
                for (int n = 0; n < NT; ++n) {
                    if (8 * n < rows_before) scores[0][n][2 * h] = -INFINITY;
                    if (8 * n + 1 < rows_before) scores[0][n][2 * h + 1] = -INFINITY;
                }
            }
        }
        unsigned fragments[1][NT / 2][4];
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            const float2 log_sum = *reinterpret_cast<const float2*>(statistics + stage * 2 * ROWS + 8 * n + 2 * (lane % 4));
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float w0 = exp2_approximate(fmaf(scores[0][n][2 * h], SCALE<D> * LOG2_E, -log_sum.x));
                const float w1 = exp2_approximate(fmaf(scores[0][n][2 * h + 1], SCALE<D> * LOG2_E, -log_sum.y));
                fragments[0][n / 2][n % 2 * 2 + h] = pack(w0, w1);
            }
        }
        multiply_weights<D>(d_values, fragments, d_outs + stage * ROWS * D);

        float d_weights[1][NT][4] = {};
        multiply_rows<D>(d_weights, values, first, d_outs + stage * ROWS * D);
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            const float2 dot = *reinterpret_cast<const float2*>(statistics + (stage * 2 + 1) * ROWS + 8 * n + 2 * (lane % 4));
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                // The rounded weights, which need half the registers.
                unsigned& fragment = fragments[0][n / 2][n % 2 * 2 + h];
                const float2 w = unpack(fragment);
                const float(&d)[4] = d_weights[0][n];
                fragment = pack(w.x * (d[2 * h] - dot.x), w.y * (d[2 * h + 1] - dot.y));
            }
        }
        // Never true. A branch here keeps the compiler from using more registers at a time than there are.
        if (number < 0) break;
        multiply_weights<D>(d_keys, fragments, queries + stage * ROWS * D);
        statistics[(stage ^ 1) * 2 * ROWS + threadIdx.x] = next;
    }

    if (tile.slot >= 0) {
        float* const d_key = partial + (static_cast<size_t>(tile.slot) * kv_heads + kv_head) * 2 * KEYS * D;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
                const int at = (first + 8 * h + lane / 4) * D + 8 * n + 2 * (lane % 4);
                const float(&k)[4] = d_keys[0][n], (&v)[4] = d_values[0][n];
                *reinterpret_cast<float2*>(d_key + at) = make_float2(k[2 * h] * SCALE<D>, k[2 * h + 1] * SCALE<D>);
                *reinterpret_cast<float2*>(d_key + KEYS * D + at) = make_float2(v[2 * h], v[2 * h + 1]);
            }
        }
        return;
    }
    // A warp reads only its own keys and values, so its gradients can overwrite them.
    round_rows<D>(keys, first, d_keys, [](int, int) { return SCALE<D>; });
    round_rows<D>(values, first, d_values, [](int, int) { return 1.0f; });
    const auto target = [&](int row, int head) {
        return row < tile.count ? d_qkv + static_cast<size_t>(tile.start + row) * stride + head * D : nullptr;
    };
    write_rows<D, KEYS / WARPS>(keys, first, [&](int row) { return target(row, heads + kv_head); });
    write_rows<D, KEYS / WARPS>(values, first, [&](int row) { return target(row, heads + kv_heads + kv_head); });
}

#define BACKWARD(D)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) branch_attention_backward_queries_d##D(                  \
        const bf16* qkv, const float* lse, const bf16* d_out, const float* dots, bf16* d_qkv, const QueryTile* tiles, \
        int group, int stride) {                                                                                      \
        backward_queries<D>(qkv, lse, d_out, dots, d_qkv, tiles, group, stride);                                      \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) branch_attention_backward_keys_d##D(                     \
        const bf16* qkv, const float* lse, const bf16* d_out, const float* dots, bf16* d_qkv, float* partial,         \
        const KeyTile* tiles, int group, int stride) {                                                                \
        backward_keys<D>(qkv, lse, d_out, dots, d_qkv, partial, tiles, group, stride);                                \
    }

BACKWARD(32)
BACKWARD(64)
BACKWARD(128)

// ---- Sum of partial gradients ----

extern "C" __global__ void __launch_bounds__(256)
    branch_attention_backward_sum(const float* partial, bf16* d_qkv, const SumTile* tiles, int group, int dim, int stride) {
    constexpr int KEYS = 64;
    const int kv_heads = gridDim.y, kv_head = blockIdx.y;
    const SumTile tile = tiles[blockIdx.x];
    const size_t of_slot = static_cast<size_t>(kv_heads) * 2 * KEYS * dim;
    partial += tile.slot * of_slot + static_cast<size_t>(kv_head) * 2 * KEYS * dim;
    for (int chunk = threadIdx.x; chunk < 2 * KEYS * dim / 8; chunk += blockDim.x) {
        const int line = 8 * chunk / dim, key = line % KEYS, head = (group + line / KEYS) * kv_heads + kv_head;
        if (key >= tile.count) continue;
        float sum[8] = {};
        for (int slot = 0; slot < tile.slots; ++slot) {
            float part[8];
            load8(partial + slot * of_slot + 8 * chunk, part);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[i] += part[i];
        }
        store8(d_qkv + static_cast<size_t>(tile.start + key) * stride + head * dim + 8 * chunk % dim, sum);
    }
}
