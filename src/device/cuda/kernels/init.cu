// Random weights, made where they are needed. Twin: `Stream::normal` of rng.rs.
//
//   fill_normal_bf16, fill_normal_f32   to[i] = mean + std · the i-th standard normal of the stream with this key
//
// In bf16 the values are rows of `width` that are `stride` values apart: behind them an adapter has its columns.
//
// The key is that of Stream::new(seed, Purpose::ModelInit, [hash of the tensor's name]), so a value depends on the seed,
// the tensor's name and its place, and not on the launch. As in the twin a value takes one block of the generator, with the
// counter (1, 0, i, i >> 32), and Box and Muller in f64: after rounding to bf16 or f32 a difference in the last bit of a
// transcendental function of f64 is left over about once in 10⁸ values.
//
// Launch: a thread for each value, ⌈count / 256⌉ blocks of 256.
// Bytes: 2 (4) a value. FLOPs: some 150 in f64 a value, which is what takes the time: about 0.1 s for 7.6 · 10⁹ values
// where f64 runs at half the speed of f32.
//
// History: 1. one normal a block, the twin's formula, since the same bits are worth more than the time of a start.

#include "philox.cuh"

namespace {

__device__ __forceinline__ double normal(unsigned key0, unsigned key1, unsigned long long i) {
    const uint4 words = philox(make_uint4(1, 0, static_cast<unsigned>(i), static_cast<unsigned>(i >> 32)), key0, key1);
    const double scale = 1.0 / 9007199254740992.0;  // 2⁻⁵³
    const unsigned long long a = (static_cast<unsigned long long>(words.y) << 32 | words.x) >> 11;
    const unsigned long long b = (static_cast<unsigned long long>(words.w) << 32 | words.z) >> 11;
    const double u = (static_cast<double>(a) + 1.0) * scale, v = static_cast<double>(b) * scale;
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.141592653589793 * v);
}

// mean + std · normal, without the contraction that would round once less than the twin.
__device__ __forceinline__ float weight(unsigned key0, unsigned key1, unsigned long long i, float mean, float std) {
    return __fadd_rn(mean, __fmul_rn(std, static_cast<float>(normal(key0, key1, i))));
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    fill_normal_bf16(bf16* to, unsigned long long count, int width, int stride, unsigned key0, unsigned key1, float mean,
                     float std) {
    const unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * 256 + threadIdx.x;
    if (i < count) to[i / width * stride + i % width] = __float2bfloat16_rn(weight(key0, key1, i, mean, std));
}

extern "C" __global__ void __launch_bounds__(256)
    fill_normal_f32(float* to, unsigned long long count, unsigned key0, unsigned key1, float mean, float std) {
    const unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * 256 + threadIdx.x;
    if (i < count) to[i] = weight(key0, key1, i, mean, std);
}
