// Kernels that are each wrong in one way, next to correct ones, to test the emulator.
// Blocks have 64 threads, with 64 input and output values and 256 bytes of dynamic shared memory, unless noted otherwise.

#include "mma.cuh"

extern "C" __global__ void sum_without_a_barrier(const float* x, float* y) {
    __shared__ float partial[2];
    const float sum = warp_sum(x[threadIdx.x]);
    if (lane_index() == 0) partial[warp_index()] = sum;
    y[threadIdx.x] = partial[0] + partial[1];
}

extern "C" __global__ void shared_memory_written_again_too_early(const float* x, float* y) {
    __shared__ float partial[2];
    float total = 0;
    for (int i = 1; i <= 2; ++i) {
        const float sum = warp_sum(i * x[threadIdx.x]);
        if (lane_index() == 0) partial[warp_index()] = sum;
        __syncthreads();
        total += partial[0] + partial[1];
    }
    y[threadIdx.x] = total;
}

extern "C" __global__ void sum_with_barriers(const float* x, float* y) { y[threadIdx.x] = block_sum(x[threadIdx.x]); }

extern "C" __global__ void barrier_for_some(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x == 7) return;
    __syncthreads();
}

extern "C" __global__ void barriers_in_two_branches(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

extern "C" __global__ void shuffle_for_some(const float* x, float* y) {
    y[threadIdx.x] = threadIdx.x == 3 ? 0 : __shfl_xor_sync(ALL_LANES, x[threadIdx.x], 1);
}

extern "C" __global__ void shuffle_from_outside(const float* x, float* y) {
    if (lane_index() < 16) y[threadIdx.x] = __shfl_sync(0xffffu, x[threadIdx.x], 20);
}

extern "C" __global__ void different_warp_functions(const float* x, float* y) {
    if (lane_index() < 16) {
        y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, x[threadIdx.x], 1);
    } else {
        y[threadIdx.x] = __any_sync(ALL_LANES, x[threadIdx.x] > 0);
    }
}

extern "C" __global__ void reads_what_nobody_wrote(const float* x, float* y) {
    __shared__ float fixed[64];
    DYNAMIC_SHARED(bytes);
    const float* dynamic = reinterpret_cast<const float*>(bytes);
    if (threadIdx.x > 64) fixed[threadIdx.x] = x[0];
    y[threadIdx.x] = threadIdx.x % 2 ? fixed[threadIdx.x] : dynamic[threadIdx.x];
}

extern "C" __global__ void writes_past_the_end(const float* x, float* y) { y[threadIdx.x + 1] = x[threadIdx.x]; }

extern "C" __global__ void reads_past_the_end(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }

extern "C" __global__ void writes_to_a_constant(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];
    const_cast<float*>(x)[threadIdx.x] = 0;
}

extern "C" __global__ void writes_past_shared_memory(const float* x, float* y) {
    DYNAMIC_SHARED(bytes);
    reinterpret_cast<float*>(bytes)[threadIdx.x + 64] = x[threadIdx.x];
    y[threadIdx.x] = 0;
}

extern "C" __global__ void misaligned(const float* x, float* y) {
    if (threadIdx.x == 0) *reinterpret_cast<float4*>(y + 1) = *reinterpret_cast<const float4*>(x);
}

extern "C" __global__ void copy_without_a_wait(const float* x, float* y) {
    DYNAMIC_SHARED(bytes);
    if (threadIdx.x < 16) cp_async16(bytes + 16 * threadIdx.x, x + 4 * threadIdx.x);
    cp_async_commit();
    y[threadIdx.x] = 0;
}

