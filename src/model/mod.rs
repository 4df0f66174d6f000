//! The decoder, its reference twin, adapters, and the files they live in.

pub mod config;
pub mod reference;
pub mod tokenizer;
