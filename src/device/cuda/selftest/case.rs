//! One case of the self-test.

use super::lab::Lab;
use crate::ops::attention::Heads;
use anyhow::Result;

/// Computes the same on the GPU and on the CPU, and reports how far apart they are.
type SelftestCheck = dyn Fn(&mut Lab) -> Result<()>;

/// Something that is computed on the GPU and on the CPU.
pub struct SelftestCase {
    pub name: String,
    pub check: Box<SelftestCheck>,
}

impl SelftestCase {
    pub fn new(name: impl Into<String>, check: impl Fn(&mut Lab) -> Result<()> + 'static) -> Self {
        Self { name: name.into(), check: Box::new(check) }
    }
}

/// The name of a case with these heads.
pub fn name(heads: Heads) -> String {
    format!("{} heads over {} of {}", heads.query, heads.kv, heads.dim)
}
