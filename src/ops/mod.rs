//! The operations of the fast path: one file for each, a plain `forward` and a plain `backward`.
//!
//! No autograd: a forward returns what its backward needs, and a decoder block is a list of these calls. Everything is
//! row-major f32. A row is a token; a row's result never depends on the other rows of the call, and a sum is split by
//! fixed chunks, so that results are the same bits for any batch and any number of threads.
//!
//! This module and `sandbox` are the only ones that may hold `unsafe` code and SIMD.

pub mod attention;
pub mod attention_tiles;
pub mod head;
pub mod linear;
pub mod lora;
pub mod matmul;
pub mod qk_norm;
pub mod rms_norm;
pub mod rope;
pub mod simd;
pub mod swiglu;

/// What is left of a value that is kept for a product: where `ROUNDED` the nearest that bf16 has. The self-test computes with
/// it what the roundings of a GPU do to a result.
#[inline(always)]
fn stored<const ROUNDED: bool>(value: f32) -> f32 {
    if ROUNDED { half::bf16::from_f32(value).to_f32() } else { value }
}

/// Rows of one parallel task of a row-wise operation.
const ROWS_PER_TASK: usize = 32;
