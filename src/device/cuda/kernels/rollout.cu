// Updates each row between two decoding steps: reports its token to the host, checks whether it has ended, and advances its
// position for the next step. CPU version: rollout/schedule.rs, which detects the same ends in the report.
//
// Shapes, all i32 unless noted: tokens (rows) u32 and logprobs (rows) f32, just sampled; counts (rows), tokens sampled so far;
// done (rows); positions, cells (rows), for the next step: the position of its input, and its cell in the cache;
// report (rows, 1 + 2 * ring) u32: the count, a ring of the last tokens, each at its number modulo `ring`, and a ring of
// the bits of their log-probabilities; stops (stop_count) u32. A completion has at most `capacity` tokens.
// Launch: one thread per row, in blocks of 128.
// Bytes: about 50 per row. The time is that of a launch.
//
// A row that is done does not change until the host reads the report and reuses its place.
//
// History: 1. One thread per row, all flags on the device, so that steps follow each other without the host. 2. A report of
// the new tokens, not of whole completions.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128)
    rollout_advance(const unsigned* tokens, const float* logprobs, int* counts, int* done, int* positions, int* cells,
                    unsigned* report, int ring, const unsigned* stops, int stop_count, int capacity, int rows) {
    const int row = blockIdx.x * 128 + threadIdx.x;
    if (row >= rows || done[row]) return;
    const unsigned token = tokens[row];
    const int count = counts[row];
    unsigned* const mine = report + static_cast<size_t>(row) * (1 + 2 * ring);
    mine[0] = count + 1;
    mine[1 + count % ring] = token;
    mine[1 + ring + count % ring] = __float_as_uint(logprobs[row]);
    bool ended = count + 1 == capacity;
    for (int i = 0; i < stop_count; ++i) ended |= stops[i] == token;
    counts[row] = count + 1;
    done[row] = ended;
    positions[row] += 1;
    cells[row] += 1;
}
