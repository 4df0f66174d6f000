// Random weights, generated on the device. CPU version: `Stream::normal` of rng.rs.
//
//   fill_normal_bf16   to[i] = mean + std · the i-th standard normal of the stream with this key
//
// In bf16, the values are rows of `width` that are `stride` values apart; the columns after each row belong to an adapter.
//
// The key is that of Stream::new(seed, Purpose::ModelInit, [hash of the tensor's name]), so a value depends on the seed,
// the tensor's name and its position, and not on the launch. As on the CPU, a value uses one block of the generator, with the
// counter (1, 0, i, i >> 32), the Box-Muller transform in f64, and one rounding to f32 and from there to bf16. A difference in the
// last bit of a transcendental function in f64 changes about one in 10⁸ values.
//
// Launch: one thread per value, ⌈count / 256⌉ blocks of 256.
// Bytes: 2 per value. FLOPs: about 150 in f64 per value, which determine the time: about 0.1 s for 7.6 · 10⁹ values
// if f64 runs at half the speed of f32.
//
// The stack that compilers report is an array in the branch of `cos` for arguments above 10⁵, which do not occur here.
//
// History:
// 1. One normal per block, the CPU's formula, because equal bits matter more than the startup time.
// 2. Mean and deviation in f64, as on the CPU.

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

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    fill_normal_bf16(bf16* to, unsigned long long count, int width, int stride, unsigned key0, unsigned key1, double mean,
                     double std) {
    const unsigned long long i = static_cast<unsigned long long>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= count) return;
    to[i / width * stride + i % width] = __float2bfloat16_rn(static_cast<float>(mean + std * normal(key0, key1, i)));
}
