//! What a run writes to disk and displays.
//!
//! A run directory contains everything that is needed to repeat or resume the run: [`dir`] defines the paths of its parts,
//! [`crate::disk`] writes files completely or not at all, [`jsonl`] appends to logs that survive a crash.

pub mod completions;
pub mod dir;
pub mod inputs;
pub mod jsonl;
pub mod manifest;
pub mod metrics;
pub mod printable;
pub mod progress;
pub mod signals;
pub mod status;
pub mod tensorboard;
pub mod terminal;
pub mod trained;
pub mod tuning;
pub mod wrap;

pub use completions::{CompletionRecord, CompletionsLog, GroupRecord};
pub use dir::RunDir;
pub use manifest::{Manifest, RunSession};
pub use metrics::MetricsLog;
pub use progress::{EvalView, Progress, StepView};
pub use signals::{Signal, Stop};
