//! One run: its state, its metrics and its newest group of completions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::event::{WatchEvent, WatchFeed};
use super::growth::{NewLines, last_line};
use crate::disk::lock::is_held;
use crate::prompt::{Mixture, PriorPrompt};
use crate::run::metrics::MetricsRecord;
use crate::run::printable::printable;
use crate::run::status::RunStatus;
use crate::run::{CompletionRecord, GroupRecord, Manifest, RunDir};

/// Number of completions and of characters of each that the page gets: a page with more does not get better.
const COMPLETIONS: usize = 64;
const CHARACTERS: usize = 20_000;

/// Follows a run directory.
pub struct RunFeed {
    path: PathBuf,
    metrics: NewLines,
    /// Length of the log of completions when its last line was read.
    completions: Option<u64>,
    /// The last event `run`.
    run: Option<WatchEvent>,
    is_held: bool,
}

/// The event `run`.
#[derive(Serialize)]
struct RunHeader {
    #[serde(flatten)]
    status: RunStatus,
    data: String,
    device: String,
    /// Empty for a run whose prompt file is damaged.
    prior_prompts: Vec<PriorPrompt>,
}

impl RunFeed {
    pub fn of(path: &Path) -> Self {
        let metrics = NewLines::of(path.join("metrics.jsonl"));
        Self { path: path.to_owned(), metrics, completions: None, run: None, is_held: false }
    }

    fn header(&self, run: &RunDir) -> Result<WatchEvent> {
        let (status, manifest) = (RunStatus::read(run)?, Manifest::read(run)?);
        let device = manifest.sessions.last().map_or_else(String::new, |session| session.device.clone());
        let prior_prompts = Mixture::read(&run.prompt()).map(|it| it.prompts().cloned().collect()).unwrap_or_default();
        Ok(WatchEvent::new("run", &RunHeader { status, data: manifest.data.path, device, prior_prompts }))
    }

    /// The event `metrics` with the new lines. Lines that are not valid are left out; [`RunFeed::header`] reports them.
    fn new_metrics(&mut self) -> Result<Option<WatchEvent>> {
        let added =
            self.metrics.next().with_context(|| format!("read `{}`", self.path.join("metrics.jsonl").display()))?;
        if added.text.is_empty() && !added.restarted {
            return Ok(None);
        }
        let rows: Vec<MetricsRecord> = added.text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Some(WatchEvent::new("metrics", &json!({ "restarted": added.restarted, "rows": rows }))))
    }

    /// The event `group` if there is a newer group.
    fn newest_group(&mut self, run: &RunDir) -> Result<Option<WatchEvent>> {
        let path = run.completions();
        let length = path.metadata().ok().map(|metadata| metadata.len());
        if length == self.completions {
            return Ok(None);
        }
        let context = || format!("read `{}`", path.display());
        let line = last_line(&path).with_context(context)?;
        let group =
            line.map(|line| serde_json::from_str(&line)).transpose().context("last line").with_context(context)?;
        self.completions = length;
        Ok(group.map(|group| WatchEvent::new("group", &shown(group))))
    }
}

impl WatchFeed for RunFeed {
    fn news(&mut self, events: &mut Vec<WatchEvent>) -> Result<()> {
        let run = RunDir::open(&self.path)?;
        let metrics = self.new_metrics()?;
        let held = is_held(&self.path);
        // A run writes its last evaluation before its last metrics, and releases its lock after both.
        let may_differ = metrics.is_some() || held != self.is_held || self.run.is_none();
        let header = if may_differ { self.header(&run).map(Some) } else { Ok(None) };
        self.is_held = held;
        match &header {
            Ok(Some(header)) if self.run.as_ref() != Some(header) => {
                events.push(header.clone());
                self.run = Some(header.clone());
            }
            Ok(_) => {}
            // It is read again until it can be read.
            Err(_) => self.run = None,
        }
        events.extend(metrics);
        events.extend(self.newest_group(&run)?);
        // A damaged file must not hide what the others have.
        header?;
        Ok(())
    }
}

/// A group with text that a page can show.
fn shown(group: GroupRecord) -> Value {
    let completion = |it: &CompletionRecord| {
        json!({
            "text": cut(&it.text),
            "tokens": it.tokens,
            "finish": cut(&it.finish),
            "rewards": it.rewards,
            "reward": it.reward,
            "verdict": it.verdict,
            "answer": it.answer.as_deref().map(cut),
            "note": it.note.as_deref().map(cut),
            "advantage": it.advantage,
        })
    };
    json!({
        "step": group.step,
        "question_id": cut(&group.question_id),
        "question": cut(&group.question),
        "gold": cut(&group.gold),
        "ppe": group.ppe,
        "count": group.completions.len(),
        "completions": group.completions.iter().take(COMPLETIONS).map(completion).collect::<Vec<_>>(),
    })
}

/// Text without harmful characters and of a limited length.
fn cut(text: &str) -> String {
    let count = text.chars().count();
    if count <= CHARACTERS {
        return printable(text).into_owned();
    }
    let start: String = text.chars().take(CHARACTERS).collect();
    format!("{} ... ({} characters more)", printable(&start), count - CHARACTERS)
}
