//! Answers as exact values: extract, parse, compare.

/// What a check of an answer against the gold answer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Correct,
    Wrong,
    /// Neither could be shown; the reason is for the log.
    Undecided(String),
}
