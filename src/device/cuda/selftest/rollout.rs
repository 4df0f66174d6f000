//! Rollouts: what is decoded is what the whole sequence gives, token for token.

use super::lab::Lab;
use super::model::{Pair, qwen3, shape};
use super::{BF16, EXACT};
use crate::device::cuda::engine::CudaEngine;
use crate::device::cuda::learner::CudaLearner;
use crate::grpo::learner::Keep;
use crate::grpo::learner::Learner;
use crate::model::pack::Pack;
use crate::rng::{Purpose, Stream};
use crate::rollout::sampler::sample;
use crate::rollout::{Branch, Engine, Finish, Prompt, Request, Sampling, Unwatched};
use anyhow::{Context, Result};

/// Mean |difference of probabilities| between rollout and training.
const GAP: f64 = 2e-3;
/// Share of tokens that rounding to bf16 may turn: those whose two best candidates are as good as equal.
const TIES: f64 = 0.05;

pub fn rollout(lab: &mut Lab) -> Result<()> {
    let plain = Sampling::plain(1.0);
    for (name, heads, rank, sampling) in [
        ("greedy", (4, 4, 32), 8, Sampling::greedy()),
        ("T = 1", (6, 2, 64), 16, plain.clone()),
        ("T = 0.8, top-p 0.9", (7, 1, 128), 32, Sampling { temperature: 0.8, top_p: 0.9, ..plain }),
    ] {
        let (query, kv, dim) = heads;
        let config = shape(query, kv, dim, 376);
        let config = if kv == 4 { qwen3(config) } else { config };
        let pair = Pair::new(lab, &config, rank, 256 << 20)?;
        one(lab, name, &pair, &sampling)?;
    }
    Ok(())
}

fn one(lab: &mut Lab, name: &str, pair: &Pair, sampling: &Sampling) -> Result<()> {
    let vocab = pair.cpu.config.vocab_size;
    // One is so long that its completions need a second span of keys on the way.
    let prompts: Vec<Prompt> = [9, 1, 70, 220]
        .into_iter()
        .enumerate()
        .map(|(i, len)| Prompt { ids: lab.below(len, vocab), key: 100 + i as u64 })
        .collect();
    // Ends by token, by text and by length; 5 rows for 24 branches, so that freed rows are refilled.
    let stop_tokens: Vec<u32> = (0..4).collect();
    let request = Request {
        prompts: &prompts,
        num_generations: 6,
        sampling,
        max_completion_length: 75,
        seed: 11,
        step: 3,
        ends: &|tokens| tokens.len() > 2 && tokens[tokens.len() - 1] % 97 == 5,
        stop_tokens: &stop_tokens,
    };
    let generate = |rows: usize| -> Result<Vec<Vec<Branch>>> {
        let made = CudaEngine::new(&pair.gpu, rows).generate(Some(&pair.adapter), &request, &mut Unwatched)?;
        made.context("cancelled by nobody")
    };
    let made = generate(5)?;
    lab.holds(&format!("{name}: the same tokens and log-probabilities twice"), generate(5)? == made);
    let branches = || made.iter().zip(&prompts).flat_map(|(group, prompt)| group.iter().map(move |it| (prompt, it)));
    let ends_well = |branch: &Branch| {
        let last = branch.tokens.last().copied().unwrap_or(0);
        let early =
            branch.tokens[..branch.tokens.len().saturating_sub(1)].iter().any(|token| stop_tokens.contains(token));
        !early
            && match branch.finish {
                Finish::Token(token) => token == last && stop_tokens.contains(&last),
                Finish::String => (request.ends)(&branch.tokens),
                Finish::Length => branch.tokens.len() == request.max_completion_length,
            }
    };
    let complete = made.len() == prompts.len() && made.iter().all(|group| group.len() == request.num_generations);
    lab.holds(&format!("{name}: every branch ends where it should"), complete && branches().all(|(_, b)| ends_well(b)));

    // Given what was drawn before, the CPU draws the same token.
    let (mut total, mut other, mut gap) = (0usize, 0usize, 0.0);
    let (mut got, mut want) = (Vec::new(), Vec::new());
    let mut learner = CudaLearner::new(&pair.gpu);
    let mut gap_to_learner = 0.0;
    for (group, prompt) in made.iter().zip(&prompts) {
        for (index, branch) in group.iter().enumerate() {
            let mut pack = Pack::default();
            pack.push(&prompt.ids, &[&branch.tokens]);
            let hidden = pair.cpu.forward(Some(&pair.adapter), &pack, Keep::Nothing).hidden;
            let width = pair.cpu.config.hidden_size;
            let stream = Stream::new(request.seed, Purpose::Sampling, &[request.step, prompt.key, index as u64]);
            learner.forward(Some(&pair.adapter), &pack, Keep::Nothing)?;
            let learned = learner.token_stats(&pack, sampling.policy_temperature())?;
            for (place, (pair_at, learned)) in pack.pairs.iter().zip(&learned).enumerate() {
                let logits = pair.cpu.head().logits(&hidden[pair_at.row * width..(pair_at.row + 1) * width]);
                let (token, _) = sample(&logits, sampling, &stream, place as u64);
                let stats = crate::ops::head::token_stats(&logits, pair_at.target, sampling.policy_temperature());
                let drawn = branch.logprobs[place];
                let difference = |other: f32| f64::from((drawn.exp() - other.exp()).abs());
                gap += difference(stats.logprob);
                gap_to_learner += difference(learned.logprob);
                got.push(drawn);
                want.push(stats.logprob);
                other += usize::from(token != pair_at.target);
                total += 1;
            }
        }
    }
    lab.value(
        &format!("{name}: share of {total} tokens that the CPU draws otherwise"),
        other as f64 / total as f64,
        TIES,
    );
    lab.compare(&format!("{name}: log-probabilities against the CPU's"), &got, &want, BF16);
    lab.value(&format!("{name}: mean |dp| against the CPU"), gap / total as f64, GAP);
    lab.value(&format!("{name}: mean |dp| against training on the GPU"), gap_to_learner / total as f64, GAP);

    // No row has to wait for another's place. Products of another size may turn a tie, so the tokens may be others.
    let at_once = generate(24)?;
    let complete = at_once.iter().all(|group| group.len() == request.num_generations && group.iter().all(ends_well));
    lab.holds(&format!("{name}: all rows at once"), at_once.len() == made.len() && complete);
    lab.value(&format!("{name}: an empty request"), empty(pair, sampling)? as f64, EXACT);
    Ok(())
}

/// Groups that come back for no prompts.
fn empty(pair: &Pair, sampling: &Sampling) -> Result<usize> {
    let request = Request {
        prompts: &[],
        num_generations: 6,
        sampling,
        max_completion_length: 5,
        seed: 1,
        step: 1,
        ends: &|_| false,
        stop_tokens: &[],
    };
    let made = CudaEngine::new(&pair.gpu, 4).generate(None, &request, &mut Unwatched)?;
    Ok(made.context("cancelled by nobody")?.len())
}
