// Shared by the attention kernels: tiles of a pack, rows in shared memory, the two matrix products.
//
// A tile contains rows of D values of one KV head. Keys and values are stored as rows. Queries are (token, head) pairs: row r
// is head r % group of token r / group. The query heads of a KV head therefore share every key and value that is read, and a
// tile of 128 rows is full for any group.
//
// Keys are numbered per token: first the token's prompt, then its own sequence. Key i is row prompt_start + i of the pack if
// i < prompt_count, otherwise row own_start + i - prompt_count. A token at place p of its own sequence sees the keys
// 0 ... prompt_count + p. So the mask is a single comparison, a tile of keys may contain the end of the prompt and the beginning
// of the branch, and the result of a row depends only on the lengths of its own spans.
#pragma once

#include "mma.cuh"

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// The factor of the scores: 1 / √D.
template <int D>
constexpr float SCALE = D == 128 ? 0.08838834764831845f : D == 64 ? 0.125f : 0.17677669529663687f;

// Consecutive tokens of one sequence as queries, and the keys they see. `prompt_count` is 0 for tokens of a prompt.
struct QueryTile {
    int start, count, prompt_start, prompt_count, own_start;

    // One past the last key that any of the tokens sees.
    __device__ __forceinline__ int keys() const { return prompt_count + start + count - own_start; }
    // The last key that token `start + token` sees.
    __device__ __forceinline__ int last_key(int token) const { return prompt_count + start + token - own_start; }
    __device__ __forceinline__ int key_row(int key) const {
        return key + (key < prompt_count ? prompt_start : own_start - prompt_count);
    }
};

// Number of rows in a tile of queries. `group` is at most 128.
struct GroupRows {
    int group;
    unsigned inverse;

    __device__ __forceinline__ explicit GroupRows(int group) : group(group), inverse(65536u / group + 1) {}
    // row / group for rows up to 128.
    __device__ __forceinline__ int token(int row) const { return static_cast<int>(row * inverse >> 16); }
    __device__ __forceinline__ int head(int row) const { return row - token(row) * group; }
};

// The position in a tile, in values, of chunk `chunk` (8 values) of row `row`: `swizzled`, and the equivalent for rows of 64
// bytes, two of which share the banks.
template <int D>
__device__ __forceinline__ int place(int row, int chunk) {
    static_assert(D == 32 || D % 64 == 0, "head widths are 32, 64 and 128");
    return D == 32 ? (row * 4 + (chunk ^ (row / 2 % 4))) * 8 : swizzled(row, chunk, D / 8);
}

// Row `row` of a buffer with rows of `bytes` bytes: one multiplication of 32 by 32 bits.
__device__ __forceinline__ const bf16* row_of(const bf16* buffer, unsigned row, unsigned bytes) {
    return reinterpret_cast<const bf16*>(reinterpret_cast<const char*>(buffer) + static_cast<size_t>(row) * bytes);
}

// Calls `copy(row, column, place)` for each chunk of a tile that this thread copies.
template <int D, int ROWS, int THREADS, class Copy>
__device__ __forceinline__ void each_chunk(Copy copy) {
    constexpr int STEP = THREADS / (D / 8);
    static_assert(ROWS % STEP == 0 && STEP % 8 == 0, "all rows of a thread are at one place among eight");
    const int row = threadIdx.x / (D / 8), chunk = threadIdx.x % (D / 8), at = place<D>(row, chunk);
#pragma unroll
    for (int i = 0; i < ROWS / STEP; ++i) copy(row + i * STEP, 8 * chunk, at + i * STEP * D);
}

// Starts to copy, into two tiles of KEYS rows, the keys that a tile of queries sees, starting at number `start`, and their values.
// `key_head` is the KV head's first column of keys; its values are `to_values` columns further on. The tile of queries is
// passed by reference to memory and read again each time, so that it does not occupy registers.
template <int D, int KEYS, int THREADS>
__device__ __forceinline__ void copy_seen_keys(const bf16* key_head, int to_values, unsigned row_bytes, const QueryTile& by,
                                               int start, int key_count, bf16* keys, bf16* values) {
    const QueryTile tile = by;
    each_chunk<D, KEYS, THREADS>([&](int row, int column, int at) {
        const int key = start + row;
        const bf16* const from = row_of(key_head + column, tile.key_row(key), row_bytes);
        cp_async16(keys + at, from, key < key_count);
        cp_async16(values + at, from + to_values, key < key_count);
    });
    cp_async_commit();
}

