//! Training on whole sequences, and one step of GRPO from the rollout to the new adapter.

use super::{PerfBench, PerfLine, multiplied};
use crate::config::{ConfigLayers, resolve};
use crate::device::cuda::engine::CudaEngine;
use crate::device::cuda::learner::CudaLearner;
use crate::disk::hash::sha256_ids;
use crate::grpo::adamw::{AdamW, Hyper};
use crate::grpo::advantage::advantages;
use crate::grpo::learner::Keep;
use crate::grpo::learner::{Learner, OutOfMemory};
use crate::grpo::objective::Objective;
use crate::grpo::pass::{PassPlan, TrainGroup, gradient_pass};
use crate::model::config::ModelConfig;
use crate::model::pack::Pack;
use crate::rng::{Purpose, Stream};
use crate::rollout::{Completion, Engine, Prompt, RolloutRequest, Sampling, Unwatched};
use anyhow::{Context, Result, ensure};
use std::time::Instant;

/// Lengths of the completions of the replayed step: 320 with mean 269, at most 1,024.
const LENGTHS: &str = include_str!("../../../../benches/step_lengths.txt");
const PROMPTS: usize = 64;
const GENERATIONS: usize = 5;
const STEPS: u64 = 3;
/// Maximum completion length.
const LONGEST: usize = 1_024;
/// Tokens per prompt, with which the step has 118.8 thousand tokens in total.
const PROMPT: usize = 102;
const HYPER: Hyper = Hyper { lr: 1e-5, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };

/// Operations of a forward and a backward pass per token of a sequence of `length`, with LoRA of rank `rank` and
/// without gradients of frozen weights: 4 per weight and 12 for LoRA, and 4 + 10 per visible key for attention.
fn flops_per_token(config: &ModelConfig, length: usize, lora: usize) -> f64 {
    let wide = (config.num_hidden_layers * config.num_attention_heads * config.head_dim) as f64;
    4.0 * multiplied(config) as f64 + 6.0 * lora as f64 + 14.0 * wide * length as f64 / 2.0
}

fn tokens(stream: &Stream, len: usize, vocab: usize) -> Vec<u32> {
    (0..len as u64).map(|i| stream.below(i, vocab as u64) as u32).collect()
}

/// Forward and backward at sequence lengths 1,024 and 4,096, in micro-batches of `rows` rows.
pub fn sequences(bench: &mut PerfBench, rows: usize) -> Result<()> {
    for length in [1_024, 4_096] {
        let config = bench.shared.decoder.config.clone();
        let mut pack = Pack::default();
        for sequence in 0..(rows / length).max(1) {
            let ids = tokens(&Stream::new(1, Purpose::Test, &[sequence as u64]), length + 1, config.vocab_size);
            pack.push(&ids[..1], &[&ids[1..]]);
        }
        let coefficients = vec![1e-3; pack.pairs.len()];
        let mut adapter = bench.adapter.clone();
        let mut adamw = AdamW::new(adapter.params.len());
        let mut learner = CudaLearner::new(&bench.shared);
        learner.begin(&adapter)?;
        let mut keep = Keep::Everything;
        let mut pass = |learner: &mut CudaLearner| -> Result<()> {
            match learner.forward(Some(&adapter), &pack, keep) {
                Err(error) if error.is::<OutOfMemory>() => {
                    keep = Keep::Inputs;
                    learner.forward(Some(&adapter), &pack, keep)?;
                }
                done => done?,
            }
            learner.head_backward(&pack, 1.0, &coefficients, 0.0)?;
            learner.backward(&adapter, &pack)
        };
        pass(&mut learner)?;
        bench.shared.gpu.synchronize()?;
        let (times, started) = (3, Instant::now());
        for _ in 0..times {
            pass(&mut learner)?;
        }
        bench.shared.gpu.synchronize()?;
        let milliseconds = started.elapsed().as_secs_f64() * 1e3 / f64::from(times);
        let kept = if keep == Keep::Everything { "nothing recomputed" } else { "blocks recomputed" };
        let count = pack.tokens.len();
        let flops = flops_per_token(&config, length, adapter.params.len()) * count as f64;
        let mut line = bench.floors.line(&format!("train, length {length}, {count} rows"), milliseconds, 0.0, flops);
        line.tokens_per_second = Some(1e3 * count as f64 / milliseconds);
        line.note = kept.to_owned();

        let device = bench.shared.adapter.as_ref().context("memory for the adapter")?;
        device.load_moments(&bench.shared.gpu, &adamw)?;
        let update = super::time(&bench.shared.gpu, 10, || device.optimizer_step(&bench.shared.gpu, &HYPER, 1.0))?;
        let started = Instant::now();
        learner.gradient_norm(&adapter)?;
        learner.step(&mut adapter, &mut adamw, &HYPER, 1.0)?;
        let whole = started.elapsed().as_secs_f64() * 1e3;
        bench.add(line);
        if length == 1_024 {
            let parameters = adapter.params.len() as f64;
            let mut line = bench.floors.line("AdamW on the device", update, 30.0 * parameters, 15.0 * parameters);
            line.note = format!("{whole:.0} ms with the norm and the copy of the adapter to the host");
            bench.add(line);
        }
    }
    Ok(())
}

