// The built-in types and functions of CUDA C++ that our kernels use, with the device's rounding.
#pragma once

#include <algorithm>
#include <cmath>

#include "device.h"

// ---- Vectors ----

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- Bits ----

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }

// ---- Arithmetic ----

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

template <class T>
T __ldg(const T* address) {
    return *address;
}
template <class T>
T __ldcs(const T* address) {
    return *address;
}
template <class T>
void __stcs(T* address, T value) {
    *address = value;
}

// ---- bfloat16 ----

struct __nv_bfloat16 {
    unsigned short bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

// Rounds to nearest, ties to even; every NaN becomes the same NaN.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    if (x != x) return {0x7fff};
    const unsigned bits = __float_as_uint(x);
    return {static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 x) { return {__bfloat162float(x.x), __bfloat162float(x.y)}; }

// ---- Warps ----

namespace shim {

// The value of lane `source`.
template <class T>
INLINED T shuffle(Function function, int line, unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "a shuffle of at most 8 bytes");
    const Place place(function, line);
    if (source > 31) no_such_lane(place, int(source));
    Thread& self = *device.thread;
    if (mask == FULL_MASK) {
        Exchange& exchange = self.warp->exchange[self.warp->phase];
        memcpy(&exchange.values[self.lane], &value, sizeof value);
        meet(self, place);
        T result;
        memcpy(&result, &exchange.values[source], sizeof result);
        return result;
    }
    struct Slot {
        T value, result;
        int source;
    } slot{value, value, int(source)};
    collective(place, mask, slot, [&](Slot** lanes) {
        for (int i = 0; i < 32; ++i) {
            if (!lanes[i]) continue;
            const Slot* from = lanes[lanes[i]->source];
            if (!from)
                fail(
                    "%s in line %d: lane %d reads lane %d, which the mask leaves out", place.name(), line, i,
                    lanes[i]->source);
            lanes[i]->result = from->value;
        }
    });
    return slot.result;
}

template <class T, class Join>
INLINED T reduce(Function function, int line, unsigned mask, T value, Join join) {
    const Place place(function, line);
    T slot = value;
    if (mask == FULL_MASK) {
        Thread& self = *device.thread;
        Exchange& exchange = self.warp->exchange[self.warp->phase];
        memcpy(&exchange.values[self.lane], &value, sizeof value);
        if (meet(self, place)) {
            memcpy(&slot, &exchange.values[0], sizeof slot);
            for (int i = 1; i < 32; ++i) {
                T other;
                memcpy(&other, &exchange.values[i], sizeof other);
                slot = join(slot, other);
            }
            memcpy(&exchange.values[0], &slot, sizeof slot);
        }
        memcpy(&slot, &exchange.values[0], sizeof slot);
        return slot;
    }
    collective(place, mask, slot, [&](T** lanes) {
        T* first = nullptr;
        for (int i = 0; i < 32; ++i)
            if (lanes[i]) first ? void(*first = join(*first, *lanes[i])) : void(first = lanes[i]);
        for (int i = 0; i < 32; ++i)
            if (lanes[i]) *lanes[i] = *first;
    });
    return slot;
}

}  // namespace shim

INLINED void __syncwarp(unsigned mask = 0xffffffff, int line = __builtin_LINE()) {
    shim::Thread& self = *shim::device.thread;
    int nothing = 0;
    if (mask == shim::FULL_MASK)
        shim::meet(self, {shim::SYNCWARP, line});
    else
        shim::collective({shim::SYNCWARP, line}, mask, nothing, [](int**) {});
}
template <class T>
INLINED T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const int first = int(shim::lane()) / width * width;
    return shim::shuffle(shim::SHFL, line, mask, value, unsigned(first + source % width));
}
template <class T>
INLINED T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = shim::lane(), source = lane ^ unsigned(with), wide = unsigned(width);
    return shim::shuffle(shim::SHFL_XOR, line, mask, value, source / wide <= lane / wide ? source : lane);
}
template <class T>
INLINED T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = shim::lane(), first = lane / unsigned(width) * unsigned(width);
    return shim::shuffle(shim::SHFL_UP, line, mask, value, lane >= first + delta ? lane - delta : lane);
}
template <class T>
INLINED T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = shim::lane(), source = lane + delta, end = (lane / unsigned(width) + 1) * unsigned(width);
    return shim::shuffle(shim::SHFL_DOWN, line, mask, value, source < end ? source : lane);
}
INLINED unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    const unsigned bit = predicate ? 1u << shim::lane() : 0;
    return shim::reduce(shim::BALLOT, line, mask, bit, [](unsigned a, unsigned b) { return a | b; });
}
INLINED int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return shim::reduce(shim::ANY, line, mask, predicate != 0, [](bool a, bool b) { return a || b; });
}
INLINED int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return shim::reduce(shim::ALL, line, mask, predicate != 0, [](bool a, bool b) { return a && b; });
}
INLINED unsigned __reduce_add_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return shim::reduce(shim::REDUCE_ADD, line, mask, value, [](unsigned a, unsigned b) { return a + b; });
}
INLINED unsigned __reduce_max_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return shim::reduce(shim::REDUCE_MAX, line, mask, value, [](unsigned a, unsigned b) { return std::max(a, b); });
}
INLINED unsigned __reduce_min_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return shim::reduce(shim::REDUCE_MIN, line, mask, value, [](unsigned a, unsigned b) { return std::min(a, b); });
}