// The position of a lane's row of the 16 x 16 values starting at column 16·k, for ldmatrix: it provides row `row` and the eight
// values on `side`. Rows whose distance is a multiple of eight are at a constant distance in memory.
template <int D>
struct LaneRow {
    int row, turn;

    __device__ __forceinline__ LaneRow(int at, int side) : row(at * D), turn((side ^ (D == 32 ? at / 2 % 4 : at % 8)) * 8) {}
    __device__ __forceinline__ int operator()(int k) const { return row + (turn ^ (16 * k)); }
};

// c (16·MT, 8·NT) += a · bᵀ for rows `first` ... of the tile a and 8·NT rows of the tile b.
template <int D, int MT, int NT>
__device__ __forceinline__ void multiply_rows(float (&c)[MT][NT][4], const bf16* a, int first, const bf16* b) {
    const unsigned lane = lane_index();
    const LaneRow<D> of_a(first + lane % 16, lane / 16), of_b(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    constexpr int AT_ONCE = D == 128 ? 2 : D / 16;  // all eight would need more registers than there are
#pragma unroll AT_ONCE
    for (int k = 0; k < D / 16; ++k) {
        const bf16 *const a_k = a + of_a(k), *const b_k = b + of_b(k);
        unsigned rows[MT][4];
#pragma unroll
        for (int m = 0; m < MT; ++m) ldmatrix_x4(rows[m], a_k + 16 * m * D);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            unsigned columns[4];
            ldmatrix_x4(columns, b_k + 8 * n * D);
#pragma unroll
            for (int m = 0; m < MT; ++m) {
                mma_16816(c[m][n], rows[m], columns[0], columns[1]);
                mma_16816(c[m][n + 1], rows[m], columns[2], columns[3]);
            }
        }
    }
}

// c (16·MT, D) += weights (16·MT, 16·KT) · b (16·KT rows), with the weights in registers.
template <int D, int MT, int KT>
__device__ __forceinline__ void multiply_weights(float (&c)[MT][D / 8][4], const unsigned (&weights)[MT][KT][4], const bf16* b) {
    const unsigned lane = lane_index();
    const LaneRow<D> of_b(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < KT; ++k) {
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned columns[4];
            ldmatrix_x4_trans(columns, b + of_b(n / 2) + 16 * k * D);
#pragma unroll
            for (int m = 0; m < MT; ++m) {
                mma_16816(c[m][n], weights[m][k], columns[0], columns[1]);
                mma_16816(c[m][n + 1], weights[m][k], columns[2], columns[3]);
            }
        }
    }
}

// Masks, in one row of a warp's scores, the keys after `last`, counted from the lane's first column.
template <int MT, int NT>
__device__ __forceinline__ void hide_after(float (&scores)[MT][NT][4], int m, int h, int last) {
#pragma unroll
    for (int n = 0; n < NT; ++n) {
        if (8 * n > last) scores[m][n][2 * h] = -INFINITY;
        if (8 * n + 1 > last) scores[m][n][2 * h + 1] = -INFINITY;
    }
}

// Multiplies the rows 8h + lane / 4 of every 16 of a warp's product by `factor(m, h)`, rounds them, and writes them into the
// rows `first` ... of a tile that no other warp uses.
template <int D, int MT, class Factor>
__device__ __forceinline__ void round_rows(bf16* tile, int first, const float (&c)[MT][D / 8][4], Factor factor) {
    const int lane = lane_index();
    __syncwarp();
#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float f = factor(m, h);
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
                bf16* to = tile + place<D>(first + 16 * m + 8 * h + lane / 4, n) + 2 * (lane % 4);
                *reinterpret_cast<unsigned*>(to) = pack(c[m][n][2 * h] * f, c[m][n][2 * h + 1] * f);
            }
        }
    }
    __syncwarp();
}

// Writes a warp's rows `first` ... first + ROWS of a tile to `target(row)`, unless it is null.
template <int D, int ROWS, class Target>
__device__ __forceinline__ void write_rows(const bf16* tile, int first, Target target) {
#pragma unroll
    for (int i = 0; i < ROWS * (D / 8) / 32; ++i) {
        const int row = first + (i * 32 + lane_index()) / (D / 8), chunk = lane_index() % (D / 8);
        bf16* to = target(row);
        if (to) *reinterpret_cast<uint4*>(to + 8 * chunk) = *reinterpret_cast<const uint4*>(tile + place<D>(row, chunk));
    }
}
