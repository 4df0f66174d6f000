// cp.async, ldmatrix, mma.sync and ex2 under the names in mma.cuh. The layouts are those of the PTX manual, sections
// "Matrix fragments for mma.m16n8k16" and "ldmatrix".
#pragma once

#include "device.h"

namespace shim {

// Reports an address that is not in shared memory or not a multiple of 16.
[[noreturn]] EMULATED_API void not_shared(const char* what, int line, const void* address);
INLINED void check_shared(const char* what, int line, const void* address) {
    if (reinterpret_cast<uintptr_t>(address) % 16 || !is_shared(address, 16)) not_shared(what, line, address);
}

// Reads the 16 bytes at each of the addresses that the lanes provide.
EMULATED_API void read_lines(Exchange& exchange, unsigned count);
// c += a · b
EMULATED_API void multiply(Exchange& exchange);

}  // namespace shim

// The copy happens when the thread waits for it; until then the target contains NaN.
inline void cp_async16(void* to, const void* from, bool valid = true, int line = __builtin_LINE()) {
    shim::check_shared("cp_async16", line, to);
    if (valid && reinterpret_cast<uintptr_t>(from) % 16)
        shim::fail("cp_async16 in line %d: the source is not a multiple of 16", line);
    memset(to, 0xff, 16);
    shim::device.thread->copies.add({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), valid});
}

inline void cp_async_commit() { shim::device.thread->copies.commit(); }

// Returns when all groups before the newest `PENDING` committed ones have arrived.
template <int PENDING>
inline void cp_async_wait() {
    shim::device.thread->copies.finish(PENDING);
}

namespace shim {

// Row r of matrix m is at the address that lane 8·m + r provides.
template <int COUNT, bool TRANSPOSED>
INLINED void load_matrices(Place place, unsigned (&fragment)[COUNT], const void* row) {
    Thread& self = *device.thread;
    Exchange& exchange = self.warp->exchange[self.warp->phase];
    const unsigned lane = self.lane;
    if (lane < 8 * COUNT) check_shared(TRANSPOSED ? "ldmatrix_x4_trans" : "ldmatrix_x4", place.line(), row);
    exchange.rows[lane] = static_cast<const unsigned char*>(row);
    if (meet(self, place)) read_lines(exchange, 8 * COUNT);
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

INLINED void ldmatrix_x4(unsigned (&fragment)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices<4, false>({shim::LDMATRIX, line}, fragment, row);
}
INLINED void ldmatrix_x4_trans(unsigned (&fragment)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices<4, true>({shim::LDMATRIX_TRANS, line}, fragment, row);
}

INLINED void mma_16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    shim::Thread& self = *shim::device.thread;
    shim::Exchange& x = self.warp->exchange[self.warp->phase];
    const unsigned lane = self.lane;
    memcpy(x.a[lane], a, 16);
    x.b[lane % 4][lane / 4] = b0;
    x.b[lane % 4 + 4][lane / 4] = b1;
    // The values of a column are adjacent.
    shim::Four sums;
    memcpy(&sums, c, 16);
    x.c[lane] = __builtin_shuffle(sums, shim::FourIndices{0, 2, 1, 3});
    if (shim::meet(self, {shim::MMA, line})) shim::multiply(x);
    sums = __builtin_shuffle(x.c[lane], shim::FourIndices{0, 2, 1, 3});
    memcpy(c, &sums, 16);
}

inline float exp2_approximate(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
