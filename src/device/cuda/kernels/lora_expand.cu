// LoRA, from narrow to wide: y[:, part] += scale · low_part · B_part in the forward, dx += d_low · A in the backward.
// Layouts: lora.cuh.
//
//   lora_expand         low (rows, parts·depth) · weights -> y (rows, stride), for each part
//   lora_expand_split   the same for few rows, from the partial sums that lora_shrink left
//
// Forward: depth = padded, weights = B, the parts as they are. dx is the same product with one part, the whole of x:
// depth = parts·padded, weights = A, scale = 1 (d_low has it already), start 0 and width `inputs`.
// With `add` y is read, added to in f32 and rounded once. Without it the product is written, so that the big product
// that follows can add itself on top (beta = 1): half the bytes here, and the reading hides behind its arithmetic.
//
// Launch: tiles of 128 columns of a part (the last of a part may be narrower), 256 threads.
//   expand:       blocks (tiles of all parts, ⌈rows / 128⌉), 32768 bytes of shared memory
//   expand_split: blocks (tiles of all parts, ⌈rows / 32⌉), 20480 bytes
// Bytes: 2·rows·width of y written, as many read with `add`; weights and low come from the L2 cache (a tile of 32 KB of
// y reads 16 KB of them at rank 32). FLOPs: 2·rows·width·depth. For gate and up of Qwen2.5-7B at rank 32 and 16,384
// rows: 1.24 GB written (0.30 ms at 4.2 TB/s), 40 GFLOP (0.05 ms at 790 TFLOP/s). Memory-bound up to rank 128.
//
// History:
//  1. The columns of the weights are put into shared memory in another order, in which the values that a lane holds of
//     four products are 8 neighbours in memory: 16 bytes an access, four lanes 64 bytes of a row, and no exchange. As the
//     products come it would be 4 bytes, half a sector of 32 at a time.
//     For decoding the sum over the splits of the shrink is taken here, by every block for its rows: two launches for a
//     group instead of three, and a launch is worth more than reading some hundred KB from the L2 cache.
//  2. The copy of the weights unrolled twice: four times, 8 bytes of registers spilled on sm_80.

#include "lora.cuh"

