//! A task of HumanEval+.

use std::sync::OnceLock;

use crate::sandbox::PythonValue;

/// One task: a function to write.
#[derive(Debug)]
pub struct CodeTask {
    /// Such as `HumanEval/0`.
    pub id: String,
    /// Imports, signature and description.
    pub prompt: String,
    pub entry_point: String,
    /// The solution, which continues the prompt.
    pub canonical_solution: String,
    /// Lists of arguments.
    pub base: Vec<Vec<PythonValue>>,
    pub plus: Vec<Vec<PythonValue>>,
    /// Absolute tolerance; 0: outputs must be equal, floats close.
    pub tolerance: f64,
    pub(super) reference: OnceLock<ReferenceOutputs>,
}

/// Outputs of the reference solution, in the order of the inputs.
#[derive(Debug)]
pub(super) struct ReferenceOutputs {
    pub base: Vec<Expected>,
    pub plus: Vec<Expected>,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub value: PythonValue,
    pub seconds: f64,
}
