//! Evaluation of models.

pub mod code;
