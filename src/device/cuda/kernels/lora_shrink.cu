// LoRA, from wide to narrow: low = x·Aᵀ in the forward, d_low = scale·dy·Bᵀ in the backward. Layouts: lora.cuh.
//
//   lora_shrink_n{32,64,128}   x (rows, inputs) · A (parts·rank, inputs)ᵀ -> low (rows, parts·padded), all parts at once
//   lora_d_low_n{64,128}       dy (rows, outputs)[:, part] · B (rank, width)ᵀ -> d_low[:, part], for each part
//   lora_low                   the sum of the partial products where the depth was split
//
// Launch: tiles of 128 rows and N columns of low, 256 threads, 384·(128 + N) bytes of shared memory.
//   shrink: blocks (⌈parts·padded / N⌉, ⌈rows / 128⌉, splits), the smallest N that is not below parts·padded, else 128
//   d_low:  blocks (parts, ⌈rows / 128⌉, splits), N not below padded
//   low:    blocks ⌈rows·parts·padded / 2048⌉
// With few rows there are fewer tiles than multiprocessors; then the depth is cut into `splits` = ⌈depth / span⌉ spans of
// a multiple of 64 columns, and the products of each go to `partial` (splits, rows, parts·padded) in f32, to be added in
// order by lora_low or lora_expand_split. Without a split (`partial` null, `span` at least the depth) the tile goes to
// low at once. A row's result depends on `span`, never on the rows beside it: as long as decoding takes its span from
// `inputs` alone (a 32nd of it: for Qwen2.5-7B some 30 blocks of 1 to 10 tiles for each 128 rows, and 128 KB of partial
// sums for a block of the expand to read), a row's bits are the same in every batch.
//
// Bytes: the big operand once, 2·rows·inputs, plus A, 2·parts·rank·inputs, which stays in the L2 cache: a tile of 128
// rows reads 128 + N rows of the depth and 128 of them come from memory. FLOPs: 2·rows·inputs·parts·padded.
// For q, k, v of Qwen2.5-7B at rank 32 and 16,384 rows: 117 MB (28 us at 4.2 TB/s) and 11 GFLOP (14 us at 790 TFLOP/s).
// Above 128 columns (rank 64 on q, k, v) x is read from memory once and from the L2 cache again: its tiles are neighbours
// in the order of launch.
//
// History:
//  1. All parts in one tile, or x would be read three times for q, k, v; groups of 16 columns of low dealt to the warps
//     in turn, so that 96 of 128 columns cost three quarters. Three stages: 32 KB of x under way on a multiprocessor
//     with one block, 64 KB with two, where 4.3 TB/s on 132 of them at 0.8 us of latency need 26 KB.

#include "lora.cuh"

