//! A loaded question set.

use crate::data::Question;

/// The questions of a benchmark.
pub struct Set {
    pub questions: Vec<Question>,
    /// Notes for readers of the scores.
    pub notes: Vec<String>,
    /// Hash of the files, or of the generated questions.
    pub sha256: String,
}
