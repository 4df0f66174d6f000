//! Scores groups while the rest of their rollout is still being decoded.
//!
//! A thread of its own takes each group when its last branch has ended. What is scored together depends on timing; a score
//! does not, since it is a function of its completion alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::{iter, panic, thread};

use anyhow::Result;
use rayon::prelude::*;

use super::sample::{Drawn, Group, Item, Sampler, ScoredBranch};
use crate::model::lora::Adapter;
use crate::reward::{Sample, Scored};
use crate::rollout::{Branch, Engine, Prompt, Request, Sampling, Watch};

/// A group that has ended, by its place in the request.
type Ended = (usize, Vec<Branch>);

/// The text of a completion and what it is worth.
type Judged = (String, Scored);

/// A group as the engine gave it, with what each branch is worth.
type JudgedGroup = Vec<(Branch, Judged)>;

impl Sampler<'_> {
    /// Completes and scores `items`, `branches` times each; `None` when cancelled.
    #[allow(clippy::too_many_arguments, reason = "who draws, what, how, and who watches")]
    pub fn groups<'a>(
        &self,
        engine: &mut dyn Engine,
        adapter: Option<&Adapter>,
        items: &[&'a Item],
        branches: usize,
        sampling: &Sampling,
        step: u64,
        drawn: &mut Drawn,
        watch: &mut dyn Watch,
    ) -> Result<Option<Vec<Group<'a>>>> {
        let prompts: Vec<Prompt> = items.iter().map(|item| drawn.next(item)).collect();
        let policy = self.policy;
        let request = Request {
            prompts: &prompts,
            num_generations: branches,
            sampling,
            max_completion_length: self.max_completion_length,
            seed: self.seed,
            step,
            ends: &|tokens| policy.ends(tokens),
            stop_tokens: &policy.stop_tokens,
        };
        let scored = generate_and_score(self, engine, adapter, items, &request, watch)?;
        let Some(judged) = scored else { return Ok(None) };
        let groups = items.iter().zip(judged).map(|(item, branches)| {
            let scored = branches.into_iter().map(|(branch, (text, scored))| {
                let penalty = if branch.truncated() { self.truncation_penalty } else { 0.0 };
                ScoredBranch { reward: scored.total - penalty, branch, text, scored }
            });
            let mut group = Group { item, branches: scored.collect() };
            group.settle_unscored();
            group
        });
        Ok(Some(groups.collect()))
    }
}

/// Lets `engine` complete the prompts of `items` and scores each group as soon as it is whole; `None` when cancelled.
///
/// # Errors
/// Those of the engine, and those of the rewards, which cut the rollout short.
fn generate_and_score(
    sampler: &Sampler,
    engine: &mut dyn Engine,
    adapter: Option<&Adapter>,
    items: &[&Item],
    request: &Request,
    watch: &mut dyn Watch,
) -> Result<Option<Vec<JudgedGroup>>> {
    let over = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let scorer = scope.spawn(|| {
            let judged = judge_all(sampler, items, receiver, &over);
            over.fetch_or(judged.is_err(), Ordering::Relaxed);
            judged
        });
        let mut handing = Handing { watch, groups: sender, told: vec![false; items.len()], over: &over };
        let generated = engine.generate(adapter, request, &mut handing);
        if let Ok(Some(groups)) = &generated {
            handing.rest(groups);
        }
        drop(handing);
        let judged = scorer.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        let (groups, judged) = (generated?, judged?);
        let pairs = |(branches, judged): (Vec<_>, Vec<_>)| branches.into_iter().zip(judged).collect();
        Ok(groups.map(|groups| groups.into_iter().zip(judged).map(pairs).collect()))
    })
}

/// Passes on what an engine tells, and groups that have ended to the scorer.
struct Handing<'a> {
    watch: &'a mut dyn Watch,
    groups: Sender<Ended>,
    /// Whether the scorer has the group.
    told: Vec<bool>,
    /// Nobody waits for the scores, or there will be none.
    over: &'a AtomicBool,
}

impl Handing<'_> {
    /// Hands over what the engine did not tell of on the way.
    fn rest(&mut self, groups: &[Vec<Branch>]) {
        for (prompt, branches) in groups.iter().enumerate() {
            if !self.told[prompt] {
                self.group(prompt, branches);
            }
        }
    }
}

impl Watch for Handing<'_> {
    fn token(&mut self, prompt: usize, branch: usize, token: u32) {
        self.watch.token(prompt, branch, token);
    }

    fn group(&mut self, prompt: usize, branches: &[Branch]) {
        self.watch.group(prompt, branches);
        self.told[prompt] = true;
        // A scorer that has failed listens no more; its error is told at the end.
        _ = self.groups.send((prompt, branches.to_vec()));
    }

    fn cancelled(&mut self) -> bool {
        self.over.fetch_or(self.watch.cancelled(), Ordering::Relaxed);
        self.over.load(Ordering::Relaxed)
    }
}

/// Scores groups until no more come, all that wait at a time; in the order of the request.
fn judge_all(
    sampler: &Sampler,
    items: &[&Item],
    ended: Receiver<Ended>,
    over: &AtomicBool,
) -> Result<Vec<Vec<Judged>>> {
    let mut judged: Vec<Vec<Judged>> = items.iter().map(|_| Vec::new()).collect();
    while let Ok(first) = ended.recv() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let groups: Vec<Ended> = iter::once(first).chain(ended.try_iter()).collect();
        let text = |branch| sampler.policy.text(branch);
        let texts: Vec<Vec<String>> =
            groups.par_iter().map(|(_, branches)| branches.iter().map(text).collect()).collect();
        let mut samples = Vec::new();
        for ((prompt, branches), texts) in groups.iter().zip(&texts) {
            samples.extend(branches.iter().zip(texts).map(|(branch, text)| Sample {
                question: &items[*prompt].question,
                response: text,
                prompt: sampler.prior,
                prefilled: sampler.prefill && sampler.prior.tag.is_some(),
                tokens: branch.tokens.len(),
                truncated: branch.truncated(),
            }));
        }
        let mut scores = sampler.rewards.score_all(&samples)?.into_iter();
        for ((prompt, _), texts) in groups.iter().zip(texts) {
            judged[*prompt] = texts.into_iter().zip(scores.by_ref()).collect();
        }
    }
    Ok(judged)
}
