//! What a report is made from: runs and evaluations, read from disk and boiled down to what the report needs of them.
//!
//! Nothing that is unfinished, missing or contradictory gets in, and nothing is left out in silence: [`Material::left_out`] says
//! what was, and why.

mod evaluation;
mod loose;
mod run;
mod sweep;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

pub use evaluation::{Bench, Evaluation, Sample};
pub use run::{HeldOut, Run, dotted, ends};

/// All that a report is made from.
#[derive(Default)]
pub struct Material {
    /// The sweep's name; empty for runs that are put together by hand.
    pub name: String,
    /// It shows how the tool works, and its figures mean nothing.
    pub demonstration: bool,
    pub notes: Vec<String>,
    /// In the order in which the sweep or the user names them; so are the arms.
    pub runs: Vec<Run>,
    pub evaluations: Vec<Evaluation>,
    /// Sentences on what did not get in.
    pub left_out: Vec<String>,
}

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

/// What a folder holds.
enum Kind {
    Run,
    Evaluation,
}

fn kind(path: &Path) -> Result<Kind> {
    if path.join("manifest.json").is_file() {
        return Ok(Kind::Run);
    }
    if path.join("eval.json").is_file() {
        return Ok(Kind::Evaluation);
    }
    let hint = if path.join(sweep::FILE).is_file() {
        "a sweep is reported by itself: name no other folder beside it"
    } else {
        "give run directories, such as `runs/NAME`, evaluations, or the folder of one sweep"
    };
    bail!("`{}` is neither a run nor an evaluation\nhint: {hint}", path.display())
}

/// A name from outside, for a sentence: in backquotes, on one line, whatever it holds.
pub fn quoted(name: &str) -> String {
    let plain = |c: char| match c {
        '`' => '\'',
        c if c.is_control() => ' ',
        c => c,
    };
    format!("`{}`", name.chars().map(plain).collect::<String>().trim())
}
