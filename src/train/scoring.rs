//! Scores groups while the rest of their rollout is still being generated.
//!
//! A separate thread takes each group when its last completion has ended. Which groups are scored together depends on timing,
//! but a score does not, because it is a function of its group alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{iter, panic, thread};

use anyhow::Result;
use rayon::prelude::*;

use super::sample::{DrawCounts, RolloutScorer, ScoredCompletion, ScoredGroup, TrainQuestion};
use crate::data::Question;
use crate::model::lora::Adapter;
use crate::prompt::PriorPrompt;
use crate::reward::{CompletionKey, RewardInput, Scored};
use crate::rollout::{Completion, Engine, Prompt, RolloutRequest, RolloutWatch, Sampling};

/// Time between two checks of a request to stop, while scores are awaited.
const POLL: Duration = Duration::from_millis(50);

/// A finished group, by its index in the request.
type FinishedGroup = (usize, Vec<Completion>);

/// The text of a completion and its score.
type ScoredText = (String, Scored);

/// A group from the engine, with the score of each completion.
type GroupScores = Vec<(Completion, ScoredText)>;

impl RolloutScorer<'_> {
    /// Generates and scores `completions` completions for each of `items`; `None` if canceled.
    #[allow(clippy::too_many_arguments, reason = "engine, items, settings and observer")]
    pub fn groups<'a>(
        &self,
        engine: &mut dyn Engine,
        adapter: Option<&Adapter>,
        items: &[&'a TrainQuestion],
        completions: usize,
        sampling: &Sampling,
        step: u64,
        draws: &mut DrawCounts,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<ScoredGroup<'a>>>> {
        let keys = items.iter().map(|item| draws.next(item));
        let drawn: Vec<(usize, u64)> = keys.map(|key| (self.mixture.draw(self.seed, step, key), key)).collect();
        let prompt =
            |(item, &(prior, key)): (&&TrainQuestion, &(usize, u64))| Prompt { key, ..item.prompts[prior].clone() };
        let prompts: Vec<Prompt> = items.iter().zip(&drawn).map(prompt).collect();
        let asked: Vec<Asked> =
            items.iter().zip(&drawn).map(|(item, (prior, _))| (&item.question, self.prior(*prior))).collect();
        let policy = self.policy;
        let request = RolloutRequest {
            prompts: &prompts,
            num_generations: completions,
            sampling,
            max_completion_length: self.max_completion_length,
            seed: self.seed,
            step,
            ends: &|tokens| policy.ends(tokens),
            stop_tokens: &policy.stop_tokens,
        };
        let groups = generate_and_score(self, engine, adapter, &asked, &request, watch)?;
        let Some(groups) = groups else { return Ok(None) };
        let groups = items.iter().zip(drawn).zip(groups).map(|((item, (prior, _)), completions)| {
            let scored = completions.into_iter().map(|(sampled, (text, scored))| {
                let penalty = if sampled.truncated() { self.truncation_penalty } else { 0.0 };
                ScoredCompletion { reward: scored.total - penalty, sampled, text, scored }
            });
            let mut group = ScoredGroup { item, prior, completions: scored.collect() };
            group.settle_unscored();
            group
        });
        Ok(Some(groups.collect()))
    }
}

/// A question and its prior prompt.
type Asked<'a> = (&'a Question, &'a PriorPrompt);