/// Steps of GRPO: 320 completions of forced lengths, a reward hashed from their tokens, and an update from all of them.
/// The functions are those of the training loop. The last step is reported.
///
/// # Errors
/// If a step does not change the adapter.
pub fn step(bench: &mut PerfBench, max_rows: usize) -> Result<()> {
    let lengths: Vec<usize> = LENGTHS.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let config = bench.shared.decoder.config.clone();
    let prompts: Vec<Prompt> = (0..PROMPTS as u64)
        .map(|key| Prompt { ids: tokens(&Stream::new(2, Purpose::Test, &[key]), PROMPT, config.vocab_size), key })
        .collect();
    let hash = |tokens: &[u32]| {
        let path: Vec<u64> = tokens.iter().map(|&token| u64::from(token)).collect();
        Stream::new(3, Purpose::Test, &path)
    };
    // Random weights never produce an end token: a completion's length depends on its first three tokens.
    let length = |tokens: &[u32]| lengths[hash(&tokens[..3]).below(0, lengths.len() as u64) as usize].max(3);
    let sampling = Sampling::plain(1.0);
    let mut adapter = bench.adapter.clone();
    let mut adamw = AdamW::new(adapter.params.len());
    let mut run = resolve(&ConfigLayers::default())?.config;
    run.grpo.beta = 0.0;
    run.lora = adapter.section.clone();
    run.rollout.prompts_per_step = PROMPTS;
    run.rollout.num_generations = GENERATIONS;
    run.rollout.max_prompt_length = PROMPT;
    run.rollout.max_completion_length = LONGEST;
    run.rollout.max_rows = max_rows;
    run.train.max_tokens_per_micro_batch = 16_384;
    run.train.gradient_checkpointing = false;
    let planned = crate::device::memory::plan::MemoryPlan::of(&config, &run)?;
    bench.planned = Some(planned.rollout.total().max(planned.training.total()));
    let section = &run.grpo;
    let objective = Objective::new(section, LONGEST)?;
    let mut engine = CudaEngine::new(&bench.shared, max_rows);
    let mut learner = CudaLearner::new(&bench.shared);
    let mut lines = Vec::new();
    // The first step chooses algorithms.
    for number in 1..=STEPS {
        let request = RolloutRequest {
            prompts: &prompts,
            num_generations: GENERATIONS,
            sampling: &sampling,
            max_completion_length: LONGEST,
            seed: 4,
            step: number,
            ends: &|tokens| tokens.len() >= 3 && tokens.len() >= length(tokens),
            stop_tokens: &[],
        };
        let started = Instant::now();
        let made = engine.generate(Some(&adapter), &request, &mut Unwatched)?.context("the rollout was canceled")?;
        let rollout = started.elapsed().as_secs_f64();
        let completions: usize = made.iter().flatten().map(|completion| completion.tokens.len()).sum();

        let started = Instant::now();
        let reward = |completion: &Completion| hash(&completion.tokens).f64(1);
        let rewards: Vec<Vec<f64>> = made.iter().map(|group| group.iter().map(reward).collect()).collect();
        let advantages = advantages(&rewards, section.scale_rewards).values;
        let groups: Vec<TrainGroup> = prompts
            .iter()
            .zip(made.iter().zip(&advantages))
            .map(|(prompt, (completions, advantages))| TrainGroup::whole(&prompt.ids, completions, advantages))
            .collect();
        let counts: Vec<usize> = made.iter().flatten().map(|completion| completion.tokens.len()).collect();
        let normalizer = objective.normalizer(&counts, &vec![false; counts.len()]);
        let plan = PassPlan {
            temperature: 1.0,
            max_tokens: run.train.max_tokens_per_micro_batch,
            gradient_checkpointing: run.train.gradient_checkpointing,
            off_policy: false,
        };
        learner.begin(&adapter)?;
        let result = gradient_pass(&mut learner, &adapter, &groups, &objective, &normalizer, &plan)?;
        let norm = learner.gradient_norm(&adapter)?;
        let training = started.elapsed().as_secs_f64();
        let before = adapter.params.clone();
        let started = Instant::now();
        learner.step(&mut adapter, &mut adamw, &HYPER, 1.0)?;
        let update = started.elapsed().as_secs_f64();
        ensure!(norm.is_finite() && norm > 0.0, "the gradient norm of step {number} is {norm}");
        ensure!(adapter.params != before, "step {number} did not change the adapter");
        let total = completions + PROMPTS * GENERATIONS * PROMPT;
        let seconds = |name: &str, seconds: f64, tokens: usize| PerfLine {
            name: name.to_owned(),
            milliseconds: 1e3 * seconds,
            tokens_per_second: Some(tokens as f64 / seconds),
            ..PerfLine::default()
        };
        let mut generated = seconds("step: rollout", rollout, completions);
        generated.note = format!("{completions} tokens in {} completions", counts.len());
        let mut trained = seconds("step: gradient", training, result.rows);
        let gap = result.sampling_gap.0;
        trained.note = format!(
            "{} rows in {} micro-batches, {} halved; gradient {norm:.2e}; |Δ log-probability| {:.1e}",
            result.rows,
            result.micro_batches,
            result.out_of_memory,
            gap.sum / gap.count.max(1) as f64
        );
        let mut updated = seconds("step: update", update, 0);
        updated.tokens_per_second = None;
        updated.note = format!("the adapter changed in each of {number} steps");
        let mut whole = seconds("step", rollout + training + update, total);
        whole.note = format!("{total} tokens, with a prompt per completion");
        lines = vec![generated, trained, updated, whole];
        if number == STEPS {
            // Two runs that print the same digest have the same sampled tokens and the same adapter.
            let drawn = made.iter().flatten().flat_map(|completion| &completion.tokens).copied();
            let bits: Vec<u32> = drawn.chain(adapter.params.iter().map(|value| value.to_bits())).collect();
            lines[3].note += &format!("; tokens and adapter {:.16}", sha256_ids(&bits));
        }
    }
    lines.into_iter().for_each(|line| bench.add(line));
    Ok(())
}
