//! One integration binary, a module for each promise, so that candle is linked once.

mod data;
mod gradients;
mod invariants;
mod ops;
mod rollout;
mod objectives;
mod templates;
mod tokenizer;
mod embedded;
