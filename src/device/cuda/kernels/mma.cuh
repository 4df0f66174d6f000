// Tensor cores, asynchronous copies, and other operations without a CUDA C++ function. PTX is only in this file.
//
// The product is mma.m16n8k16: C (16, 8) += A (16, 16) · B (16, 8), bf16 in, f32 sums. With g = lane / 4 and
// t = lane % 4, a lane has the following values, two per register, with the lower column (for B: row) in the lower half:
//
//   a[0]: A[g    ][2t, 2t+1]     a[2]: A[g    ][2t+8, 2t+9]     b0: B[2t,   2t+1][g]     c[0], c[1]: C[g    ][2t, 2t+1]
//   a[1]: A[g + 8][2t, 2t+1]     a[3]: A[g + 8][2t+8, 2t+9]     b1: B[2t+8, 2t+9][g]     c[2], c[3]: C[g + 8][2t, 2t+1]
//
// ldmatrix fills such registers from shared memory, with 8 x 8 values for each: lanes 0..7 provide the addresses of the rows of
// the first matrix, 8..15 of the second, and so on; a row is 16 bytes and starts at a multiple of 16. Lane (g, t)
// receives row g, columns 2t and 2t+1; for a transposed load, column g, rows 2t and 2t+1. A in row-major order is therefore
// loaded without transposing, with the matrices (0, 0), (8, 0), (0, 8), (8, 8). B is loaded transposed if it is stored as (k, n),
// and without transposing if it is stored as (n, k).
//
// The registers of C can be those of A in the next product: pack(c[0], c[1]) and pack(c[2], c[3]) of the columns
// 0..7, then of 8..15, are a[0] ... a[3].
//
// Rows of 128 or 256 bytes use the same banks, so eight of them would be read one after the other. The 16-byte chunk `c` of
// row `r` is therefore stored at position c ^ (r % 8): `swizzled`.
#pragma once

#include "common.cuh"

// The position, in values, of chunk `chunk` (8 values) of row `row` in a tile with `chunks` chunks per row. `chunks` is a
// multiple of 8.
__device__ __forceinline__ int swizzled(int row, int chunk, int chunks) {
    return (row * chunks + (chunk ^ (row % 8))) * 8;
}

#ifdef __CUDACC__

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Starts to copy 16 bytes from global to shared memory; zeros if not `valid` (`from` is then not read).
__device__ __forceinline__ void cp_async16(void* to, const void* from, bool valid = true) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
}

// Closes a group of copies.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `PENDING` groups of this thread are in flight. The other threads see the data after a barrier.
template <int PENDING>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4(unsigned (&fragment)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&fragment)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c += a · b
__device__ __forceinline__ void mma_16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2ˣ, with an error of at most two units in the last place; 0 for -∞ and for subnormal results.
__device__ __forceinline__ float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else
#include "tensor.h"
#endif