namespace {

constexpr int ROWS = 128, DEPTH = 64, STAGES = 3;

// acc = x · weightsᵀ for a tile of 128 rows and N columns, over columns from..to of both. `weight_row(n)` is the row of
// weights for column n of the tile, null for zeros. `store(row, n, v, w)` gets the sums of the columns n and n + 1.
template <int N, class WeightRow, class Store>
__device__ __forceinline__ void shrink_tile(const bf16* x, size_t stride, int rows, int from, int to, int columns,
                                            WeightRow weight_row, Store store) {
    DYNAMIC_SHARED(memory);
    bf16* const stages = reinterpret_cast<bf16*>(memory);  // each (128, 64) of x, then (N, 64) of weights
    constexpr int STAGE = (ROWS + N) * DEPTH;
    const int lane = lane_index(), down = warp_index() % 4, across = warp_index() / 4;

    // A thread copies one chunk of every 32nd row.
    const int chunk = threadIdx.x % 8, line = threadIdx.x / 8;
    const bf16* weights[N / 32];
#pragma unroll
    for (int i = 0; i < N / 32; ++i) weights[i] = weight_row(line + 32 * i);
    const auto copy = [&](int tile) {
        bf16* const to_x = stages + tile % STAGES * STAGE;
        bf16* const to_weights = to_x + ROWS * DEPTH;
        const int column = from + tile * DEPTH + 8 * chunk;
        const bool inside = column < to;
#pragma unroll
        for (int i = 0; i < ROWS / 32; ++i) {
            const int row = line + 32 * i;
            const bool there = inside && row < rows;
            cp_async16(to_x + swizzled(row, chunk, 8), there ? x + row * stride + column : x, there);
        }
#pragma unroll
        for (int i = 0; i < N / 32; ++i) {
            const bool there = inside && weights[i];
            cp_async16(to_weights + swizzled(line + 32 * i, chunk, 8), there ? weights[i] + column : x, there);
        }
    };

    // A warp has 32 rows and every second group of 16 columns.
    float acc[2][N / 16][4] = {};
    const int tiles = (to - from + DEPTH - 1) / DEPTH;
#pragma unroll
    for (int tile = 0; tile < STAGES - 1; ++tile) {
        if (tile < tiles) copy(tile);
        cp_async_commit();
    }
    for (int tile = 0; tile < tiles; ++tile) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // this tile is there for all, and all are done with the one before, whose place is taken now
        if (tile + STAGES - 1 < tiles) copy(tile + STAGES - 1);
        cp_async_commit();
        const bf16* const x_tile = stages + tile % STAGES * STAGE;
        const bf16* const weight_tile = x_tile + ROWS * DEPTH;
#pragma unroll
        for (int k = 0; k < DEPTH / 16; ++k) {
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i)
                ldmatrix_x4(a[i], x_tile + swizzled(32 * down + 16 * i + lane % 16, 2 * k + lane / 16, 8));
#pragma unroll
            for (int j = 0; j < N / 32; ++j) {
                const int n = 32 * j + 16 * across;
                if (n >= columns) continue;
                unsigned b[4];
                ldmatrix_x4(b, weight_tile + swizzled(n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2, 8));
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma_16816(acc[i][2 * j], a[i], b[0], b[1]);
                    mma_16816(acc[i][2 * j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }

#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int row = 32 * down + 16 * i + lane / 4;
#pragma unroll
        for (int j = 0; j < N / 16; ++j) {
            const int n = 32 * (j / 2) + 16 * across + 8 * (j % 2) + 2 * (lane % 4);
            if (n >= columns) continue;
            if (row < rows) store(row, n, acc[i][j][0], acc[i][j][1]);
            if (row + 8 < rows) store(row + 8, n, acc[i][j][2], acc[i][j][3]);
        }
    }
}

// Where a tile's sums go: to low, rounded, or to this split's part of `partial`.
struct Store {
    bf16* low;
    float* partial;
    size_t stride;
    float scale;

    __device__ __forceinline__ void operator()(int row, int n, float v, float w) const {
        const size_t at = row * stride + n;
        if (partial)
            *reinterpret_cast<float2*>(partial + at) = make_float2(scale * v, scale * w);
        else
            *reinterpret_cast<unsigned*>(low + at) = pack(scale * v, scale * w);
    }
};

// The store of the tile that starts at (row0, column0) of low (rows, columns).
__device__ __forceinline__ Store store_at(bf16* low, float* partial, int rows, int columns, int row0, int column0,
                                          float scale) {
    const size_t at = static_cast<size_t>(row0) * columns + column0;
    const size_t split = static_cast<size_t>(blockIdx.z) * rows * columns;
    return {low + at, partial ? partial + split + at : nullptr, static_cast<size_t>(columns), scale};
}

template <int N>
__device__ __forceinline__ void shrink(const bf16* x, const bf16* a, bf16* low, float* partial, int rows, int inputs, int rank,
                                       int parts, int span) {
    const int padded = padded_rank(rank), all = parts * padded;
    const int column0 = blockIdx.x * N, row0 = blockIdx.y * ROWS, from = blockIdx.z * span;
    const auto weight_row = [=](int n) -> const bf16* {
        const int part = (column0 + n) / padded, at = (column0 + n) % padded;
        return part < parts && at < rank ? a + static_cast<size_t>(part * rank + at) * inputs : nullptr;
    };
    shrink_tile<N>(x + static_cast<size_t>(row0) * inputs, inputs, rows - row0, from, min(inputs, from + span),
                   min(N, all - column0), weight_row, store_at(low, partial, rows, all, row0, column0, 1.0f));
}

template <int N>
__device__ __forceinline__ void d_low(const bf16* dy, const bf16* b, bf16* low, float* partial, int rows, int outputs, int rank,
                                      float scale, int span, const PartTile& part) {
    const int padded = padded_rank(rank), parts = gridDim.x;
    const int row0 = blockIdx.y * ROWS, from = blockIdx.z * span;
    if (from >= part.width) return;
    const bf16* const b_part = b + static_cast<size_t>(rank) * part.before;
    const auto weight_row = [=](int n) -> const bf16* {
        return n < rank ? b_part + static_cast<size_t>(n) * part.width : nullptr;
    };
    shrink_tile<N>(dy + static_cast<size_t>(row0) * outputs + part.start, outputs, rows - row0, from,
                   min(part.width, from + span), padded, weight_row,
                   store_at(low, partial, rows, parts * padded, row0, part.part * padded, scale));
}

// The widest of tiles is the whole part.
constexpr int WHOLE = 1 << 24;

}  // namespace

#define LORA_SHRINK(N)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(LORA_THREADS, 2)                                                        \
        lora_shrink_n##N(const bf16* x, const bf16* a, bf16* low, float* partial, int rows, int inputs, int rank,        \
                         int parts, int span) {                                                                          \
        shrink<N>(x, a, low, partial, rows, inputs, rank, parts, span);                                                  \
    }

LORA_SHRINK(32)
LORA_SHRINK(64)
LORA_SHRINK(128)

#define LORA_D_LOW(N)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(LORA_THREADS, 2)                                                        \
        lora_d_low_n##N(const bf16* dy, const bf16* b, bf16* low, float* partial, int rows, int outputs, int rank,       \
                        float scale, int span, int start0, int width0, int start1, int width1, int start2, int width2) { \
        d_low<N>(dy, b, low, partial, rows, outputs, rank, scale, span,                                                  \
                 part_tile(blockIdx.x, WHOLE, start0, width0, start1, width1, start2, width2));                          \
    }

LORA_D_LOW(64)
LORA_D_LOW(128)

// low (rows, parts·padded) = the sum over splits of `partial`. A part has ⌈depth / span⌉ of them: in the forward the
// depths are all `inputs`, in the backward the widths of the parts.
extern "C" __global__ void __launch_bounds__(LORA_THREADS)
    lora_low(const float* partial, bf16* low, int rows, int padded, int parts, int span, int depth0, int depth1,
             int depth2) {
    const size_t count = static_cast<size_t>(rows) * parts * padded;
    const size_t at = 8 * (static_cast<size_t>(blockIdx.x) * LORA_THREADS + threadIdx.x);
    if (at >= count) return;
    const int part = static_cast<int>(at % (parts * padded)) / padded;
    const int depth = part == 0 ? depth0 : part == 1 ? depth1 : depth2;
    float sum[8] = {};
#pragma unroll 4
    for (int split = 0; split * span < depth; ++split) {
        float v[8];
        load8(partial + split * count + at, v);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] += v[i];
    }
    store8(low + at, sum);
}
