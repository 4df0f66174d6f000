//! The runs and evaluations that were read.

use super::evaluation::ReportedEvaluation;
use super::run::ReportedRun;

/// All that a report is made from.
#[derive(Default)]
pub struct Material {
    /// The sweep's name; empty for runs that are put together by hand.
    pub name: String,
    /// It shows how the tool works, and its figures mean nothing.
    pub demonstration: bool,
    pub notes: Vec<String>,
    /// In the order in which the sweep or the user names them; so are the arms.
    pub runs: Vec<ReportedRun>,
    pub evaluations: Vec<ReportedEvaluation>,
    /// Sentences on what did not get in.
    pub left_out: Vec<String>,
}
