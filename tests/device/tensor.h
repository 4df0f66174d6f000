// cp.async, ldmatrix, mma.sync and ex2 as mma.cuh names them. The layouts are those of the PTX manual, sections on
// "Matrix fragments for mma.m16n8k16" and "ldmatrix".
#pragma once

#include "device.h"

namespace shim {

inline void check_shared(const char* what, int line, const void* address) {
    if (reinterpret_cast<uintptr_t>(address) % 16)
        fail("%s in line %d: the address is not a multiple of 16", what, line);
    if (!is_shared(address, 16)) fail("%s in line %d: the address is outside of shared memory", what, line);
}

// Reads the 16 bytes at each of the addresses that the lanes have given.
EMULATED_API void read_lines(Exchange& exchange, unsigned count);
// c += a · b
EMULATED_API void multiply(Exchange& exchange);

}  // namespace shim

// The copy happens when somebody waits for it; until then the target holds NaN.
inline void cp_async16(void* to, const void* from, bool valid = true, int line = __builtin_LINE()) {
    shim::check_shared("cp_async16", line, to);
    if (valid && reinterpret_cast<uintptr_t>(from) % 16)
        shim::fail("cp_async16 in line %d: the source is not a multiple of 16", line);
    memset(to, 0xff, 16);
    shim::device.thread->copies.all.push_back(
        {static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), valid});
}

inline void cp_async_commit() {
    shim::Copies& copies = shim::device.thread->copies;
    copies.ends.push_back(copies.all.size());
}

// Groups before the newest `PENDING` committed ones are there.
template <int PENDING>
inline void cp_async_wait() {
    shim::device.thread->copies.finish(PENDING);
}

namespace shim {

// Row r of matrix m is at the address that lane 8·m + r gives.
template <int COUNT, bool TRANSPOSED>
inline void load_matrices(const char* what, int line, unsigned (&fragment)[COUNT], const void* row) {
    Thread* self = device.thread;
    Warp& warp = *self->warp;
    Exchange& exchange = warp.exchange[warp.phase];
    const unsigned lane = self->lane;
    if (lane < 8 * COUNT) check_shared(what, line, row);
    exchange.rows[lane] = static_cast<const unsigned char*>(row);
    if (meet(warp, lane, what, line)) read_lines(exchange, 8 * COUNT);
    for (int m = 0; m < COUNT; ++m) {
        if (TRANSPOSED) {
            const unsigned along = 2 * (lane % 4), across = lane / 4;
            const auto value = [&](unsigned row) {
                unsigned short it;
                memcpy(&it, reinterpret_cast<const unsigned char*>(exchange.lines[8 * m + row]) + 2 * across, 2);
                return static_cast<unsigned>(it);
            };
            fragment[m] = value(along) | value(along + 1) << 16;
        } else {
            fragment[m] = exchange.lines[8 * m + lane / 4][lane % 4];
        }
    }
}

}  // namespace shim

inline void ldmatrix_x4(unsigned (&fragment)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices<4, false>("ldmatrix_x4", line, fragment, row);
}
inline void ldmatrix_x4_trans(unsigned (&fragment)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices<4, true>("ldmatrix_x4_trans", line, fragment, row);
}

inline void mma_16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    shim::Thread* self = shim::device.thread;
    shim::Warp& warp = *self->warp;
    shim::Exchange& x = warp.exchange[warp.phase];
    const unsigned lane = self->lane, g = lane / 4, t = lane % 4;
    x.a[g][t] = a[0];
    x.a[g + 8][t] = a[1];
    x.a[g][t + 4] = a[2];
    x.a[g + 8][t + 4] = a[3];
    x.b[t][g] = b0;
    x.b[t + 4][g] = b1;
    memcpy(&x.c[g][2 * t], &c[0], 8);
    memcpy(&x.c[g + 8][2 * t], &c[2], 8);
    if (shim::meet(warp, lane, "mma_16816", line)) shim::multiply(x);
    memcpy(&c[0], &x.c[g][2 * t], 8);
    memcpy(&c[2], &x.c[g + 8][2 * t], 8);
}

inline float exp2_approximate(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
