//! What a run takes of a CUDA device's memory, phase by phase, worked out before anything is loaded.
//!
//! The weights, the adapter and its optimiser stay for the whole run. The rest is one arena that rollouts and training
//! use in turn, so the peak is what stays plus the larger of the two. Weights and activations are bf16; the adapter, its
//! gradient and moments, statistics and logits are f32.

pub mod forecast;

use crate::config::RunConfig;
use crate::model::config::ModelConfig;
use crate::model::lora::targets;
use anyhow::{Result, bail};
use serde::Serialize;

const BF16: u64 = 2;
const F32: u64 = 4;
/// What CUDA, cuBLAS and the loaded kernels take themselves.
pub const CONTEXT: u64 = 768 << 20;
/// Rows of logits held at once in training.
pub const LOGITS_ROWS: u64 = 1_024;
/// Most prompt tokens of one prefill.
pub const PREFILL_TOKENS: u64 = 8_192;

/// Bytes, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub context: u64,
    pub weights: u64,
    /// f32 master weights, their bf16 copy, gradient and two moments.
    pub adapter: u64,
    pub rollout: Rollout,
    pub training: Training,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// Keys and values of the prompts whose branches are being decoded.
    pub prompt_cache: u64,
    /// Keys and values of the branches, each at its full length.
    pub branch_cache: u64,
    /// What a prefill or a decode step works on, with the logits of one token a row.
    pub working: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Training {
    /// What a micro-batch keeps for its backward pass.
    pub kept: u64,
    /// What one block works on.
    pub working: u64,
    /// One chunk of logits, with the hidden rows it comes from.
    pub logits: u64,
}

/// The largest batch that fits a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// Branches decoded at the same time: `rollout.max_rows`.
    pub max_rows: usize,
    /// Rows of a micro-batch: `train.max_tokens_per_micro_batch`.
    pub max_tokens: usize,
}

impl Plan {
    pub fn of(model: &ModelConfig, config: &RunConfig) -> Result<Plan> {
        Ok(Plan {
            context: CONTEXT,
            weights: BF16 * model.parameters() as u64,
            adapter: (4 * F32 + BF16) * adapter_parameters(model, config)?,
            rollout: Rollout::of(model, config, config.rollout.max_rows),
            training: Training::of(model, config, config.train.max_tokens_per_micro_batch)?,
        })
    }

    /// What stays for the whole run.
    pub fn fixed(&self) -> u64 {
        self.context + self.weights + self.adapter
    }

    pub fn peak(&self) -> u64 {
        self.fixed() + self.rollout.total().max(self.training.total())
    }
}

impl Rollout {
    pub fn of(model: &ModelConfig, config: &RunConfig, max_rows: usize) -> Rollout {
        let rollout = &config.rollout;
        let rows = max_rows.min(rollout.completions_per_step()) as u64;
        let prompts = prompt_slots(rows as usize, rollout.num_generations, rollout.prompts_per_step) as u64;
        let cache = cache_bytes_per_token(model);
        // Only the rows that are sampled from have logits.
        let logits = rows * model.vocab_size as u64 * F32;
        Rollout {
            prompt_cache: prompts * rollout.max_prompt_length as u64 * cache,
            branch_cache: rows * rollout.max_completion_length as u64 * cache,
            working: rows.max(PREFILL_TOKENS) * working_row(model) + logits,
        }
    }

    pub fn total(&self) -> u64 {
        self.prompt_cache + self.branch_cache + self.working
    }
}

impl Training {
    pub fn of(model: &ModelConfig, config: &RunConfig, max_tokens: usize) -> Result<Training> {
        let tokens = max_tokens.max(config.rollout.max_sequence_length()) as u64;
        let hidden = model.hidden_size as u64;
        let layers = model.num_hidden_layers as u64;
        let block = kept_row(model, config)?;
        let kept = if config.train.gradient_checkpointing { layers * hidden * BF16 + block } else { layers * block };
        // The final hidden rows and their gradient, beside what the blocks keep.
        let ends = 3 * hidden * BF16;
        Ok(Training {
            kept: tokens * (kept + ends),
            working: tokens * working_row(model),
            logits: LOGITS_ROWS * (model.vocab_size as u64 * (F32 + BF16) + 2 * hidden * BF16),
        })
    }

