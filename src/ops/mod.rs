//! The operations of the fast path: one file each, with a plain `forward` and a plain `backward`.
//!
//! There is no autograd: a forward returns what its backward needs, and a decoder block is a sequence of these calls.
//! All data is row-major f32. A row is a token. A row's result never depends on the other rows of the call, and sums
//! are split into fixed chunks, so results have the same bits for any batch and any number of threads.
//!
//! Besides `device/cuda` and `sandbox`, only this module may contain `unsafe` code. Only this module may contain SIMD.

pub mod attention;
pub mod attention_tiles;
pub mod distill;
pub mod head;
pub mod linear;
pub mod lora;
pub mod matmul;
pub mod qk_norm;
pub mod rms_norm;
pub mod rope;
pub mod simd;
pub mod swiglu;

/// A value as it is stored for a later product: if `ROUNDED`, rounded to the nearest bf16. The self-test uses this to
/// measure the effect of a GPU's rounding on a result.
#[inline(always)]
fn stored<const ROUNDED: bool>(value: f32) -> f32 {
    if ROUNDED { half::bf16::from_f32(value).to_f32() } else { value }
}

/// Rows of one parallel task of a row-wise operation.
const ROWS_PER_TASK: usize = 32;
