//! A task of HumanEval+.

use std::sync::OnceLock;

use crate::sandbox::Value;

/// One task: a function to write.
#[derive(Debug)]
pub struct Task {
    /// Such as `HumanEval/0`.
    pub id: String,
    /// Imports, signature and description.
    pub prompt: String,
    pub entry_point: String,
    /// Completes the prompt.
    pub canonical_solution: String,
    /// Lists of arguments.
    pub base: Vec<Vec<Value>>,
    pub plus: Vec<Vec<Value>>,
    /// Absolute tolerance; 0: outputs are to be equal, floats close.
    pub tolerance: f64,
    pub(super) reference: OnceLock<Reference>,
}

/// Outputs of the reference solution, in the order of the inputs.
#[derive(Debug)]
pub(super) struct Reference {
    pub base: Vec<Expected>,
    pub plus: Vec<Expected>,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub value: Value,
    pub seconds: f64,
}
