//! One integration test binary, with a module for each promise, so that candle is linked only once.

mod adapter_faults;
mod answers;
mod attacks;
mod behaviors;
mod benchmarks;
mod candle;
mod changed_inputs;
mod checkpoints;
mod cli;
mod code_eval;
mod config;
mod configuration;
mod control_rewards;
#[cfg(target_os = "linux")]
mod costs;
mod custom_reward;
mod data;
mod decontaminate;
#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod device_memory;
mod difficulty;
#[cfg(target_os = "linux")]
mod disk_faults;
mod distill;
mod embedded;
mod endpoint;
mod entry_points;
mod eval;
mod files;
mod gguf_out;
mod gradients;
mod hub;
mod idioms;
mod images;
mod init_adapter;
mod inputs;
mod invariants;
mod lab;
#[cfg(unix)]
mod llama_cpp;
mod lost_folder;
mod mixtures;
mod model_faults;
mod model_server;
mod mutations;
#[cfg(unix)]
mod names;
mod objectives;
mod ops;
mod parity;
mod parquet_file;
#[cfg(target_os = "linux")]
mod products;
mod progress;
mod push;
#[allow(dead_code, reason = "the example that pretrains the embedded model shares it")]
#[path = "../reference/mod.rs"]
mod reference;
mod rehearse;
mod report;
mod require;
mod resume;
mod reward;
mod reward_gate;
mod rollout;
mod runs;
#[cfg(target_os = "linux")]
mod sandbox;
mod schedule;
#[cfg(target_os = "linux")]
mod selftest;
#[cfg(unix)]
mod servers;
mod stats;
#[cfg(target_os = "linux")]
mod stop_phases;
mod stub_server;
#[cfg(unix)]
mod sweep;
mod templates;
mod tiny_model;
mod tokenizer;
mod tokenizer_faults;
mod train;
mod untrusted;
mod verdicts;
mod verify_resume;
mod watch;
mod wordings;