namespace {

constexpr int DEPTH = 64;

// y (+)= scale · low · weights for a tile. Of the 8 warps DOWN share out the rows, 16·M each, the others the columns.
// `fill(k0, to)` begins to put columns k0.. of low into the tile `to` (rows, 64), zeros past the last row.
template <int DOWN, int M, class Fill>
__device__ __forceinline__ void expand_tile(bf16* low_tile, bf16* weight_tile, Fill fill, const bf16* weights,
                                            const PartTile& part, int depth, int rank, float scale, bf16* y, size_t stride,
                                            int rows, bool add) {
    constexpr int QUADS = DOWN / 2;  // groups of four products side by side: 32 columns
    const int lane = lane_index(), down = warp_index() % DOWN, across = warp_index() / DOWN;
    const int padded = padded_rank(rank);
    float acc[M][4 * QUADS][4] = {};

    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        const int ks = min(DEPTH, depth - k0);
        if (k0) __syncthreads();
        fill(k0, low_tile);
#pragma unroll 2
        for (int i = threadIdx.x; i < 16 * ks; i += LORA_THREADS) {
            const int k = i / 16, chunk = i % 16, column = part.first + 8 * chunk;
            const int layer = (k0 + k) / padded, at = (k0 + k) % padded;
            uint4 v = make_uint4(0, 0, 0, 0);
            if (at < rank && column < part.width)
                v = *reinterpret_cast<const uint4*>(weights + static_cast<size_t>(layer * rank + at) * part.width + column);
            // The pair j of chunk 4q + t becomes columns 2t, 2t + 1 of product 4q + j: those that lane t of four gets.
            const unsigned pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int j = 0; j < 4; ++j)
                reinterpret_cast<unsigned*>(weight_tile + swizzled(k, chunk / 4 * 4 + j, 16))[chunk % 4] = pairs[j];
        }
        cp_async_wait<0>();
        __syncthreads();
#pragma unroll 1
        for (int k = 0; k < ks / 16; ++k) {
            unsigned a[M][4];
#pragma unroll
            for (int i = 0; i < M; ++i)
                ldmatrix_x4(a[i], low_tile + swizzled(16 * (M * down + i) + lane % 16, 2 * k + lane / 16, 8));
#pragma unroll
            for (int j = 0; j < 4 * QUADS; j += 2) {
                unsigned b[4];
                ldmatrix_x4_trans(b, weight_tile + swizzled(16 * k + lane % 16, 4 * QUADS * across + j + lane / 16, 16));
#pragma unroll
                for (int i = 0; i < M; ++i) {
                    mma_16816(acc[i][j], a[i], b[0], b[1]);
                    mma_16816(acc[i][j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }

#pragma unroll
    for (int i = 0; i < M; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = 16 * M * down + 16 * i + 8 * half + lane / 4;
#pragma unroll
            for (int quad = 0; quad < QUADS; ++quad) {
                const int column = part.first + 32 * (QUADS * across + quad) + 8 * (lane % 4);
                if (row >= rows || column >= part.width) continue;
                bf16* const to = y + row * stride + part.start + column;
                float v[8] = {};
                if (add) load8(to, v);
#pragma unroll
                for (int j = 0; j < 8; ++j) v[j] += scale * acc[i][4 * quad + j / 2][2 * half + j % 2];
                store8(to, v);
            }
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(LORA_THREADS, 2)
    lora_expand(const bf16* low, const bf16* weights, bf16* y, int rows, int stride, int low_stride, int depth, int rank,
                float scale, int add, int start0, int width0, int start1, int width1, int start2, int width2) {
    constexpr int ROWS = 128;
    DYNAMIC_SHARED(memory);
    bf16* const low_tile = reinterpret_cast<bf16*>(memory);
    const PartTile part = part_tile(blockIdx.x, LORA_COLUMNS, start0, width0, start1, width1, start2, width2);
    const int row0 = blockIdx.y * ROWS;
    const bf16* const low_rows = low + static_cast<size_t>(row0) * low_stride + part.part * depth;
    const auto fill = [=](int k0, bf16* to) {
        const int chunk = threadIdx.x % 8;
#pragma unroll
        for (int i = 0; i < ROWS / 32; ++i) {
            const int row = threadIdx.x / 8 + 32 * i;
            const bool there = row0 + row < rows && k0 + 8 * chunk < depth;
            const bf16* const from = low_rows + static_cast<size_t>(row) * low_stride + k0 + 8 * chunk;
            cp_async16(to + swizzled(row, chunk, 8), there ? from : low, there);
        }
        cp_async_commit();
    };
    expand_tile<4, 2>(low_tile, low_tile + ROWS * DEPTH, fill, weights + static_cast<size_t>(rank) * part.before, part,
                      depth, rank, scale, y + static_cast<size_t>(row0) * stride, stride, rows - row0, add);
}

extern "C" __global__ void __launch_bounds__(LORA_THREADS)
    lora_expand_split(const float* partial, const bf16* weights, bf16* y, int rows, int stride, int low_stride, int depth,
                      int rank, int splits, float scale, int add, int start0, int width0, int start1, int width1, int start2,
                      int width2) {
    constexpr int ROWS = 32;
    DYNAMIC_SHARED(memory);
    bf16* const low_tile = reinterpret_cast<bf16*>(memory);
    const PartTile part = part_tile(blockIdx.x, LORA_COLUMNS, start0, width0, start1, width1, start2, width2);
    const int row0 = blockIdx.y * ROWS;
    const auto fill = [=](int k0, bf16* to) {
        const int chunk = threadIdx.x % 8, row = threadIdx.x / 8, column = k0 + 8 * chunk;
        float sum[8] = {};
        if (row0 + row < rows && column < depth) {
            const float* at = partial + static_cast<size_t>(row0 + row) * low_stride + part.part * depth + column;
#pragma unroll 4
            for (int split = 0; split < splits; ++split, at += static_cast<size_t>(rows) * low_stride) {
                float v[8];
                load8(at, v);
#pragma unroll
                for (int i = 0; i < 8; ++i) sum[i] += v[i];
            }
        }
        store8(to + swizzled(row, chunk, 8), sum);
    };
    expand_tile<2, 1>(low_tile, low_tile + ROWS * DEPTH, fill, weights + static_cast<size_t>(rank) * part.before, part,
                      depth, rank, scale, y + static_cast<size_t>(row0) * stride, stride, rows - row0, add);
}
