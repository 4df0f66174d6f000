// Shared by all kernels: storage in bf16, arithmetic in f32, 16-byte accesses, sums in a fixed order.
#pragma once

#ifdef __CUDACC_RTC__
// NVRTC, which compiles assets/kernels, has neither <cstdint> nor this macro.
using uint64_t = unsigned long long;
#define INFINITY __INFINITY__
#else
#include <cstdint>
#endif

#ifdef __CUDACC__
#include <cuda_bf16.h>
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#else
// Without a CUDA compiler: the emulated device of tests/device.
#include "device.h"
#define DYNAMIC_SHARED(name) unsigned char* const name = shim::device.dynamic_shared.start
#endif

using bf16 = __nv_bfloat16;

constexpr unsigned ALL_LANES = 0xffffffffu;

// ---- Eight values at a time ----

// Two values in a word; the lower half is the first.
__device__ __forceinline__ float2 unpack(unsigned pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

__device__ __forceinline__ unsigned pack(float first, float second) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return *reinterpret_cast<const unsigned*>(&pair);
}

// `from` is a multiple of 16 bytes: one access, or two if the values are f32.
__device__ __forceinline__ void load8(const bf16* from, float (&to)[8]) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack(words[i]);
        to[2 * i] = pair.x;
        to[2 * i + 1] = pair.y;
    }
}

__device__ __forceinline__ void load8(const float* from, float (&to)[8]) {
    const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
    to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}

__device__ __forceinline__ void store8(bf16* to, const float (&from)[8]) {
    *reinterpret_cast<uint4*>(to) =
        make_uint4(pack(from[0], from[1]), pack(from[2], from[3]), pack(from[4], from[5]), pack(from[6], from[7]));
}

__device__ __forceinline__ void store8(float* to, const float (&from)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}

// The value of `x` after it has been stored.
__device__ __forceinline__ float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

// ---- RMSNorm ----

// 1 / √(square + ε). An infinite square would give zeros, which hide that the values are too large; it gives NaN.
__device__ __forceinline__ float inverse_rms(float square, float eps) {
    return square < INFINITY ? 1.0f / sqrtf(square + eps) : __uint_as_float(0x7fffffffu);
}

// ---- Sums and maxima ----

__device__ __forceinline__ int lane_index() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_index() { return threadIdx.x / 32; }

// Σ over the lanes, the same bits in each: addition is commutative, so the lanes of a pair compute the same.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int with = 16; with > 0; with /= 2) value += __shfl_xor_sync(ALL_LANES, value, with);
    return value;
}

// Σ over the threads of a one-dimensional block, the same bits in each. All threads must call it.
template <class T>
__device__ __forceinline__ T block_sum(T value) {
    __shared__ T partial[32];
    value = warp_sum(value);
    __syncthreads();  // before this, partial sums of an earlier call may still be read
    if (lane_index() == 0) partial[warp_index()] = value;
    __syncthreads();
    T total = 0;
    for (unsigned i = 0; i < blockDim.x / 32; ++i) total += partial[i];
    return total;
}

// The largest value of the threads of a block, ignoring NaN. All threads must call it.
__device__ __forceinline__ float block_max(float value) {
    __shared__ float partial[32];
#pragma unroll
    for (int with = 16; with > 0; with /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, with));
    __syncthreads();
    if (lane_index() == 0) partial[warp_index()] = value;
    __syncthreads();
    float greatest = partial[0];
    for (unsigned i = 1; i < blockDim.x / 32; ++i) greatest = fmaxf(greatest, partial[i]);
    return greatest;
}
