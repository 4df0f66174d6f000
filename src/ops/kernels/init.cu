// Random weights, made where they are needed. Twin: `Stream::normal` of rng.rs.
//
//   fill_normal_bf16, fill_normal_f32   to[i] = mean + std · the i-th standard normal of the stream with this key
//
// The key is that of Stream::new(seed, Purpose::ModelInit, [hash of the tensor's name]), so a value depends on the seed,
// the tensor's name and its place, and not on the launch. As in the twin a value takes one block of Philox4x32-10
// (Salmon et al., SC 2011) with the counter (1, 0, i, i >> 32), and Box and Muller in f64: after rounding to bf16 or f32
// a difference in the last bit of a transcendental function of f64 is left over about once in 10⁸ values.
//
// Launch: a thread for each value, ⌈count / 256⌉ blocks of 256.
// Bytes: 2 (4) a value. FLOPs: some 150 in f64 a value, which is what takes the time: about 0.1 s for 7.6 · 10⁹ values
// where f64 runs at half the speed of f32.
//
// History: 1. one normal a block, the twin's formula, since the same bits are worth more than the time of a start.

#include "common.cuh"

namespace {

__device__ __forceinline__ double normal(unsigned key0, unsigned key1, unsigned long long i) {
    unsigned c0 = 1, c1 = 0, c2 = static_cast<unsigned>(i), c3 = static_cast<unsigned>(i >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(c0, 0xd2511f53u), low0 = c0 * 0xd2511f53u;
        const unsigned high1 = __umulhi(c2, 0xcd9e8d57u), low1 = c2 * 0xcd9e8d57u;
        c0 = high1 ^ c1 ^ key0, c1 = low1, c2 = high0 ^ c3 ^ key1, c3 = low0;
        key0 += 0x9e3779b9u, key1 += 0xbb67ae85u;
    }
    const double scale = 1.0 / 9007199254740992.0;  // 2⁻⁵³
    const unsigned long long a = (static_cast<unsigned long long>(c1) << 32 | c0) >> 11;
    const unsigned long long b = (static_cast<unsigned long long>(c3) << 32 | c2) >> 11;
    const double u = (static_cast<double>(a) + 1.0) * scale, v = static_cast<double>(b) * scale;
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.141592653589793 * v);
}

// mean + std · normal, without the contraction that would round once less than the twin.
__device__ __forceinline__ float weight(unsigned key0, unsigned key1, unsigned long long i, float mean, float std) {
    return __fadd_rn(mean, __fmul_rn(std, static_cast<float>(normal(key0, key1, i))));
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    fill_normal_bf16(bf16* to, unsigned long long count, unsigned key0, unsigned key1, float mean, float std) {
    const unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * 256 + threadIdx.x;
    if (i < count) to[i] = __float2bfloat16_rn(weight(key0, key1, i, mean, std));
}

extern "C" __global__ void __launch_bounds__(256)
    fill_normal_f32(float* to, unsigned long long count, unsigned key0, unsigned key1, float mean, float std) {
    const unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * 256 + threadIdx.x;
    if (i < count) to[i] = weight(key0, key1, i, mean, std);
}
