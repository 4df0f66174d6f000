//! The metrics of every step, in `metrics.jsonl` and for TensorBoard, under TRL's names.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::dir::RunDir;
use super::jsonl::{self, JsonLines};
use super::tensorboard::EventFile;

/// Both logs of a run's metrics.
pub struct MetricsLog {
    lines: JsonLines,
    events: EventFile,
}

/// A line of `metrics.jsonl`: `{"step": 3, "reward": 0.5, ...}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsRecord {
    pub step: usize,
    /// By name. JSON has no NaN and no infinity, so these are written as null ...
    #[serde(flatten)]
    pub values: BTreeMap<String, Option<f64>>,
    /// ... and their names are listed here, so that a search for `non_finite` finds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
}

impl MetricsRecord {
    pub fn new(step: usize, values: &BTreeMap<String, f64>) -> Self {
        let non_finite = values.iter().filter(|(_, value)| !value.is_finite()).map(|(name, _)| name.clone()).collect();
        let finite = |(name, &value): (&String, &f64)| (name.clone(), value.is_finite().then_some(value));
        Self { step, values: values.iter().map(finite).collect(), non_finite }
    }
}

impl MetricsLog {
    pub fn create(run: &RunDir) -> Result<Self> {
        Ok(Self { lines: JsonLines::create(&run.metrics())?, events: EventFile::create(run.path(), 0)? })
    }

    /// Continues after the checkpoint of `last_step`; later lines are removed.
    pub fn resume(run: &RunDir, last_step: usize) -> Result<Self> {
        Ok(Self {
            lines: JsonLines::resume(&run.metrics(), last_step)?,
            events: EventFile::create(run.path(), last_step + 1)?,
        })
    }

    /// Appends the metrics of a step. A step can have more than one line: an evaluation comes after the training step.
    pub fn append(&mut self, step: usize, values: &BTreeMap<String, f64>) -> Result<()> {
        self.append_record(&MetricsRecord::new(step, values))
    }

    /// Appends a line.
    pub fn append_record(&mut self, record: &MetricsRecord) -> Result<()> {
        self.lines.append(record)?;
        let value = |(name, value): (&String, &Option<f64>)| (name.clone(), value.unwrap_or(f64::NAN));
        self.events.append(record.step, &record.values.iter().map(value).collect())
    }

    /// Syncs the files to disk; called before a checkpoint is committed.
    pub fn sync(&self) -> Result<()> {
        self.lines.sync()
    }
}

/// Reads all lines of a `metrics.jsonl`.
pub fn read(path: &Path) -> Result<Vec<MetricsRecord>> {
    jsonl::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(reward: f64, kl: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([("reward".into(), reward), ("kl".into(), kl)])
    }

    #[test]
    fn lines_keep_every_digit_and_list_values_that_are_not_finite() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), None, "tiny").unwrap();
        let mut log = MetricsLog::create(&run).unwrap();
        log.append(1, &values(0.1 + 0.2, 1.0)).unwrap();
        log.append(2, &values(f64::NAN, f64::INFINITY)).unwrap();
        let text = std::fs::read_to_string(run.metrics()).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"kl\":1.0,\"reward\":0.30000000000000004}\n\
             {\"step\":2,\"kl\":null,\"reward\":null,\"non_finite\":[\"kl\",\"reward\"]}\n"
        );
        let records = read(&run.metrics()).unwrap();
        assert_eq!(records[0].values["reward"], Some(0.1 + 0.2));
        assert_eq!((records[1].values["kl"], records[1].non_finite.len()), (None, 2));
    }

    #[test]
    fn a_resumed_log_has_one_line_per_step() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), None, "tiny").unwrap();
        let mut log = MetricsLog::create(&run).unwrap();
        for step in 1..=5 {
            log.append(step, &values(step as f64, 0.0)).unwrap();
        }
        log.sync().unwrap();
        let mut log = MetricsLog::resume(&run, 3).unwrap();
        log.append(4, &values(40.0, 0.0)).unwrap();
        let rewards: Vec<_> =
            read(&run.metrics()).unwrap().iter().map(|record| record.values["reward"].unwrap()).collect();
        assert_eq!(rewards, [1.0, 2.0, 3.0, 40.0]);
    }
}
