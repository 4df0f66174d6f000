//! One integration binary, a module for each promise, so that candle is linked once.
mod data;
mod templates;
mod tokenizer;

mod gradients;
mod objectives;
