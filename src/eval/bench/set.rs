//! Questions that were read.

use crate::data::Question;

/// The questions of a benchmark.
pub struct Set {
    pub questions: Vec<Question>,
    /// What a reader of the scores should know.
    pub notes: Vec<String>,
    /// Of the files, or of the generated questions.
    pub sha256: String,
}
