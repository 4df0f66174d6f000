// Copies LoRA's weights next to the frozen weight that they adapt, so that matrix products read both at once.
//
//   storage[outputs + row + r, c] = A[r, c];   storage[o, inputs + row + r] = scale · B[r, o - start]
//
// The storage of a group of layers that read the same input is one bf16 matrix of (outputs + p, inputs + p) values, with p
// columns for all adapted layers of the group: W in its corner, A below it and scale · B to its right. So
//
//   [x | x·Aᵀ] · [W | scale·B]ᵀ = x·Wᵀ + scale·(x·Aᵀ)·Bᵀ   reads its first `outputs` rows, and
//   [dy | dy·scale·B] · [W; A] = dy·W + scale·(dy·B)·A      its first `inputs` columns.
//
// One launch writes the part of one layer: its `padded` rows of A and, over all outputs, its `padded` columns of B. They
// begin `row` rows below and `row` columns to the right of W. The layer has `width` outputs, starting at `start`; its columns
// are zero in the rows of the other layers, and past the rank. Rows past the rank are zero too, so products never read stale
// values.
//
// Shapes: a (rank, inputs) f32; b (rank, width) f32, transposed as in the adapter; storage as above, its rows inputs + p
// values apart. inputs, width, padded and p are multiples of 8; `padded` is at least the rank.
// Launch: one thread per 8 values: padded · (inputs + outputs) / 8 threads in blocks of 256.
// Bytes: 4 per value of A and B, 2 per value written. FLOPs: 1 per value of B.
//
// scale · B is computed in f32 and rounded once.
//
// History: 1. Neighboring threads read neighboring values of a row of A or B, so whole lines are read; the values of B are
//    written 16 bytes per row.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    lora_write(const float* a, const float* b, bf16* storage, int inputs, int outputs, int stride, int rank, int padded, int row,
               int start, int width, float scale) {
    const unsigned of_a = static_cast<unsigned>(padded) * (inputs / 8), of_b = static_cast<unsigned>(outputs) * (padded / 8);
    unsigned unit = blockIdx.x * blockDim.x + threadIdx.x;
    float values[8] = {};
    if (unit < of_a) {
        const int r = unit / (inputs / 8), column = unit % (inputs / 8) * 8;
        if (r < rank) load8(a + static_cast<size_t>(r) * inputs + column, values);
        store8(storage + static_cast<size_t>(outputs + row + r) * stride + column, values);
        return;
    }
    unit -= of_a;
    if (unit >= of_b) return;
    const int output = unit % outputs, first = unit / outputs * 8, column = output - start;
    if (column >= 0 && column < width) {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (first + i < rank) values[i] = scale * b[static_cast<size_t>(first + i) * width + column];
    }
    store8(storage + static_cast<size_t>(output) * stride + inputs + row + first, values);
}
