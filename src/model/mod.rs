//! The decoder, its reference twin, adapters, and the files they live in.

pub mod checkpoint;
pub mod config;
pub mod safetensors;
pub mod weights;
