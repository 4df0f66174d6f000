//! What a step adds to the logs. If they cannot be written, it is saved in the checkpoint, so that no line is lost.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::disk::atomic;
use crate::run::metrics::MetricsRecord;
use crate::run::{CompletionsLog, GroupRecord, MetricsLog, RunDir};

/// The groups and the metrics of a step.
#[derive(Debug, Serialize, Deserialize)]
pub struct StepLog {
    pub groups: Vec<GroupRecord>,
    pub metrics: MetricsRecord,
}

/// Both logs of a run.
pub struct Logs {
    pub metrics: MetricsLog,
    completions: CompletionsLog,
}

impl Logs {
    /// Opens the logs after the checkpoint of `step`; later lines are removed.
    pub fn resume(run: &RunDir, step: usize) -> Result<Self> {
        let unlogged = StepLog::read(&run.checkpoint(step))?;
        let logged = if unlogged.is_some() { step - 1 } else { step };
        // A run that was killed before its first checkpoint also has logs, but they are not valid.
        let mut logs =
            Self { metrics: MetricsLog::resume(run, logged)?, completions: CompletionsLog::resume(run, logged)? };
        if let Some(step) = unlogged {
            logs.append(&step)?;
        }
        Ok(logs)
    }

    pub fn append(&mut self, step: &StepLog) -> Result<()> {
        step.groups.iter().try_for_each(|group| self.completions.append(group))?;
        self.metrics.append_record(&step.metrics)
    }

    /// Syncs the files to disk; called before a checkpoint is committed.
    pub fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.completions.sync()
    }
}

impl StepLog {
    /// Writes the log to a checkpoint's folder.
    pub fn write(&self, checkpoint: &Path) -> Result<()> {
        atomic::write(&path(checkpoint), &serde_json::to_vec(self)?)
    }

    /// The log in a checkpoint's folder, if it has one.
    fn read(checkpoint: &Path) -> Result<Option<Self>> {
        let path = path(checkpoint);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse `{}`", path.display())).map(Some)
    }
}

fn path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("unlogged.json")
}