    pub fn total(&self) -> u64 {
        self.kept + self.working + self.logits
    }
}

impl Fit {
    /// The largest batch in `memory` bytes; `None` where not even one branch at full length fits.
    pub fn within(memory: u64, model: &ModelConfig, config: &RunConfig) -> Result<Option<Fit>> {
        let plan = Plan::of(model, config)?;
        let Some(free) = memory.checked_sub(plan.fixed()) else { return Ok(None) };
        let rows_fit = |rows: usize| Ok(Rollout::of(model, config, rows).total() <= free);
        let tokens_fit = |tokens: usize| Ok(Training::of(model, config, tokens)?.total() <= free);
        let max_rows = largest(config.rollout.completions_per_step(), rows_fit)?;
        // Beyond a million rows nothing is gained.
        let max_tokens = largest(1 << 20, tokens_fit)?;
        let shortest = config.rollout.max_sequence_length();
        Ok((max_rows > 0 && max_tokens >= shortest).then_some(Fit { max_rows, max_tokens }))
    }
}

/// The largest number up to `limit` for which `fits` holds, by bisection; 0 for none.
fn largest(limit: usize, fits: impl Fn(usize) -> Result<bool>) -> Result<usize> {
    let (mut yes, mut no) = (0, limit + 1);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if fits(middle)? { yes = middle } else { no = middle }
    }
    Ok(yes)
}

/// Prompts that are held at once while `rows` branches are decoded. Twice as many as whole groups would need, as the last
/// branch of a group may outlive the rest by far; never more than there are branches or prompts.
pub fn prompt_slots(rows: usize, num_generations: usize, prompts: usize) -> usize {
    (2 * rows.div_ceil(num_generations)).min(rows).min(prompts)
}

fn adapter_parameters(model: &ModelConfig, config: &RunConfig) -> Result<u64> {
    let widths = targets(&config.lora.target_modules)?.into_iter().map(|target| {
        let (inputs, outputs) = target.shape(model);
        inputs + outputs
    });
    Ok((model.num_hidden_layers * config.lora.r * widths.sum::<usize>()) as u64)
}

/// Keys and values of one token in all blocks.
pub fn cache_bytes_per_token(model: &ModelConfig) -> u64 {
    2 * BF16 * (model.num_hidden_layers * model.num_key_value_heads * model.head_dim) as u64
}

/// q, k and v of one token, side by side.
fn qkv_width(model: &ModelConfig) -> u64 {
    ((model.num_attention_heads + 2 * model.num_key_value_heads) * model.head_dim) as u64
}

/// What a block keeps of one row: its input, qkv, attention output and the stream after it, gate and up, the shrunk rows of
/// its LoRA groups, and in f32 a log-sum-exp for each head and two scales of norms.
fn kept_row(model: &ModelConfig, config: &RunConfig) -> Result<u64> {
    let q = (model.num_attention_heads * model.head_dim) as u64;
    let wide = 2 * model.hidden_size as u64 + qkv_width(model) + q + 2 * model.intermediate_size as u64;
    let low = (targets(&config.lora.target_modules)?.len() * config.lora.r) as u64;
    Ok((wide + low) * BF16 + (model.num_attention_heads as u64 + 2) * F32)
}

/// What a block works on for one row, forward or backward, that is not kept: normed input, gradients of the stream twice, of
/// qkv and of the attention's output, and the activated width with its gradient.
fn working_row(model: &ModelConfig) -> u64 {
    let q = (model.num_attention_heads * model.head_dim) as u64;
    (3 * model.hidden_size as u64 + qkv_width(model) + q + 4 * model.intermediate_size as u64) * BF16
}

