// Branch attention, forward: a token attends to its group's prompt and, causally, to its own branch. CPU version:
// ops/attention.rs `forward`; the backward is in branch_attention_backward.cu.
//
//   out = softmax(q · kᵀ / √D) · v;  lse = ln Σ exp(q · kᵀ / √D)
//
// Online softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135; the work partitioning is that of
// Dao, arXiv 2307.08691). Products are in bf16 with f32 sums, softmax and statistics in f32. The weights are summed in f32 and
// then rounded to bf16 for their product with v.
//
// Shapes: qkv (T, (group + 2) · KV · D) bf16, positions applied: q heads, k heads, v heads; out (T, group · KV · D) bf16;
// lse (T, group · KV) f32; tiles (n) of 5 int32 each, `QueryTile`, count · group <= 128, heaviest first. Rows of out are
// `stride` values apart; the columns after each row belong to an adapter.
// Launch: grid (n, KV), because the other order would be limited to 65,535 tiles; 128 threads, 768 · D bytes of dynamic shared
// memory: 96 KiB for D = 128, so two blocks per multiprocessor of compute capability 9.0.
// FLOPs: 4 · D for each pair of a query and a key it sees. Bytes: 2 · T · (2 · group + 2) · KV · D from device memory. Each
// tile reads its keys and values again, from the L2 cache: 128 FLOPs per byte there for D = 128.
//
// Tile sizes. A warp has 32 rows, so that a fragment of keys or values, 4 cycles of shared memory, is used in 4 products,
// 8 cycles on compute capability 8.0 and about 6 on 9.0. With 16 rows, shared memory would be the bottleneck. 32 rows x 128
// columns of output and 32 x 64 scores need 192 of the 255 registers. Expected on an H200: 300 to 350 TFLOP/s for spans of
// 2,000 keys and more with D = 128, which is typical of such kernels. mma.sync itself is limited to about 62 % of wgmma's
// 790 TFLOP/s.
//
// History:
// 1. Four warps of 32 rows, keys and values double buffered, one barrier per tile of keys: 1,705 instructions per warp and
//    tile for D = 128, 256 of them matrix products.
// 2. Fragments at constant distances share an address, and copies share one per row: 1,220 instructions, but registers spill.
// 3. Weights are rounded when they are computed, and rows are read two steps of the product at a time: no spills.
// 4. A branch between the softmax and the second product: no spills on compute capability 10 and 12 either.

#include "attention.cuh"

constexpr int ROWS = 128, KEYS = 64, WARPS = 4, THREADS = 32 * WARPS;

template <int D>
__device__ __forceinline__ void forward(const bf16* qkv, bf16* out, float* lse, const QueryTile* tiles, int group,
                                        int stride) {
    constexpr int MT = ROWS / WARPS / 16, NT = KEYS / 8;
    DYNAMIC_SHARED(shared);
    bf16* const queries = reinterpret_cast<bf16*>(shared);  // (ROWS, D)
    bf16* const keys = queries + ROWS * D;                  // 2 x (KEYS, D)
    bf16* const values = keys + 2 * KEYS * D;               // 2 x (KEYS, D)

    const int kv_heads = gridDim.y, kv_head = blockIdx.y, heads = group * kv_heads;
    const unsigned row_bytes = 2 * (heads + 2 * kv_heads) * D;
    const QueryTile tile = tiles[blockIdx.x];
    const GroupRows rows(group);
    const int first_last = tile.last_key(0);
    const int used = tile.count * group, key_count = tile.keys();
    const int first = warp_index() * (ROWS / WARPS), lane = lane_index();

    each_chunk<D, ROWS, THREADS>([&](int row, int column, int at) {
        const bf16* from = row_of(qkv, tile.start + rows.token(row), row_bytes) + (kv_head * group + rows.head(row)) * D;
        cp_async16(queries + at, from + column, row < used);
    });
    const auto copy_keys = [&](int start, int stage) {
        const bf16* const key_head = qkv + (heads + kv_head) * D;
        copy_seen_keys<D, KEYS, THREADS>(key_head, kv_heads * D, row_bytes, tiles[blockIdx.x], start, key_count,
                                         keys + stage * KEYS * D, values + stage * KEYS * D);
    };
    copy_keys(0, 0);

    // For rows first + 16·m + 8·h + lane / 4: the largest score, and the lane's share of the sum.
    float greatest[MT][2], sum[MT][2] = {};
#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) greatest[m][h] = -INFINITY;
    }
    float outputs[MT][D / 8][4] = {};

    for (int start = 0, stage = 0; start < key_count; start += KEYS, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // the copies have arrived, and no warp reads the other stage any more
        if (start + KEYS < key_count) copy_keys(start + KEYS, stage ^ 1);

        float scores[MT][NT][4] = {};
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
        unsigned weights[MT][NT / 2][4];
        // Every row sees key 0, so `greatest` is finite after the first tile.
#pragma unroll
        for (int m = 0; m < MT; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float before = greatest[m][h];
                float most = before;
#pragma unroll
                for (int n = 0; n < NT; ++n) most = fmaxf(most, fmaxf(scores[m][n][2 * h], scores[m][n][2 * h + 1]));
                most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
                most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
                greatest[m][h] = most;
                const float factor = SCALE<D> * LOG2_E, shift = most * factor, shrink = exp2_approximate((before - most) * factor);
                float total = 0;
#pragma unroll
                for (int n = 0; n < NT; ++n) {
                    const float w0 = exp2_approximate(fmaf(scores[m][n][2 * h], factor, -shift));
                    const float w1 = exp2_approximate(fmaf(scores[m][n][2 * h + 1], factor, -shift));
                    total += w0;
                    total += w1;
                    weights[m][n / 2][n % 2 * 2 + h] = pack(w0, w1);
                }
                sum[m][h] = sum[m][h] * shrink + total;
#pragma unroll
                for (int n = 0; n < D / 8; ++n) {
                    outputs[m][n][2 * h] *= shrink;
                    outputs[m][n][2 * h + 1] *= shrink;
                }
            }
        }
        // Never true. Without a branch here, the compiler interleaves the softmax with the next product and spills registers.
        if (sum[0][0] < 0) break;
        multiply_weights<D>(outputs, weights, values + stage * KEYS * D);
    }

#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            sum[m][h] += __shfl_xor_sync(ALL_LANES, sum[m][h], 1);
            sum[m][h] += __shfl_xor_sync(ALL_LANES, sum[m][h], 2);
            const int row = first + 16 * m + 8 * h + lane / 4;
            const size_t at = static_cast<size_t>(tile.start + rows.token(row)) * heads + kv_head * group + rows.head(row);
            if (lane % 4 == 0 && row < used) lse[at] = greatest[m][h] * SCALE<D> + logf(sum[m][h]);
        }
    }
    // A warp reads only its own queries, so its outputs can overwrite them.
    round_rows<D>(queries, first, outputs, [&](int m, int h) { return 1.0f / sum[m][h]; });
    write_rows<D, ROWS / WARPS>(queries, first, [&](int row) {
        const size_t token = tile.start + rows.token(row);
        return row < used ? out + token * stride + (kv_head * group + rows.head(row)) * D : nullptr;
    });
}

#define FORWARD(D)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) branch_attention_forward_d##D(                       \
        const bf16* qkv, bf16* out, float* lse, const QueryTile* tiles, int group, int stride) {                  \
        forward<D>(qkv, out, lse, tiles, group, stride);                                                          \
    }

FORWARD(32)
FORWARD(64)
FORWARD(128)
