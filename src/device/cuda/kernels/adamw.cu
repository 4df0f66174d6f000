// AdamW on the flat storage of all adapter tensors. The global gradient norm is computed, checked and applied on the
// device. The host launches three kernels and does not have to wait for them; the training loop, which logs the norm, reads
// the sums of the first kernel. CPU version: grpo/adamw.rs.
//
//   m = β₁m + (1 - β₁)g;  v = β₂v + (1 - β₂)g²;  p = p·(1 - lr·decay) - lr/(1 - β₁ᵗ) · m / (√v/√(1 - β₂ᵗ) + ε)
//
// where g is the gradient times min(1, max_norm / (norm + 10⁻⁶)). If the norm is not finite, only `step` changes.
//
// Shapes: params, grads, m, v (count) f32; `count` is a multiple of 8. partial (⌈count / CHUNK⌉) f64. norm (1) f64;
// step (3) u32: updates made, updates skipped, whether the last update was made; constants (4) f32: see below.
// Bytes per parameter: 4 for the norm, 28 for the update. FLOPs per parameter: 2 and 15. Memory-bound.
//
// History: 1. Three launches; squares are summed in f64 by fixed chunks, then in a fixed order.

#include "common.cuh"

constexpr int CHUNK = 16384;

// The values that adamw_prepare computes for adamw_update.
enum Constant { GRAD_SCALE, KEEP, RATE, ROOT_CORRECTION };
enum Step { MADE, SKIPPED, LAST_MADE };

// partial[b] = Σ g² of chunk b. Launch: ⌈count / CHUNK⌉ blocks of 512 threads.
extern "C" __global__ void __launch_bounds__(512) adamw_squares(const float* grads, double* partial, size_t count) {
    const size_t first = static_cast<size_t>(blockIdx.x) * CHUNK;
    double sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNK / (8 * 512); ++i) {
        const size_t at = first + (i * 512 + threadIdx.x) * 8;
        if (at >= count) break;
        float g[8];
        load8(grads + at, g);
#pragma unroll
        for (int k = 0; k < 8; ++k) sum += static_cast<double>(g[k]) * g[k];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Computes the norm, whether to update, and the constants of this step. A `max_norm` of 0 turns clipping off. Launch: one
// block of 1024 threads.
extern "C" __global__ void __launch_bounds__(1024) adamw_prepare(
    const double* partial, int chunks, double* norm, unsigned* step, float* constants, double lr, double beta1,
    double beta2, double weight_decay, double max_norm) {
    double sum = 0;
    for (int i = threadIdx.x; i < chunks; i += 1024) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    *norm = sqrt(sum);
    const bool finite = isfinite(*norm);
    step[LAST_MADE] = finite;
    if (!finite) {
        step[SKIPPED] += 1;
        return;
    }
    step[MADE] += 1;
    constants[GRAD_SCALE] = max_norm == 0 ? 1.0f : static_cast<float>(fmin(max_norm / (*norm + 1e-6), 1.0));
    constants[KEEP] = static_cast<float>(1 - lr * weight_decay);
    constants[RATE] = static_cast<float>(lr / (1 - pow(beta1, static_cast<double>(step[MADE]))));
    constants[ROOT_CORRECTION] = static_cast<float>(1 / sqrt(1 - pow(beta2, static_cast<double>(step[MADE]))));
}

// Launch: one thread per 8 parameters, in blocks of 256.
extern "C" __global__ void __launch_bounds__(256) adamw_update(
    float* params, const float* grads, float* m, float* v, const unsigned* step, const float* constants,
    double beta1, double beta2, float eps, size_t count) {
    const size_t at = (static_cast<size_t>(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (at >= count || !step[LAST_MADE]) return;
    const float grad_scale = constants[GRAD_SCALE], keep = constants[KEEP], rate = constants[RATE];
    const float root_correction = constants[ROOT_CORRECTION];
    const float b1 = static_cast<float>(beta1), b1_rest = static_cast<float>(1 - beta1);
    const float b2 = static_cast<float>(beta2), b2_rest = static_cast<float>(1 - beta2);
    float p[8], g[8], first[8], second[8];
    load8(params + at, p);
    load8(grads + at, g);
    load8(m + at, first);
    load8(v + at, second);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float grad = g[i] * grad_scale;
        first[i] = b1 * first[i] + b1_rest * grad;
        second[i] = b2 * second[i] + b2_rest * grad * grad;
        p[i] = p[i] * keep - rate * (first[i] / (sqrtf(second[i]) * root_correction + eps));
    }
    store8(params + at, p);
    store8(m + at, first);
    store8(v + at, second);
}
