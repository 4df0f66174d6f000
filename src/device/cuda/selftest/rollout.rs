//! Rollouts: decoding gives the same tokens as the whole sequence.

use super::SelftestCase;
use super::lab::{Lab, MARGIN, Twin};
use super::model::{ModelPair, qwen3, shape};
use crate::device::cuda::engine::CudaEngine;
use crate::device::cuda::learner::CudaLearner;
use crate::device::cuda::memory::Buffer;
use crate::device::cuda::ops;
use crate::device::memory::REPORTED;
use crate::grpo::learner::{Keep, Learner};
use crate::model::pack::Pack;
use crate::ops::head::token_stats;
use crate::rng::{Purpose, Stream};
use crate::rollout::sampler::sample;
use crate::rollout::{Completion, Engine, Finish, Prompt, RolloutRequest, Sampling, Unwatched};
use anyhow::{Context, Result};

/// Number of tokens that may differ by chance.
const BY_CHANCE: f64 = 3.0;

pub fn rollout() -> Vec<SelftestCase> {
    let plain = Sampling::plain(1.0);
    [
        ("greedy", (4, 4, 32), 8, Sampling::greedy()),
        ("T = 1", (6, 2, 64), 16, plain.clone()),
        ("T = 0.8, top-p 0.9", (7, 1, 128), 32, Sampling { temperature: 0.8, top_p: 0.9, ..plain }),
    ]
    .map(|(name, (query, kv, dim), rank, sampling)| {
        let config = shape(query, kv, dim, 376);
        let config = if kv == 4 { qwen3(config) } else { config };
        SelftestCase::new(name, move |lab| {
            let pair = ModelPair::new(lab, &config, rank, 256 << 20)?;
            one(lab, &pair, &sampling)
        })
    })
    .into()
}

fn one(lab: &mut Lab, pair: &ModelPair, sampling: &Sampling) -> Result<()> {
    let vocab = pair.cpu.config.vocab_size;
    // One is so long that its completions start a second span of keys while they are decoded.
    let prompts: Vec<Prompt> = [9, 1, 70, 220]
        .into_iter()
        .enumerate()
        .map(|(i, len)| Prompt { ids: lab.below(len, vocab), key: 100 + i as u64 })
        .collect();
    // Ends by token, by text and by length; 5 rows for 24 completions, so that freed rows are reused.
    let stop_tokens: Vec<u32> = (0..4).collect();
    let request = RolloutRequest {
        prompts: &prompts,
        num_generations: 6,
        sampling,
        max_completion_length: 75,
        seed: 11,
        step: 3,
        ends: &|tokens| tokens.len() > 2 && tokens[tokens.len() - 1] % 97 == 5,
        stop_tokens: &stop_tokens,
    };
    let generate = |rows: usize| -> Result<Vec<Vec<Completion>>> {
        let made = CudaEngine::new(&pair.gpu, rows).generate(Some(&pair.adapter), &request, &mut Unwatched)?;
        made.context("the rollout was canceled")
    };
    let made = generate(5)?;
    lab.holds("equal tokens and log-probabilities when repeated", generate(5)? == made);
    let completions = || made.iter().zip(&prompts).flat_map(|(group, prompt)| group.iter().map(move |it| (prompt, it)));
    let ends_well = |completion: &Completion| {
        let last = completion.tokens.last().copied().unwrap_or(0);
        let early = completion.tokens[..completion.tokens.len().saturating_sub(1)]
            .iter()
            .any(|token| stop_tokens.contains(token));
        !early
            && match completion.finish {
                Finish::Token(token) => token == last && stop_tokens.contains(&last),
                Finish::String => (request.ends)(&completion.tokens),
                Finish::Length => completion.tokens.len() == request.max_completion_length,
            }
    };
    let complete = made.len() == prompts.len() && made.iter().all(|group| group.len() == request.num_generations);
    lab.holds("every completion has the right end", complete && completions().all(|(_, b)| ends_well(b)));

    // Given the same earlier tokens, the CPU samples the same token, unless rounding decides a tie differently.
    let (mut total, mut got, mut learned) = (0usize, Vec::new(), Vec::new());
    let mut twin = Twin { exact: Vec::new(), rounded: Vec::new() };
    let (mut other, mut other_when_rounded) = (0usize, 0usize);
    let mut learner = CudaLearner::new(&pair.gpu);
    let temperature = sampling.policy_temperature();
    for (group, prompt) in made.iter().zip(&prompts) {
        for (index, completion) in group.iter().enumerate() {
            let mut pack = Pack::default();
            pack.push(&prompt.ids, &[&completion.tokens]);
            let width = pair.cpu.config.hidden_size;
            let stream = Stream::new(request.seed, Purpose::Sampling, &[request.step, prompt.key, index as u64]);
            let [exact, rounded] = [(&pair.cpu, &pair.adapter), (&pair.rounded, &pair.kept)]
                .map(|(cpu, adapter)| cpu.forward(Some(adapter), &pack, Keep::Nothing).hidden);
            for (place, pair_at) in pack.pairs.iter().enumerate() {
                let row = pair_at.row * width..(pair_at.row + 1) * width;
                let drawn = |hidden: &[f32]| {
                    let logits = pair.cpu.head().logits(&hidden[row.clone()]);
                    let (token, _) = sample(&logits, sampling, &stream, place as u64);
                    (token, token_stats(&logits, pair_at.target, temperature).logprob)
                };
                let ((token, logprob), (rounded_token, rounded_logprob)) = (drawn(&exact), drawn(&rounded));
                other += usize::from(token != pair_at.target);
                other_when_rounded += usize::from(rounded_token != token);
                twin.exact.push(logprob);
                twin.rounded.push(rounded_logprob);
            }
            learner.forward(Some(&pair.adapter), &pack, Keep::Nothing)?;
            learned.extend(learner.token_stats(&pack, temperature)?.iter().map(|stats| stats.logprob));
            got.extend_from_slice(&completion.logprobs);
            total += pack.pairs.len();
        }
    }
    let gap = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from((a.exp() - b.exp()).abs())).sum::<f64>() / a.len() as f64
    };
    let share = |count: f64| count / total as f64;
    let bar = share(MARGIN * other_when_rounded as f64 + BY_CHANCE);
    lab.value(&format!("share of {total} tokens that the CPU samples differently"), share(other as f64), bar);
    lab.near("log-probabilities compared with the CPU's", &got, &twin);
    let bar = MARGIN * gap(&twin.rounded, &twin.exact);
    lab.value("mean |dp| compared with the CPU", gap(&got, &twin.exact), bar);
    lab.value("mean |dp| compared with training on the GPU", gap(&got, &learned), bar);

    // No row has to wait for another's slot. Products of another size may decide a tie differently, so the tokens may
    // differ.
    let at_once = generate(24)?;
    let complete = at_once.iter().all(|group| group.len() == request.num_generations && group.iter().all(ends_well));
    lab.holds("all rows at once", at_once.len() == made.len() && complete);
    lab.holds("an empty request gives no groups", empty(pair, sampling)? == 0);
    Ok(())
}

