//! The CUDA kernels, compiled for an emulated device and run on the CPU, against the operations that they have to equal.
//!
//! docs/kernels.md tells how. Errors are the norm of the difference over the norm of what is expected: a value that is
//! stored in bf16 has one of about 0.0017 from its rounding alone.

mod adamw;
mod branch_attention;
mod decode_attention;
mod emulator;
mod head;
mod lora;
mod qk_norm;
mod qkv_rope;
mod rms_norm;
mod rollout;
mod rows;
mod sampler;
mod shim;
mod swiglu;
