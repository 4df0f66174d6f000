// Random words as a function of a counter and a key: Philox4x32-10 (Salmon et al., SC 2011). CPU version: `Stream::block` of
// rng.rs, whose `minor` is the lower half of the counter and whose `major` is the upper half.
#pragma once

#include "common.cuh"

__device__ __forceinline__ uint4 philox(uint4 c, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(c.x, 0xd2511f53u), low0 = c.x * 0xd2511f53u;
        const unsigned high1 = __umulhi(c.z, 0xcd9e8d57u), low1 = c.z * 0xcd9e8d57u;
        c = make_uint4(high1 ^ c.y ^ key0, low1, high0 ^ c.w ^ key1, low0);
        key0 += 0x9e3779b9u, key1 += 0xbb67ae85u;
    }
    return c;
}
