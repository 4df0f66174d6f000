//! What a report is made from: runs and evaluations, read from disk and boiled down to what the report needs of them.
//!
//! Nothing that is unfinished, missing or contradictory gets in, and nothing is left out in silence: [`Material::left_out`] says
//! what was, and why.

mod evaluation;
mod loose;
mod material;
mod quoted;
mod run;
mod sweep;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use evaluation::{Bench, Evaluation, Sample};
pub use material::Material;
pub use quoted::quoted;
pub use run::{HeldOut, Run, dotted, ends};

/// Reads one sweep, or any runs and evaluations. Evaluations that fit the runs are also looked for in `evals`.
///
/// # Errors
/// A path that is none of these; files that cannot be read.
pub fn load(inputs: &[PathBuf], evals: &Path) -> Result<Material> {
    match inputs {
        [sweep] if sweep.join(sweep::FILE).is_file() => sweep::load(sweep),
        inputs => loose::load(inputs, evals),
    }
}