extern "C" __global__ void copy_read_too_early(const float* x, float* y) {
    DYNAMIC_SHARED(bytes);
    if (threadIdx.x < 16) cp_async16(bytes + 16 * threadIdx.x, x + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<1>();  // one group may still be in flight, and it is this one
    __syncthreads();
    y[threadIdx.x] = reinterpret_cast<const float*>(bytes)[threadIdx.x];
    __syncthreads();
    cp_async_wait<0>();
}

extern "C" __global__ void copy_without_a_barrier(const float* x, float* y) {
    DYNAMIC_SHARED(bytes);
    if (threadIdx.x < 16) cp_async16(bytes + 16 * threadIdx.x, x + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<0>();
    y[threadIdx.x] = reinterpret_cast<const float*>(bytes)[63 - threadIdx.x];
}

extern "C" __global__ void copy_as_it_should_be(const float* x, float* y) {
    DYNAMIC_SHARED(bytes);
    if (threadIdx.x < 16) cp_async16(bytes + 16 * threadIdx.x, x + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    y[threadIdx.x] = reinterpret_cast<const float*>(bytes)[63 - threadIdx.x];
}

// Launched with 4 blocks of one warp.
extern "C" __global__ void blocks_that_depend_on_each_other(float* y) {
    y[blockIdx.x] = blockIdx.x > 0 && y[blockIdx.x - 1] == 1 ? 0 : 1;
}

// c (16, 16) = a (16, 64) · b, which is stored as (64, 16) or, transposed, as (16, 64). One warp.
extern "C" __global__ void product(const bf16* a, const bf16* b, float* c, int transposed) {
    DYNAMIC_SHARED(bytes);
    bf16* const a_tile = reinterpret_cast<bf16*>(bytes);
    bf16* const b_tile = a_tile + 16 * 64;
    const int lane = lane_index();
    for (int i = lane; i < 128; i += 32) {
        cp_async16(a_tile + swizzled(i / 8, i % 8, 8), a + 8 * i);
        // Rows of two chunks are too short for swizzling.
        cp_async16(b_tile + (transposed ? swizzled(i / 8, i % 8, 8) : 8 * i), b + 8 * i);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    float sums[2][4] = {};
    for (int k = 0; k < 64; k += 16) {
        unsigned a_part[4], b_part[4];
        ldmatrix_x4(a_part, a_tile + swizzled(lane % 16, k / 8 + lane / 16, 8));
        if (transposed) {
            ldmatrix_x4(b_part, b_tile + swizzled(lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2, 8));
        } else {
            ldmatrix_x4_trans(b_part, b_tile + (k + lane % 16) * 16 + lane / 16 * 8);
        }
        mma_16816(sums[0], a_part, b_part[0], b_part[1]);
        mma_16816(sums[1], a_part, b_part[2], b_part[3]);
    }
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 16 + 8 * half + 2 * (lane % 4) + i % 2] = sums[half][i];
}

extern "C" __global__ void mask_without_the_caller(const float* x, float* y) {
    y[threadIdx.x] = __shfl_xor_sync(0xffffu, x[threadIdx.x], 1);
}

extern "C" __global__ void lane_that_does_not_exist(const float* x, float* y) {
    y[threadIdx.x] = __shfl_down_sync(ALL_LANES, x[threadIdx.x], 1, 64);
}

extern "C" __global__ void index_out_of_bounds(const float* x, float* y) {
    __shared__ float values[32];
    values[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void copy_to_global_memory(const float* x, float* y) {
    if (threadIdx.x < 16) cp_async16(y + 4 * threadIdx.x, x + 4 * threadIdx.x);
    cp_async_commit();
    cp_async_wait<0>();
}

extern "C" __global__ void rows_that_are_not_aligned(const float* x, float* y) {
    DYNAMIC_SHARED(bytes);
    unsigned fragment[4];
    ldmatrix_x4(fragment, bytes + 8 * (threadIdx.x % 16));
    y[threadIdx.x] = fragment[0];
}

extern "C" __global__ void __launch_bounds__(128) at_most_128_threads(const float* x, float* y) {
    y[threadIdx.x % 64] = x[threadIdx.x % 64];
}
