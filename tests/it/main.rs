//! One integration test binary, with a module for each promise, so that candle is linked only once.

mod answers;
mod attacks;
mod behaviors;
mod benchmarks;
mod candle;
mod cli;
mod code_eval;
mod config;
#[cfg(target_os = "linux")]
mod costs;
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
mod idioms;
mod images;
mod inputs;
mod invariants;
mod lab;
#[cfg(unix)]
mod names;
mod objectives;
mod ops;
mod parity;
mod parquet_file;
#[cfg(target_os = "linux")]
mod products;
mod progress;
#[allow(dead_code, reason = "the example that pretrains the embedded model shares it")]
#[path = "../reference/mod.rs"]
mod reference;
mod report;
mod require;
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
mod stub_server;
#[cfg(unix)]
mod sweep;
mod templates;
mod tokenizer;
mod train;
