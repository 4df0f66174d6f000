//! One integration binary, a module for each promise, so that candle is linked once.

mod config;
mod data;
mod embedded;
mod files;
mod gradients;
mod hub;
mod invariants;
mod objectives;
mod ops;
mod parity;
mod rollout;
mod templates;
mod tokenizer;
