//! The input of a report: runs and evaluations, read from disk and reduced to what the report needs.
//!
//! Input that is unfinished, incomplete or contradictory is left out, never silently: [`Material::left_out`] names it and gives
//! the reason.

mod arms;
mod evaluation;
mod loose;
mod material;
mod quoted;
mod run;
mod strategies;
mod sweep;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use evaluation::{ReportedBenchmark, ReportedEvaluation, ReportedSample};
pub use material::Material;
pub use quoted::quoted;
pub use run::{HeldOut, ReportedRun, dotted, ends};
pub use strategies::{Strategy, strategies};

/// Reads one sweep, or any runs and evaluations. Evaluations of the runs are also searched in `evals`.
///
/// # Errors
/// A path that is none of these; files that cannot be read.
pub fn load(inputs: &[PathBuf], evals: &Path) -> Result<Material> {
    match inputs {
        [sweep] if sweep.join(sweep::FILE).is_file() => sweep::load(sweep),
        inputs => loose::load(inputs, evals),
    }
}
