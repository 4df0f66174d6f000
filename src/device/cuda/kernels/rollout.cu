// What happens to a row between two steps of decoding: its token is reported to the host, it may have ended, and the next
// step finds it one place further on. Twin: rollout/schedule.rs, which finds the same ends in the report.
//
// Shapes, all i32 but where said: tokens (rows) u32 and logprobs (rows) f32, just drawn; counts (rows), tokens drawn so far;
// done (rows); positions, cells (rows), for the next step: the position of its input, and the cell of the cache where that
// goes; report (rows, 1 + 2 * ring) u32: the count, a ring of the last tokens, each at its number modulo `ring`, and a ring of
// the bits of their log-probabilities; stops (stop_count) u32. A completion has `capacity` tokens at most.
// Launch: a thread for each row, in blocks of 128.
// Bytes: some 50 a row. It takes a launch and nothing else.
//
// A row that is done has no effect until the host reads the report and gives its place away: nothing of it changes.
//
// History: 1. one thread a row, all flags on the device, so that steps follow each other without the host. 2. a report of
// what is new, not the whole of all completions.

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
