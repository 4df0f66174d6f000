//! The data that a report is made from.

use super::evaluation::ReportedEvaluation;
use super::run::ReportedRun;
use crate::run::tuning::TuneRecord;

/// The runs and evaluations of a report.
#[derive(Default)]
pub struct Material {
    /// The sweep's name; empty for runs that the user passed one by one.
    pub name: String,
    /// Whether the sweep only demonstrates the tool, so that its figures are not evidence.
    pub demonstration: bool,
    pub notes: Vec<String>,
    /// In the order of the sweep or of the command line. The arms have the same order.
    pub runs: Vec<ReportedRun>,
    pub evaluations: Vec<ReportedEvaluation>,
    /// How a setting was chosen for each arm of a sweep.
    pub tuning: Option<TuneRecord>,
    /// Sentences about arms that were split because their runs differ in more than the seed.
    pub split: Vec<String>,
    /// Sentences about input that was left out.
    pub left_out: Vec<String>,
}
