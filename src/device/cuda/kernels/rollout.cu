// What happens to a row between two steps of decoding: its token is written down, it may have ended, and the next step
// finds it one place further on. Twin: the bookkeeping of rollout/engine.rs.
//
// Shapes, all i32 but where said: tokens (rows) u32 and logprobs (rows) f32, just drawn; slots (rows), the place of a
// row's completion; counts (rows), tokens written so far; done (rows); positions, cells, draws (rows), for the next step:
// the position of its input, the cell of the cache where that goes, and the place in the completion of what it draws;
// out_tokens (slots, capacity) u32, out_logprobs (slots, capacity) f32; stops (stop_count) u32.
// Launch: a thread for each row, in blocks of 128.
// Bytes: some 50 a row. It takes a launch and nothing else.
//
// A row that is done draws on without effect until the host looks and gives its place away: nothing of it changes.
//
// History: 1. one thread a row, all flags on the device, so that steps follow each other without the host.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128)
    rollout_advance(const unsigned* tokens, const float* logprobs, const int* slots, int* counts, int* done, int* positions,
                    int* cells, int* draws, unsigned* out_tokens, float* out_logprobs, const unsigned* stops, int stop_count,
                    int capacity, int rows) {
    const int row = blockIdx.x * 128 + threadIdx.x;
    if (row >= rows || done[row]) return;
    const unsigned token = tokens[row];
    const int count = counts[row];
    const size_t at = static_cast<size_t>(slots[row]) * capacity + count;
    out_tokens[at] = token;
    out_logprobs[at] = logprobs[row];
    bool ended = count + 1 == capacity;
    for (int i = 0; i < stop_count; ++i) ended |= stops[i] == token;
    counts[row] = count + 1;
    done[row] = ended;
    positions[row] += 1;
    cells[row] += 1;
    draws[row] += 1;
}
