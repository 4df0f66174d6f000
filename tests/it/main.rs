//! One integration binary, a module for each promise, so that candle is linked once.

mod answers;
mod attacks;
mod behaviors;
mod candle;
mod cli;
mod code_eval;
mod config;
mod custom_reward;
mod data;
mod decontaminate;
#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod device_memory;
mod embedded;
mod endpoint;
mod eval;
mod files;
mod gradients;
mod hub;
mod images;
mod invariants;
mod lab;
mod objectives;
mod ops;
mod parity;
#[cfg(target_os = "linux")]
mod products;
#[allow(dead_code, reason = "the example that pretrains the embedded model shares it")]
#[path = "../reference/mod.rs"]
mod reference;
mod report;
mod resume;
mod reward;
mod rollout;
mod runs;
#[cfg(target_os = "linux")]
mod sandbox;
mod schedule;
#[cfg(target_os = "linux")]
mod selftest;
mod stats;
#[cfg(unix)]
mod sweep;
mod templates;
mod tokenizer;
mod train;
