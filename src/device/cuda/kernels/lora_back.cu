// LoRA, the gradients that come from dy, with dy read once: d_low = scale·dy·Bᵀ and dB += scale·lowᵀ·dy. Layouts: lora.cuh.
//
//   lora_back_r{16,32}   dy (rows, outputs), low, B -> partial sums of both, for ranks up to 16 and up to 32
//
// A block takes 512 columns of a part, and `span` rows in steps of 32. It keeps its strip of B in shared memory and its
// strip of dB in registers; the step's sums of d_low, over these 512 columns, go to `d_low_partial`
// (⌈widest part / 512⌉, rows, parts·padded) as lora_d_low with a span of 512 leaves them: lora_low adds them up, and
// lora_grad_sum the sums of dB in `b_partial` (splits, rank · widths).
//
// Launch: blocks (strips of 512 columns of all parts, splits = ⌈rows / span⌉), span a multiple of 32; 256 threads;
// 74752 + 1152·R bytes of shared memory. Two blocks are on a multiprocessor of an H200, so take as many splits as make up
// to 4 blocks for each multiprocessor, of 512 rows at least: the sums of dB are written and read for every split.
//
// Bytes: 2·rows·width for dy, 8·rows·padded for each strip, 8·splits·rank·width for dB. For gate and up of Qwen2.5-7B at
// rank 32 and 16,384 rows: 1.24 GB + 0.31 GB + 0.07 GB, where two kernels that read dy each move 2.50 GB and nothing
// less than 1.24 GB is possible. FLOPs: 4·rows·width·padded.
// Above rank 32 the sums of d_low weigh as much as dy (a strip would have 256 columns, for the registers' sake: 512
// bytes of sums to 512 of dy), so lora_d_low and lora_grad do it.
//
// History:
//  1. Strips of 512 columns for some rows. Weighed and left: all columns of some rows, without partial sums of d_low, for
//     each block then has sums of all of dB, 620 MB of them with 128 rows to a block; and d_low by warps of 64 columns
//     each, as dB is, for half of the reads of shared memory but 32 KB of sums to add up in every step instead of 8.

#include "lora.cuh"

