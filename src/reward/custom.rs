//! A reward of the user's own: a command that reads completions as JSON lines and answers each with a score.
//!
//! A request is `{"id": 7, "prompt": ..., "question_id": ..., "question": ..., "gold": ..., "response": ..., "tokens": ...,
//! "truncated": ..., "extra": {...}}`, an answer `{"id": 7, "score": 0.5, "note": "..."}`; `score` may be null, `note` may be
//! absent, and answers may come in any order. The command lives as long as the run. One that dies or falls silent in the
//! middle of a batch is started again and asked for what is still open, a few times; one that breaks the protocol ends the
//! run at once, since it would break it again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::process::{RewardProcess, Said};
use super::{RewardInput, Score};
use crate::config::CustomSection;

/// Starts of the command in one batch, beside the first.
const RESTARTS: usize = 3;

/// What the command should have done.
const PROTOCOL: &str = "hint: a request is one line of JSON and so is its answer, {\"id\": ..., \"score\": ...} with a \
                        finite number or null; nothing else goes to stdout (docs/rewards.md)";

/// A running command and what it is asked.
pub struct CustomReward {
    section: CustomSection,
    state: Mutex<CommandState>,
}

struct CommandState {
    process: RewardProcess,
    /// Requests so far. An identity is never used twice, so that a late answer is not taken for another's.
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
    // Null is an answer, absence is none.
    #[serde(deserialize_with = "present")]
    score: Option<f64>,
    note: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Option::deserialize(deserializer)
}

/// Why a batch was not finished.
enum BatchFailure {
    /// Its output came to an end.
    Ended,
    /// The time was up.
    Silent,
}

impl CustomReward {
    /// Starts the command.
    ///
    /// # Errors
    /// It cannot be started; the message names it.
    pub fn start(section: &CustomSection) -> Result<CustomReward> {
        let process =
            RewardProcess::start(&section.command).with_context(|| format!("custom reward `{}`", section.name))?;
        Ok(CustomReward { section: section.clone(), state: Mutex::new(CommandState { process, asked: 0 }) })
    }

    pub fn name(&self) -> &str {
        &self.section.name
    }

    /// One score for each sample, in their order.
    ///
    /// # Errors
    /// An answer that breaks the protocol; a command that dies or takes too long again and again.
    pub fn score(&self, inputs: &[RewardInput]) -> Result<Vec<Score>> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.batch(&mut state, inputs).with_context(|| format!("custom reward `{}`", self.section.name))
    }

    fn batch(&self, state: &mut CommandState, inputs: &[RewardInput]) -> Result<Vec<Score>> {
        let first = state.asked;
        state.asked += inputs.len() as u64;
        let mut scores: Vec<Option<Score>> = vec![None; inputs.len()];
        for restarts in 0.. {
            let open = inputs.iter().zip(first..).zip(&scores).filter(|(_, score)| score.is_none());
            state.process.send(open.map(|((input, id), _)| request(input, id)).collect());
            let Some(failure) = self.collect(&state.process, first, &mut scores)? else { break };
            let (status, words) = state.process.end(Duration::ZERO);
            if restarts == RESTARTS {
                let what = match failure {
                    BatchFailure::Ended => format!("ended ({status})"),
                    BatchFailure::Silent => format!("needed more than {} seconds", self.section.timeout),
                };
                let said = if words.is_empty() { String::new() } else { format!("; its stderr ends with {words:?}") };
                bail!(
                    "the command {what} with {} of {} completions answered, after {restarts} restarts{said}\n\
                     hint: `timeout` is the most seconds for a batch; docs/rewards.md shows how to try a command by hand",
                    scores.iter().flatten().count(),
                    inputs.len()
                );
            }
            state.process = RewardProcess::start(&self.section.command)?;
        }
        Ok(scores.into_iter().flatten().collect())
    }

    /// Reads answers until all are there, or says why they are not.
    fn collect(
        &self,
        process: &RewardProcess,
        first: u64,
        scores: &mut [Option<Score>],
    ) -> Result<Option<BatchFailure>> {
        let deadline = Instant::now() + Duration::from_secs_f64(self.section.timeout);
        while scores.iter().any(Option::is_none) {
            match process.hear(deadline) {
                Said::Line(line) => {
                    take(&line, first, scores).with_context(|| format!("answer {}", shortened(&line)))?;
                }
                Said::Nothing => return Ok(Some(BatchFailure::Silent)),
                Said::End => return Ok(Some(BatchFailure::Ended)),
            }
        }
        Ok(None)
    }
}

/// The line that asks for a score.
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

/// Puts an answer in its place among those of the requests from `first` on.
fn take(line: &str, first: u64, scores: &mut [Option<Score>]) -> Result<()> {
    let answer: CommandReply = serde_json::from_str(line).map_err(|error| anyhow!("{error}\n{PROTOCOL}"))?;
    ensure!(answer.score.is_none_or(f64::is_finite), "{:?} is no finite number\n{PROTOCOL}", answer.score);
    let (id, end) = (answer.id, first + scores.len() as u64);
    ensure!(id < end, "{id} was never asked, the requests so far are 0 to {}\n{PROTOCOL}", end - 1);
    let place = id.checked_sub(first).map(|index| &mut scores[index as usize]).filter(|score| score.is_none());
    let Some(place) = place else { bail!("{id} was answered before\n{PROTOCOL}") };
    *place = Some(Score { value: answer.score, note: answer.note, ..Score::default() });
    Ok(())
}

/// A line as an error shows it.
fn shortened(line: &str) -> String {
    const LONGEST: usize = 120;
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &line[..end]),
        None => format!("{line:?}"),
    }
}
