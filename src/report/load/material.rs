//! What was read.

use super::evaluation::Evaluation;
use super::run::Run;

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