namespace {

constexpr int STRIP = 512, STEP = 32, CHUNKS = STRIP / 8;

template <int R>
__device__ __forceinline__ void back(const bf16* dy, const bf16* low, const bf16* b, float* d_low_partial, float* b_partial,
                                     int rows, int outputs, int rank, int parts, int span, size_t size, float scale,
                                     const PartTile& part) {
    constexpr int LOW = R + 8;                // values in a row of the tile of low: eight of them lie in different banks
    constexpr int GROUPS = R / 16;            // groups of 16 columns of d_low
    constexpr int SHARES = 4 / GROUPS;        // of the strip's columns in a sum of d_low, a warp each
    constexpr int STAGE = STEP * (STRIP + LOW);
    DYNAMIC_SHARED(memory);
    float* const sums = reinterpret_cast<float*>(memory);                  // (SHARES, STEP, R)
    bf16* const b_strip = reinterpret_cast<bf16*>(sums + SHARES * STEP * R);  // (R, STRIP)
    bf16* const stages = b_strip + R * STRIP;                              // each (STEP, STRIP) of dy, then (STEP, LOW)
    const int lane = lane_index(), warp = warp_index();
    const int low_stride = parts * R, strip = part.first / STRIP;
    const int from = blockIdx.y * span, to = min(rows, from + span);
    const int chunk = threadIdx.x % CHUNKS, line = threadIdx.x / CHUNKS;
    const bool inside = part.first + 8 * chunk < part.width;

    const auto copy = [&](int step) {
        bf16* const to_dy = stages + step % 2 * STAGE;
        const int row0 = from + step * STEP;
#pragma unroll 4  // all eight at once spill registers on compute capability 12
        for (int i = 0; i < STEP / 4; ++i) {
            const int row = line + 4 * i;
            const bool there = inside && row0 + row < to;
            const bf16* const at = dy + static_cast<size_t>(row0 + row) * outputs + part.start + part.first + 8 * chunk;
            cp_async16(to_dy + swizzled(row, chunk, CHUNKS), there ? at : dy, there);
        }
        if (threadIdx.x < STEP * R / 8) {
            const int row = threadIdx.x / (R / 8), place = threadIdx.x % (R / 8);
            const bool there = row0 + row < to;
            const bf16* const at = low + static_cast<size_t>(row0 + row) * low_stride + part.part * R + 8 * place;
            cp_async16(to_dy + STEP * STRIP + row * LOW + 8 * place, there ? at : low, there);
        }
        cp_async_commit();
    };

    const bf16* const b_part = b + static_cast<size_t>(rank) * part.before + part.first + 8 * chunk;
#pragma unroll
    for (int i = 0; i < R / 4; ++i) {
        const int row = line + 4 * i;
        const bool there = inside && row < rank;
        cp_async16(b_strip + swizzled(row, chunk, CHUNKS), there ? b_part + static_cast<size_t>(row) * part.width : b, there);
    }
    copy(0);

    const int half = warp % 2, group = warp / 2 % GROUPS, share = warp / 2 / GROUPS;
    float db[GROUPS][8][4] = {};  // of the warp's 64 columns
    for (int step = 0; from + step * STEP < to; ++step) {
        cp_async_wait<0>();
        __syncthreads();  // this step is there for all, and all are done with the one before
        const int row0 = from + step * STEP;
        if (row0 + STEP < to) copy(step + 1);
        const bf16* const dy_tile = stages + step % 2 * STAGE;
        const bf16* const low_tile = dy_tile + STEP * STRIP;

#pragma unroll
        for (int k = 0; k < STEP; k += 16) {
            unsigned a[GROUPS][4];
#pragma unroll
            for (int i = 0; i < GROUPS; ++i)
                ldmatrix_x4_trans(a[i], low_tile + (k + lane / 16 * 8 + lane % 8) * LOW + 16 * i + lane / 8 % 2 * 8);
#pragma unroll
            for (int j = 0; j < 8; j += 2) {
                unsigned y[4];
                ldmatrix_x4_trans(y, dy_tile + swizzled(k + lane % 16, 8 * warp + j + lane / 16, CHUNKS));
#pragma unroll
                for (int i = 0; i < GROUPS; ++i) {
                    mma_16816(db[i][j], a[i], y[0], y[1]);
                    mma_16816(db[i][j + 1], a[i], y[2], y[3]);
                }
            }
        }

        // d_low: 16 rows and 16 columns of it, over a share of the strip.
        float acc[2][4] = {};
#pragma unroll 4
        for (int k = share * (CHUNKS / SHARES); k < (share + 1) * (CHUNKS / SHARES); k += 2) {
            unsigned a[4], w[4];
            ldmatrix_x4(a, dy_tile + swizzled(16 * half + lane % 16, k + lane / 16, CHUNKS));
            ldmatrix_x4(w, b_strip + swizzled(16 * group + lane / 16 * 8 + lane % 8, k + lane / 8 % 2, CHUNKS));
            mma_16816(acc[0], a, w[0], w[1]);
            mma_16816(acc[1], a, w[2], w[3]);
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            float* const sum = sums + (share * STEP + 16 * half + lane / 4) * R + 16 * group + 8 * j + 2 * (lane % 4);
            *reinterpret_cast<float2*>(sum) = make_float2(acc[j][0], acc[j][1]);
            *reinterpret_cast<float2*>(sum + 8 * R) = make_float2(acc[j][2], acc[j][3]);
        }
        __syncthreads();
        const int row = threadIdx.x / (R / 4), column = threadIdx.x % (R / 4) * 4;
        if (row < STEP && row0 + row < to) {
            float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
            for (int i = 0; i < SHARES; ++i) {
                const float4 v = *reinterpret_cast<const float4*>(sums + (i * STEP + row) * R + column);
                sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
            }
            const size_t at = (static_cast<size_t>(strip) * rows + row0 + row) * low_stride + part.part * R + column;
            *reinterpret_cast<float4*>(d_low_partial + at) =
                make_float4(scale * sum.x, scale * sum.y, scale * sum.z, scale * sum.w);
        }
    }

    float* const of_part = b_partial + blockIdx.y * size + static_cast<size_t>(rank) * part.before;
#pragma unroll
    for (int i = 0; i < GROUPS; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = 16 * i + 8 * half + lane / 4;
            if (row >= rank) continue;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int column = part.first + 64 * warp + 8 * j + 2 * (lane % 4);
                if (column >= part.width) continue;
                *reinterpret_cast<float2*>(of_part + static_cast<size_t>(row) * part.width + column) =
                    make_float2(db[i][j][2 * half], db[i][j][2 * half + 1]);
            }
        }
    }
}

}  // namespace

#define LORA_BACK(R)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(LORA_THREADS, 2)                                                        \
        lora_back_r##R(const bf16* dy, const bf16* low, const bf16* b, float* d_low_partial, float* b_partial, int rows, \
                       int outputs, int rank, int parts, int span, int size, float scale, int start0, int width0,        \
                       int start1, int width1, int start2, int width2) {                                                 \
        back<R>(dy, low, b, d_low_partial, b_partial, rows, outputs, rank, parts, span, size, scale,                     \
                part_tile(blockIdx.x, STRIP, start0, width0, start1, width1, start2, width2));                           \
    }

LORA_BACK(16)
LORA_BACK(32)
