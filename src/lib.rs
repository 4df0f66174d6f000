//! Reinforcement fine-tuning with prior prompts.
//!
//! The way the data goes: [`config`] ► [`data`] ► [`prompt`] ► [`rollout`] ► [`reward`] ► [`grpo`] ► [`train`] ► [`run`],
//! with [`model`] and [`ops`] under rollout and grpo. ARCHITECTURE.md tells who lives where and what is never allowed.

pub mod behavior;
pub mod cli;
pub mod code;
pub mod config;
pub mod data;
pub mod device;
pub mod disk;
pub mod eval;
pub mod grpo;
pub mod math;
pub mod model;
pub mod ops;
pub mod plan;
pub mod prompt;
pub mod report;
pub mod reward;
pub mod rng;
pub mod rollout;
pub mod run;
pub mod sandbox;
pub mod server;
pub mod stats;
pub mod sweep;
pub mod train;
