//! What a run leaves on disk and shows while it goes on.
//!
//! A run directory holds all that is needed to repeat the run and to go on with it: [`dir`] names its parts, [`crate::disk`] writes
//! files that are whole or absent, [`jsonl`] appends to logs that survive a crash.

pub mod completions;
pub mod dir;
pub mod jsonl;
pub mod manifest;
pub mod metrics;
pub mod progress;
pub mod signals;
pub mod status;
pub mod tensorboard;
pub mod trained;

pub use completions::{BranchRecord, CompletionsLog, GroupRecord};
pub use dir::RunDir;
pub use manifest::{Manifest, Session};
pub use metrics::MetricsLog;
pub use progress::{EvalView, Progress, StepView};
pub use signals::{Signal, Stop};
