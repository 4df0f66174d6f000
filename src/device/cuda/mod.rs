//! The CUDA path: the same decoder, rollouts and gradient pass as on the CPU, in bf16 on one GPU.
//!
//! There is one device, one stream and one host thread that launches, so the work runs in the order of the calls.
//! Products with the frozen weights use cuBLASLt ([`blas`]); everything else is our own kernels
//! (`src/device/cuda/kernels`, launched by [`launch`]). Weights are copied from files through [`staging`]. No sum is in
//! an order that depends on timing: the same run on the same GPU gives the same bits.

pub mod adapter;
pub mod blas;
pub mod choices;
pub mod decoder;
pub mod element;
pub mod engine;
pub mod gpu;
pub mod images;
pub mod launch;
pub mod learner;
pub mod logits;
pub mod lora;
pub mod matrix;
pub mod memory;
pub mod modules;
pub mod ops;
pub mod pack;
pub mod perf;
pub mod probe;
pub mod record;
pub mod room;
pub mod selftest;
mod shared;
pub mod slabs;
pub mod staging;
pub mod steps;
pub mod weights;

pub use gpu::{Gpu, count};
pub use shared::Shared;
