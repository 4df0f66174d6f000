//! Evaluation: benchmarks, how they are asked and graded, and what the scores say.

pub mod endpoint;
pub mod engine;
