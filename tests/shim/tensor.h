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

inline float widen(unsigned pair, int half) { return __uint_as_float(half ? pair & 0xffff0000 : pair << 16); }

}  // namespace shim

// The copy happens when somebody waits for it; until then the target holds NaN.
inline void cp_async16(void* to, const void* from, bool valid = true, int line = __builtin_LINE()) {
    shim::check_shared("cp_async16", line, to);
    if (valid && reinterpret_cast<uintptr_t>(from) % 16)
        shim::fail("cp_async16 in line %d: the source is not a multiple of 16", line);
    memset(to, 0xff, 16);
    auto& group = shim::device.thread->copies.back();
    group.push_back({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), valid ? 16u : 0u, 16});
}

inline void cp_async_commit() { shim::device.thread->copies.emplace_back(); }

// Groups before the newest `PENDING` committed ones are there.
template <int PENDING>
inline void cp_async_wait() {
    auto& groups = shim::device.thread->copies;
    while (groups.size() > PENDING + 1) {
        for (const shim::Copy& copy : groups.front()) {
            memset(copy.to, 0, copy.size);
            memcpy(copy.to, copy.from, copy.bytes);
        }
        groups.pop_front();
    }
}

namespace shim {

template <int COUNT, bool TRANSPOSED>
void load_matrices(const char* what, int line, unsigned (&fragment)[COUNT], const void* row) {
    struct Slot {
        const unsigned short* row;
        unsigned* fragment;
    };
    const int lane = shim::lane();
    if (lane < 8 * COUNT) check_shared(what, line, row);
    Slot slot{static_cast<const unsigned short*>(row), fragment};
    collective(what, line, 0xffffffff, slot, [](Slot** lanes) {
        for (int lane = 0; lane < 32; ++lane) {
            for (int m = 0; m < COUNT; ++m) {
                unsigned pair = 0;
                for (int half = 0; half < 2; ++half) {
                    const int along = 2 * (lane % 4) + half, across = lane / 4;
                    const unsigned value =
                        TRANSPOSED ? lanes[8 * m + along]->row[across] : lanes[8 * m + across]->row[along];
                    pair |= value << (16 * half);
                }
                lanes[lane]->fragment[m] = pair;
            }
        }
    });
}

}  // namespace shim

inline void ldmatrix_x4(unsigned (&fragment)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices<4, false>("ldmatrix_x4", line, fragment, row);
}
inline void ldmatrix_x4_trans(unsigned (&fragment)[4], const void* row, int line = __builtin_LINE()) {
    shim::load_matrices<4, true>("ldmatrix_x4_trans", line, fragment, row);
}

inline void mma_16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    struct Slot {
        float* c;
        const unsigned* a;
        unsigned b[2];
    };
    Slot slot{c, a, {b0, b1}};
    shim::collective("mma_16816", line, 0xffffffff, slot, [](Slot** lanes) {
        float a[16][16], b[16][8];
        for (int lane = 0; lane < 32; ++lane) {
            const int group = lane / 4, column = 2 * (lane % 4);
            for (int half = 0; half < 2; ++half) {
                for (int r = 0; r < 4; ++r)
                    a[group + 8 * (r % 2)][column + 8 * (r / 2) + half] = shim::widen(lanes[lane]->a[r], half);
                for (int r = 0; r < 2; ++r) b[column + 8 * r + half][group] = shim::widen(lanes[lane]->b[r], half);
            }
        }
        for (int lane = 0; lane < 32; ++lane) {
            for (int i = 0; i < 4; ++i) {
                const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
                double sum = lanes[lane]->c[i];
                for (int k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
                lanes[lane]->c[i] = static_cast<float>(sum);
            }
        }
    });
}

inline float exp2_approximate(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
