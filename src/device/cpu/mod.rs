//! The CPU: f32, with the operations of [`crate::ops`].

pub mod decoder;
pub mod engine;
pub mod learner;
