// What the LoRA kernels share: the layout of a group, and the column tiles of its layers.
//
//   y[:, part] += scale · low_part · B_part,   low = x · Aᵀ                        (twin: ops/lora.rs)
//
// A group has up to three parts: the adapted layers that read the same x. In the adapter's flat storage its tensors lie
// one after the other: A (parts · rank, inputs), then each B transposed, (rank, width of the part). A part's columns in
// the joined output start anywhere at a multiple of 8, and so do those between parts that are not adapted.
//
// In `low` and `d_low` (rows, parts · padded) a part takes `padded` columns, its rank rounded up to 16, the depth of one
// tensor-core product. The columns past the rank hold zeros, so that nothing read with them needs care. Both are bf16:
// the products that read them take bf16, the backward has to see the value that the forward used, and rounding moves a
// gradient by 2⁻⁹ of one of its terms at most. f32 would be twice the bytes for bits that every reader drops.
//
// Bytes of a group's kernels, for a block of Qwen2.5-7B at rank 32 and 16,384 rows, in MB (computed; least: every wide
// matrix read or written once):
//
//   shrink 980 of 973; expand 1627, writing, of 1627; d_low and dB 2200 of 1627; dA 1090 of 973; dx 973, writing, of 973
//   together 6870 of 6170: 1.6 ms at 4.2 TB/s, beside 22 ms of products at 790 TFLOP/s
//
// Multiples of 8: inputs, the widths and starts of parts, the distance of rows of y. Ranks are 1 to 128.
#pragma once

#include "mma.cuh"

constexpr int LORA_THREADS = 256;
// Columns of an output tile of the kernels that write wide matrices.
constexpr int LORA_COLUMNS = 128;

__device__ __forceinline__ int padded_rank(int rank) { return (rank + 15) / 16 * 16; }

// A tile of the columns of one part.
struct PartTile {
    int part;
    int start;   // of the part, in the joined output
    int width;   // of the part
    int before;  // columns of all earlier parts: B starts at rank · before
    int first;   // of the tile, in the part
};

// The `tile`-th when every part is cut into tiles of `size` columns. A part that is not there has the width 0.
__device__ __forceinline__ PartTile part_tile(int tile, int size, int start0, int width0, int start1, int width1, int start2,
                                              int width2) {
    PartTile at{0, start0, width0, 0, 0};
    int tiles = (width0 + size - 1) / size;
    if (tile >= tiles) {
        tile -= tiles;
        at = {1, start1, width1, width0, 0};
        tiles = (width1 + size - 1) / size;
        if (tile >= tiles) {
            tile -= tiles;
            at = {2, start2, width2, width0 + width1, 0};
        }
    }
    at.first = tile * size;
    return at;
}
