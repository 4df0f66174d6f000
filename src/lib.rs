//! Reinforcement fine-tuning with prior prompts.
//!
//! The data flow: [`config`] ► [`data`] ► [`prompt`] ► [`rollout`] ► [`reward`] ► [`grpo`] ► [`train`] ► [`run`], where
//! rollout and grpo use [`model`] and [`ops`]. ARCHITECTURE.md describes the modules and the rules of the code base.

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
pub mod verify;
pub mod watch;
