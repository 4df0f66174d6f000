//! The CPU: f32, the operations of [`crate::ops`].

pub mod decoder;
pub mod engine;
pub mod learner;