/// Number of groups that are returned for no prompts.
fn empty(pair: &ModelPair, sampling: &Sampling) -> Result<usize> {
    let request = RolloutRequest {
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
    Ok(made.context("the rollout was canceled")?.len())
}

/// The bookkeeping between two steps of decoding.
pub fn advance() -> Vec<SelftestCase> {
    let stops = SelftestCase::new("stop tokens", |lab| {
        // More than a block of threads, and not a multiple of one; the rings of some reports wrap around.
        let mut rows: Vec<HostRow> = (0..131).map(|i| HostRow { count: i % CAPACITY, done: false }).collect();
        // The last rows are idle: finished, with no tokens.
        rows[128..].fill(HostRow { count: 0, done: true });
        one_advance(lab, rows, &[7, 30])
    });
    let length = SelftestCase::new("no stop tokens", |lab| {
        one_advance(lab, vec![HostRow { count: 0, done: false }, HostRow { count: CAPACITY - 2, done: false }], &[])
    });
    vec![stops, length]
}

/// Tokens of a completion in the cases of `advance`.
const CAPACITY: usize = 2 * REPORTED + 5;
/// Words of a row's report.
const REPORT: usize = 1 + 2 * REPORTED;

/// A row as the host would store it.
#[derive(Clone, Copy)]
struct HostRow {
    count: usize,
    done: bool,
}

/// Three steps, in which rows end by a stop token, by their length, or not at all.
fn one_advance(lab: &mut Lab, mut rows: Vec<HostRow>, stops: &[u32]) -> Result<()> {
    let mut column = |value: fn(&HostRow) -> i32| lab.put(&rows.iter().map(value).collect::<Vec<_>>());
    let (counts, done) = (column(|row| row.count as i32)?, column(|row| i32::from(row.done))?);
    // A prompt of 40 tokens: the next input is the token before the sampled one.
    let (positions, cells) = (column(|row| 39 + row.count as i32)?, column(|row| row.count as i32 - 1)?);
    let stops_at = if stops.is_empty() { Buffer::NULL } else { lab.put(stops)? };
    let report = lab.poisoned::<u32>(rows.len() * REPORT)?;
    let mut expected = vec![u32::MAX; rows.len() * REPORT];
    for step in 0..3 {
        // A stop token at the first step, at the second or never.
        let draw =
            |i: usize| if i % 5 == step && !stops.is_empty() { stops[i % 2] } else { 100 + (3 * i + step) as u32 };
        let tokens: Vec<u32> = (0..rows.len()).map(draw).collect();
        let logprobs: Vec<f32> = tokens.iter().map(|&token| -(token as f32) / 64.0).collect();
        let (tokens_at, logprobs_at) = (lab.put(&tokens)?, lab.put(&logprobs)?);
        ops::rollout_advance(
            &lab.gpu,
            tokens_at,
            logprobs_at,
            counts,
            done,
            positions,
            cells,
            report,
            stops_at,
            CAPACITY,
            rows.len(),
        )?;
        for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| !row.done) {
            let place = i * REPORT + 1 + row.count % REPORTED;
            (expected[place], expected[place + REPORTED]) = (tokens[i], logprobs[i].to_bits());
            row.count += 1;
            expected[i * REPORT] = row.count as u32;
            row.done = stops.contains(&tokens[i]) || row.count == CAPACITY;
        }
        let mut is = |what: &str, buffer: Buffer<i32>, value: fn(&HostRow) -> i32| -> Result<()> {
            let same = buffer.download(&lab.gpu)? == rows.iter().map(value).collect::<Vec<_>>();
            lab.holds(&format!("step {step}: {what}"), same);
            Ok(())
        };
        is("counts", counts, |row| row.count as i32)?;
        is("positions", positions, |row| 39 + row.count as i32)?;
        is("cells", cells, |row| row.count as i32 - 1)?;
        is("the finished rows", done, |row| i32::from(row.done))?;
        let same = report.download(&lab.gpu)? == expected;
        lab.holds(&format!("step {step}: the report"), same);
    }
    let ended = rows.iter().filter(|row| row.done).count();
    lab.holds("rows of all kinds", ended > 0 && ended < rows.len());
    Ok(())
}