/// `80GiB`, `24 GB`, `512MiB` or a plain number of bytes.
pub fn parse_memory(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit: f64 = match text[digits..].trim().to_lowercase().as_str() {
        "" | "b" => 1.0,
        "mb" => 1e6,
        "gb" => 1e9,
        "mib" | "m" => (1u64 << 20) as f64,
        "gib" | "g" => (1u64 << 30) as f64,
        _ => bail!("`{text}` is no amount of memory\nhint: write it as 80GiB or 24GB"),
    };
    match text[..digits].parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * unit) as u64),
        _ => bail!("`{text}` is no amount of memory\nhint: write it as 80GiB or 24GB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, resolve};
    use crate::model::config::known_shape;

    const GIB: u64 = 1 << 30;

    fn study() -> (ModelConfig, RunConfig) {
        let layers = Layers { preset: Some("qwen2.5-7b".into()), ..Layers::default() };
        (known_shape("qwen2.5-7b").unwrap(), resolve(&layers).unwrap().config)
    }

    #[test]
    fn the_study_by_hand() {
        let (model, config) = study();
        let plan = Plan::of(&model, &config).unwrap();
        assert_eq!(plan.weights, 2 * 7_615_616_512);
        // 7 linear layers of 28 blocks: r (in + out) each; 80.7 M at r = 32.
        let widths = (3584 + 3584) + 2 * (3584 + 512) + (3584 + 3584) + 2 * (3584 + 18_944) + (18_944 + 3584);
        assert_eq!(plan.adapter, 18 * 28 * 32 * widths);
        // 56 KiB a token, 4,096 tokens, 256 rows.
        assert_eq!(cache_bytes_per_token(&model), 56 << 10);
        assert_eq!(plan.rollout.branch_cache, 56 * GIB);
        assert_eq!(plan.rollout.prompt_cache, 64 * 1024 * (56 << 10));
        assert_eq!(plan.peak(), plan.fixed() + plan.rollout.total().max(plan.training.total()));
    }

    #[test]
    fn what_fits_is_the_most_that_does() {
        let (model, config) = study();
        for memory in [48 * GIB, 80 * GIB, 141 * GIB] {
            let fit = Fit::within(memory, &model, &config).unwrap().unwrap();
            let peak = |fit: Fit| {
                let mut config = config.clone();
                config.rollout.max_rows = fit.max_rows;
                config.train.max_tokens_per_micro_batch = fit.max_tokens;
                Plan::of(&model, &config).unwrap().peak()
            };
            assert!(peak(fit) <= memory);
            assert!(peak(Fit { max_tokens: fit.max_tokens + 1, ..fit }) > memory);
            if fit.max_rows < config.rollout.completions_per_step() {
                assert!(peak(Fit { max_rows: fit.max_rows + 1, ..fit }) > memory);
            }
        }
        assert_eq!(Fit::within(12 * GIB, &model, &config).unwrap(), None);
    }

    #[test]
    fn keeping_inputs_only_takes_less() {
        let (model, mut config) = study();
        config.train.gradient_checkpointing = false;
        let plain = Training::of(&model, &config, 16_384).unwrap().kept;
        config.train.gradient_checkpointing = true;
        let checkpointed = Training::of(&model, &config, 16_384).unwrap().kept;
        assert!(checkpointed * 8 < plain, "{checkpointed} {plain}");
    }

    #[test]
    fn amounts_of_memory() {
        assert_eq!(parse_memory("80GiB").unwrap(), 80 << 30);
        assert_eq!(parse_memory(" 24 GB ").unwrap(), 24_000_000_000);
        assert_eq!(parse_memory("1.5g").unwrap(), 3 << 29);
        assert_eq!(parse_memory("1000").unwrap(), 1000);
        for text in ["", "GiB", "-1GiB", "0", "12 apples", "1e3GiB"] {
            assert!(parse_memory(text).unwrap_err().to_string().contains("hint: "), "{text}");
        }
    }
}
