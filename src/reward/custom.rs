//! The user's own reward: a command that reads completions as JSON lines and replies to each with a score.
//!
//! A request is `{"id": 7, "prompt": ..., "question_id": ..., "question": ..., "gold": ..., "response": ..., "tokens":
//! ..., "truncated": ..., "extra": {...}}`, a reply `{"id": 7, "score": 0.5, "note": "..."}`; `score` may be null,
//! `note` may be absent, and replies may come in any order. The command runs as long as the run. If it ends or stops
//! replying within a batch, it is restarted and given the unanswered requests, a few times. If it breaks the protocol,
//! the run ends at once, because it would break it again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::process::{RewardProcess, Said};
use super::{RewardInput, Score};
use crate::config::CustomSection;

/// Maximum number of restarts of the command per batch.
const RESTARTS: usize = 3;

/// Largest absolute value of a score. Larger ones are mistakes, and the logs have scores in f32.
const LARGEST: f64 = 1e6;

/// Time between two checks whether the scores are still needed.
const POLL: Duration = Duration::from_millis(100);

/// What the protocol requires of the command.
const PROTOCOL: &str = "hint: reply to each request with one line of JSON, {\"id\": ..., \"score\": ...} with a \
                        finite number or null, and print nothing else to stdout (docs/rewards.md)";

/// A running command and the requests sent to it.
pub struct CustomReward {
    section: CustomSection,
    state: Mutex<CommandState>,
}

struct CommandState {
    process: RewardProcess,
    /// Number of requests so far. An id is never reused, so that a late reply cannot be assigned to another request.
    asked: u64,
}

#[derive(Serialize)]
struct CommandRequest<'a> {
    id: u64,
    /// Text of the prior prompt.
    prompt: &'a str,
    question_id: &'a str,
    question: &'a str,
    gold: &'a str,
    response: &'a str,
    tokens: usize,
    truncated: bool,
    extra: &'a Map<String, Value>,
}

#[derive(Deserialize)]
struct CommandReply {
    id: u64,
    // Null is a valid score, a missing field is not.
    #[serde(deserialize_with = "present")]
    score: Option<f64>,
    note: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Option::deserialize(deserializer)
}

/// Why a batch was not finished.
enum BatchFailure {
    /// Its output ended.
    Ended,
    /// It timed out.
    Silent,
    /// The scores are no longer needed.
    Cancelled,
}

impl CustomReward {
    /// Starts the command.
    ///
    /// # Errors
    /// If it cannot be started; the error names it.
    pub fn start(section: &CustomSection) -> Result<CustomReward> {
        let process = RewardProcess::start(&section.command, &section.env)
            .with_context(|| format!("custom reward `{}`", section.name))?;
        Ok(CustomReward { section: section.clone(), state: Mutex::new(CommandState { process, asked: 0 }) })
    }

    pub fn name(&self) -> &str {
        &self.section.name
    }

    /// One score per sample, in the same order; `None` soon after `cancelled` returns true, and the command is ended.
    ///
    /// # Errors
    /// If a reply breaks the protocol, or the command repeatedly ends or takes too long.
    pub fn score(&self, inputs: &[RewardInput], cancelled: &dyn Fn() -> bool) -> Result<Option<Vec<Score>>> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.batch(&mut state, inputs, cancelled).with_context(|| format!("custom reward `{}`", self.section.name))
    }

    fn batch(
        &self,
        state: &mut CommandState,
        inputs: &[RewardInput],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Score>>> {
        let first = state.asked;
        state.asked += inputs.len() as u64;
        let mut scores: Vec<Option<Score>> = vec![None; inputs.len()];
        for restarts in 0.. {
            let open = inputs.iter().zip(first..).zip(&scores).filter(|(_, score)| score.is_none());
            state.process.send(open.map(|((input, id), _)| request(input, id)).collect());
            let Some(failure) = self.collect(&state.process, first, &mut scores, cancelled)? else { break };
            let (status, words) = state.process.end(Duration::ZERO);
            let what = match failure {
                BatchFailure::Cancelled => return Ok(None),
                BatchFailure::Ended => format!("ended ({status})"),
                BatchFailure::Silent => format!("took more than {} seconds", self.section.timeout),
            };
            if restarts == RESTARTS {
                let said = if words.is_empty() { String::new() } else { format!("; its stderr ends with {words:?}") };
                bail!(
                    "the command {what} after scoring {} of {} completions and {restarts} restarts{said}\n\
                     hint: run the command by hand as docs/rewards.md shows, or raise `timeout` (seconds per batch)",
                    scores.iter().flatten().count(),
                    inputs.len()
                );
            }
            state.process = RewardProcess::start(&self.section.command, &self.section.env)?;
        }
        Ok(Some(scores.into_iter().flatten().collect()))
    }

    /// Reads replies until all have arrived, or returns why they did not.
    fn collect(
        &self,
        process: &RewardProcess,
        first: u64,
        scores: &mut [Option<Score>],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<BatchFailure>> {
        let deadline = Instant::now() + Duration::from_secs_f64(self.section.timeout);
        while scores.iter().any(Option::is_none) {
            if cancelled() {
                return Ok(Some(BatchFailure::Cancelled));
            }
            match process.hear(deadline.min(Instant::now() + POLL)) {
                Said::Line(line) => {
                    take(&line, first, scores).with_context(|| format!("reply {}", shortened(&line)))?;
                }
                Said::Nothing if Instant::now() < deadline => {}
                Said::Nothing => return Ok(Some(BatchFailure::Silent)),
                Said::End => return Ok(Some(BatchFailure::Ended)),
            }
        }
        Ok(None)
    }
}

/// The line that requests a score.
fn request(input: &RewardInput, id: u64) -> String {
    let request = CommandRequest {
        id,
        prompt: &input.prompt.text,
        question_id: &input.question.id,
        question: &input.question.text,
        gold: &input.question.gold,
        response: input.response,
        tokens: input.tokens,
        truncated: input.truncated,
        extra: &input.question.extra,
    };
    serde_json::to_string(&request).expect("strings and numbers are JSON") + "\n"
}

/// Stores a reply among those of the requests from `first` on.
fn take(line: &str, first: u64, scores: &mut [Option<Score>]) -> Result<()> {
    let answer: CommandReply = serde_json::from_str(line).map_err(|error| anyhow!("{error}\n{PROTOCOL}"))?;
    ensure!(answer.score.is_none_or(f64::is_finite), "{:?} is not a finite number\n{PROTOCOL}", answer.score);
    let score = answer.score.unwrap_or(0.0);
    ensure!(
        score.abs() <= LARGEST,
        "the score {score:e} is out of range, expected -{LARGEST:e} to {LARGEST:e}\n\
         hint: scale the scores of the command, for example to the range from 0 to 1"
    );
    let (id, end) = (answer.id, first + scores.len() as u64);
    ensure!(id < end, "id {id} was not requested, the ids so far are 0 to {}\n{PROTOCOL}", end - 1);
    let place = id.checked_sub(first).map(|index| &mut scores[index as usize]).filter(|score| score.is_none());
    let Some(place) = place else { bail!("request {id} already has a score\n{PROTOCOL}") };
    *place = Some(Score { value: answer.score, note: answer.note, ..Score::default() });
    Ok(())
}

/// A line as it is shown in an error.
fn shortened(line: &str) -> String {
    const LONGEST: usize = 120;
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &line[..end]),
        None => format!("{line:?}"),
    }
}