/// Lets `engine` complete the prompts of `asked` and scores each group as soon as it is complete; `None` if canceled.
///
/// # Errors
/// Errors of the engine, and of the rewards, which stop the rollout.
fn generate_and_score(
    scorer: &RolloutScorer,
    engine: &mut dyn Engine,
    adapter: Option<&Adapter>,
    asked: &[Asked],
    request: &RolloutRequest,
    watch: &mut dyn RolloutWatch,
) -> Result<Option<Vec<GroupScores>>> {
    let over = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let (working, worked) = mpsc::channel::<()>();
    let key =
        |prompt: &Prompt| CompletionKey { seed: request.seed, step: request.step, question: prompt.key, completion: 0 };
    let keys: Vec<CompletionKey> = request.prompts.iter().map(key).collect();
    thread::scope(|scope| {
        let over = &over;
        let worker = scope.spawn(move || {
            // Closed when this thread ends.
            let _working = working;
            let scored = score_all_groups(scorer, asked, &keys, receiver, over);
            over.fetch_or(scored.is_err(), Ordering::Relaxed);
            scored
        });
        let mut watching = ScoringWatch { watch, groups: sender, sent: vec![false; asked.len()], over };
        let generated = engine.generate(adapter, request, &mut watching);
        if let Ok(Some(groups)) = &generated {
            watching.rest(groups);
        }
        over.fetch_or(!matches!(generated, Ok(Some(_))), Ordering::Relaxed);
        // A command may take its time after the last completion.
        let ScoringWatch { watch, groups, .. } = watching;
        drop(groups);
        while worked.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
            over.fetch_or(watch.cancelled(), Ordering::Relaxed);
            if over.load(Ordering::Relaxed) {
                scorer.rewards.stop();
            }
        }
        let scored = worker.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        let (groups, scored) = (generated?, scored?);
        if over.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let pairs = |(completions, scored): (Vec<_>, Vec<_>)| completions.into_iter().zip(scored).collect();
        Ok(groups.map(|groups| groups.into_iter().zip(scored).map(pairs).collect()))
    })
}

/// Forwards the engine's events, and sends finished groups to the scorer.
struct ScoringWatch<'a> {
    watch: &'a mut dyn RolloutWatch,
    groups: Sender<FinishedGroup>,
    /// Whether the scorer has received the group.
    sent: Vec<bool>,
    /// The scores are no longer needed, or cannot be computed.
    over: &'a AtomicBool,
}

impl ScoringWatch<'_> {
    /// Sends the groups that the engine did not report during the rollout.
    fn rest(&mut self, groups: &[Vec<Completion>]) {
        for (prompt, completions) in groups.iter().enumerate() {
            if !self.sent[prompt] {
                self.group(prompt, completions);
            }
        }
    }
}

impl RolloutWatch for ScoringWatch<'_> {
    fn token(&mut self, prompt: usize, completion: usize, token: u32) {
        self.watch.token(prompt, completion, token);
    }

    fn group(&mut self, prompt: usize, completions: &[Completion]) {
        self.watch.group(prompt, completions);
        self.sent[prompt] = true;
        // A scorer that has failed does not receive any more; its error is returned at the end.
        _ = self.groups.send((prompt, completions.to_vec()));
    }

    fn cancelled(&mut self) -> bool {
        self.over.fetch_or(self.watch.cancelled(), Ordering::Relaxed);
        self.over.load(Ordering::Relaxed)
    }
}

/// Scores groups until no more arrive, all waiting ones at a time, in the order of the request.
fn score_all_groups(
    scorer: &RolloutScorer,
    asked: &[Asked],
    keys: &[CompletionKey],
    ended: Receiver<FinishedGroup>,
    over: &AtomicBool,
) -> Result<Vec<Vec<ScoredText>>> {
    let mut scored: Vec<Vec<ScoredText>> = asked.iter().map(|_| Vec::new()).collect();
    while let Ok(first) = ended.recv() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let groups: Vec<FinishedGroup> = iter::once(first).chain(ended.try_iter()).collect();
        let text = |completion| scorer.policy.text(completion);
        let texts: Vec<Vec<String>> =
            groups.par_iter().map(|(_, completions)| completions.iter().map(text).collect()).collect();
        let mut inputs = Vec::new();
        for ((at, completions), texts) in groups.iter().zip(&texts) {
            let (question, prompt) = asked[*at];
            inputs.extend(completions.iter().zip(texts).zip(0..).map(|((completion, text), index)| RewardInput {
                question,
                response: text,
                prompt,
                prefilled: scorer.prefill && prompt.tag.is_some(),
                tokens: completion.tokens.len(),
                truncated: completion.truncated(),
                key: CompletionKey { completion: index, ..keys[*at] },
            }));
        }
        let Some(scores) = scorer.rewards.score_unless(&inputs, &|| over.load(Ordering::Relaxed))? else { break };
        let mut scores = scores.into_iter();
        for ((prompt, _), texts) in groups.iter().zip(texts) {
            scored[*prompt] = texts.into_iter().zip(scores.by_ref()).collect();
        }
    }
    Ok(scored)
}
