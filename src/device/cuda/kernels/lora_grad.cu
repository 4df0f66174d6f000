// LoRA, the gradients of the weights: dB += scale · lowᵀ · dy and dA += d_lowᵀ · x. Layouts: lora.cuh.
//
//   lora_grad_m{64,128}   left (rows, parts·depth)ᵀ · right (rows, stride)[:, part] -> partial (splits, size), f32
//   lora_grad_sum         grads (size) f32 += scale · the sum of `partial` over the splits, in their order
//
// dB: left = low, depth = padded, right = dy, the parts as they are, scale. dA: left = d_low, right = x, one part with
// depth = parts·padded, start 0 and width `inputs`, scale 1 (d_low has it). `size` is that of the A matrices or of the
// B matrices of the group, rank · (their inputs, or the widths of the parts); `partial` and `grads` are laid out as they are.
//
// Launch: tiles of M by 128 values, 256 threads, 384·(128 + M) bytes of shared memory.
//   grad:     blocks (tiles of all parts, splits, ⌈depth / M⌉), splits = ⌈rows / span⌉, span a multiple of 64;
//             M = 64 where depth is at most 64, else 128
//   grad_sum: blocks ⌈size / 1024⌉
// The split is by rows, and the sums of the splits are added in order: no atomics, so the gradient is a function of the
// rows, of `span` and of the order of micro-batches. About 500 blocks fill the multiprocessors twice: take
// splits = ⌈512 / tiles⌉, and span accordingly.
//
// Bytes: the big operand once, 2·rows·width (above a depth of 128 again from the L2 cache), and the partial sums written
// and read, 8·splits·size. FLOPs: 2·rows·width·depth. For gate and up of Qwen2.5-7B at rank 32 and 16,384 rows: 1.24 GB
// of dy (0.30 ms at 4.2 TB/s), 296 tiles and 2 splits, so 19 MB of partial sums; 40 GFLOP.
//
// History:
//  1. Three stages of 64 rows; the narrow operand transposed by ldmatrix, no transposed copy in memory.
//     For ranks up to 32 dB comes from lora_back, which reads dy once for d_low too.

#include "lora.cuh"

namespace {

constexpr int DEPTH = 64, STAGES = 3;

template <int M>
__device__ __forceinline__ void grad(const bf16* left, const bf16* right, float* partial, int rows, int stride,
                                     int left_stride, int depth, int rank, int span, size_t size, const PartTile& part) {
    DYNAMIC_SHARED(memory);
    bf16* const stages = reinterpret_cast<bf16*>(memory);  // each (64, 128) of right, then (64, M) of left
    constexpr int STAGE = DEPTH * (LORA_COLUMNS + M);
    const int lane = lane_index(), down = warp_index() % 2, across = warp_index() / 2;
    const int m0 = blockIdx.z * M, ms = min(M, depth - m0);
    const int from = blockIdx.y * span, to = min(rows, from + span);

    const auto copy = [&](int tile) {
        bf16* const to_right = stages + tile % STAGES * STAGE;
        bf16* const to_left = to_right + DEPTH * LORA_COLUMNS;
        const int row0 = from + tile * DEPTH;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int k = threadIdx.x / 16 + 16 * i, chunk = threadIdx.x % 16, column = part.first + 8 * chunk;
            const bool there = row0 + k < to && column < part.width;
            const bf16* const at = right + static_cast<size_t>(row0 + k) * stride + part.start + column;
            cp_async16(to_right + swizzled(k, chunk, 16), there ? at : right, there);
        }
#pragma unroll
        for (int i = 0; i < M / 32; ++i) {
            const int unit = threadIdx.x + LORA_THREADS * i, k = unit / (M / 8), chunk = unit % (M / 8);
            const bool there = row0 + k < to && 8 * chunk < ms;
            const bf16* const at = left + static_cast<size_t>(row0 + k) * left_stride + part.part * depth + m0 + 8 * chunk;
            cp_async16(to_left + swizzled(k, chunk, M / 8), there ? at : left, there);
        }
    };

    // A warp has every second group of 16 rows of the tile, and 32 columns.
    float acc[M / 32][4][4] = {};
    const int tiles = (to - from + DEPTH - 1) / DEPTH;
#pragma unroll
    for (int tile = 0; tile < STAGES - 1; ++tile) {
        if (tile < tiles) copy(tile);
        cp_async_commit();
    }
    for (int tile = 0; tile < tiles; ++tile) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // as in lora_shrink
        if (tile + STAGES - 1 < tiles) copy(tile + STAGES - 1);
        cp_async_commit();
        const bf16* const right_tile = stages + tile % STAGES * STAGE;
        const bf16* const left_tile = right_tile + DEPTH * LORA_COLUMNS;
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            unsigned b[2][4];
#pragma unroll
            for (int j = 0; j < 2; ++j)
                ldmatrix_x4_trans(b[j], right_tile + swizzled(k + lane % 16, 4 * across + 2 * j + lane / 16, 16));
#pragma unroll
            for (int i = 0; i < M / 32; ++i) {
                const int m = 32 * i + 16 * down;
                if (m >= ms) continue;
                unsigned a[4];
                ldmatrix_x4_trans(a, left_tile + swizzled(k + lane / 16 * 8 + lane % 8, m / 8 + lane / 8 % 2, M / 8));
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    mma_16816(acc[i][2 * j], a, b[j][0], b[j][1]);
                    mma_16816(acc[i][2 * j + 1], a, b[j][2], b[j][3]);
                }
            }
        }
    }

    const int padded = padded_rank(rank);
    float* const sums = partial + blockIdx.y * size + static_cast<size_t>(rank) * part.before;
#pragma unroll
    for (int i = 0; i < M / 32; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int m = 32 * i + 16 * down + 8 * half + lane / 4;
            const int layer = (m0 + m) / padded, at = (m0 + m) % padded;
            if (m >= ms || at >= rank) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int column = part.first + 32 * across + 8 * j + 2 * (lane % 4);
                if (column >= part.width) continue;
                float* const sum = sums + static_cast<size_t>(layer * rank + at) * part.width + column;
                *reinterpret_cast<float2*>(sum) = make_float2(acc[i][j][2 * half], acc[i][j][2 * half + 1]);
            }
        }
    }
}

}  // namespace

#define LORA_GRAD(M)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(LORA_THREADS, 2)                                                        \
        lora_grad_m##M(const bf16* left, const bf16* right, float* partial, int rows, int stride, int left_stride,       \
                       int depth, int rank, int span, int size, int start0, int width0, int start1, int width1,          \
                       int start2, int width2) {                                                                         \
        grad<M>(left, right, partial, rows, stride, left_stride, depth, rank, span, size,                                \
                part_tile(blockIdx.x, LORA_COLUMNS, start0, width0, start1, width1, start2, width2));                    \
    }

LORA_GRAD(64)
LORA_GRAD(128)

extern "C" __global__ void __launch_bounds__(LORA_THREADS)
    lora_grad_sum(const float* partial, float* grads, int size, int splits, float scale) {
    const int at = 4 * static_cast<int>(blockIdx.x * LORA_THREADS + threadIdx.x);
    if (at >= size) return;
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int split = 0; split < splits; ++split) {
        const float4 v = *reinterpret_cast<const float4*>(partial + static_cast<size_t>(split) * size + at);
        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    float4* const to = reinterpret_cast<float4*>(grads + at);
    float4 v = *to;
    v.x += scale * sum.x, v.y += scale * sum.y, v.z += scale * sum.z, v.w += scale * sum.w;
    *to = v;
}
