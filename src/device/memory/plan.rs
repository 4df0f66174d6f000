//! The GPU memory of a run, by phase, calculated before anything is loaded.
//!
//! The weights, the adapter and its optimizer are in memory during the whole run. The rest is one arena that rollouts
//! and training use in turn, so the peak is the permanent part plus the larger of the two. Weights and activations are
//! bf16; the adapter, its gradient and moments, statistics and logits are f32. The sizes are not listed here: the arena
//! is laid out by the functions that lay out a GPU's, without an address.

use super::arena::Arena;
use super::layout::{MemoryLayout, SlabSize, adapter_bytes, metadata_bytes, weight_bytes};
use super::lora::LoraColumns;
use super::{PREFILL_TOKENS, RESERVE, prompt_slots};
use crate::config::{DistillKl, RunConfig};
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::ops::attention::Part;
use crate::ops::attention_tiles::Tiles;
use anyhow::{Result, bail};
use serde::Serialize;

/// Memory of CUDA, cuBLAS and the loaded kernels.
const CONTEXT: u64 = 768 << 20;

/// Bytes, by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// The memory that CUDA uses, and what is left free for it.
    pub context: u64,
    /// The frozen weights in bf16, with a bf16 copy of the adapter next to those that it adapts.
    pub weights: u64,
    /// The adapter's f32 weights, gradient and two moments.
    pub adapter: u64,
    pub rollout: RolloutMemory,
    pub training: TrainingMemory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RolloutMemory {
    /// Keys and values of the prompts whose completions are being decoded.
    pub prompt_cache: u64,
    /// Keys and values of the completions, each at its maximum length.
    pub completion_cache: u64,
    /// Buffers of a prefill or a decode step, with the logits of one token per row.
    pub working: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrainingMemory {
    /// What a micro-batch keeps for its backward pass, with the teacher's hidden rows if a prompt is distilled.
    pub kept: u64,
    /// Buffers of the blocks, with partial sums of attention.
    pub working: u64,
    /// Buffers of the head before that: a chunk of logits, and the gradient of their rows.
    pub head: u64,
}

/// The largest batch that fits in a given memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// Completions decoded at the same time: `rollout.max_rows`.
    pub max_rows: usize,
    /// Rows of a micro-batch: `train.max_tokens_per_micro_batch`.
    pub max_tokens: usize,
}

impl MemoryPlan {
    pub fn of(model: &ModelConfig, config: &RunConfig) -> Result<MemoryPlan> {
        let (blocks, len) = Adapter::shape(model, &config.lora)?;
        let lora = LoraColumns::of(&blocks[0]);
        Ok(MemoryPlan {
            context: CONTEXT + RESERVE as u64,
            weights: weight_bytes(model, config.rollout.max_sequence_length(), lora) as u64,
            adapter: adapter_bytes(len) as u64,
            rollout: RolloutMemory::of(model, config, config.rollout.local_rows())?,
            training: TrainingMemory::of(model, config, config.train.max_tokens_per_micro_batch)?,
        })
    }

    /// The permanent memory of the run.
    pub fn fixed(&self) -> u64 {
        self.context + self.weights + self.adapter
    }

    pub fn peak(&self) -> u64 {
        self.fixed() + self.rollout.total().max(self.training.total())
    }
}

impl RolloutMemory {
    pub fn of(model: &ModelConfig, config: &RunConfig, max_rows: usize) -> Result<RolloutMemory> {
        let rollout = &config.rollout;
        let rows = max_rows.min(rollout.completions_per_step());
        let size = SlabSize {
            rows,
            prompt_slots: prompt_slots(rows, rollout.num_generations, rollout.prompts_per_step),
            prompt: rollout.max_prompt_length,
            completion: rollout.max_completion_length,
            stops: model.eos_token_ids.len(),
        };
        let (blocks, _) = Adapter::shape(model, &config.lora)?;
        let layout = MemoryLayout { config: model, lora: LoraColumns::of(&blocks[0]) };
        let mut arena = Arena::endless();
        layout.caches(&mut arena, size.prompt_slots, size.prompt)?;
        let prompt_cache = arena.used();
        layout.caches(&mut arena, rows, size.completion)?;
        let caches = arena.used();
        layout.slabs(&mut arena, size)?;
        let prompts = (rollout.prompts_per_step * size.prompt).min(PREFILL_TOKENS.max(size.prompt));
        Ok(RolloutMemory {
            prompt_cache: prompt_cache as u64,
            completion_cache: (caches - prompt_cache) as u64,
            working: (arena.used() - caches + layout.prefill_bytes(prompts)) as u64,
        })
    }

    pub fn total(&self) -> u64 {
        self.prompt_cache + self.completion_cache + self.working
    }
}

impl TrainingMemory {
    pub fn of(model: &ModelConfig, config: &RunConfig, max_tokens: usize) -> Result<TrainingMemory> {
        let keep = if config.train.gradient_checkpointing { Keep::Inputs } else { Keep::Everything };
        let (blocks, _) = Adapter::shape(model, &config.lora)?;
        let layout = MemoryLayout { config: model, lora: LoraColumns::of(&blocks[0]) };
        let heads = model.heads();
        let parts = longest_parts(config, max_tokens.max(config.rollout.max_sequence_length()));
        let partial = Tiles::new(&parts, heads.query / heads.kv).partial_len(heads);
        let rows = parts.last().map_or(0, |part| part.branches.last().map_or(part.prompt.end, |branch| branch.end));
        let pairs: usize = parts.iter().flat_map(|part| &part.branches).map(|branch| branch.len() + 1).sum();
        let (bytes, teacher) = match config.distilled() {
            Some(DistillKl::Full) => {
                let mut arena = Arena::endless();
                layout.teacher_rows(&mut arena, pairs)?;
                (layout.taught_pass_bytes(rows, pairs, partial, keep), arena.used())
            }
            _ => (layout.pass_bytes(rows, pairs, partial, keep), 0),
        };
        Ok(TrainingMemory {
            kept: (metadata_bytes(rows) + teacher + bytes.kept) as u64,
            working: bytes.blocks as u64,
            head: bytes.head as u64,
        })
    }

    pub fn total(&self) -> u64 {
        self.kept + self.working.max(self.head)
    }
}

/// A micro-batch of `rows` rows, made of groups whose prompts and completions have their maximum length.
fn longest_parts(config: &RunConfig, rows: usize) -> Vec<Part> {
    let rollout = &config.rollout;
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < rows {
        let prompt = at..(at + rollout.max_prompt_length).min(rows);
        at = prompt.end;
        let mut branches = Vec::new();
        while at < rows && branches.len() < rollout.num_generations {
            // A completion's last token predicts nothing and has no row.
            let completion = at..(at + rollout.max_completion_length.max(2) - 1).min(rows);
            at = completion.end;
            branches.push(completion);
        }
        parts.push(Part { prompt, branches });
    }
    parts
}

impl Fit {
    /// The largest batch in `memory` bytes; `None` if not even one completion of the maximum length fits.
    pub fn within(memory: u64, model: &ModelConfig, config: &RunConfig) -> Result<Option<Fit>> {
        let plan = MemoryPlan::of(model, config)?;
        let Some(free) = memory.checked_sub(plan.fixed()) else { return Ok(None) };
        let rows_fit = |rows: usize| Ok(RolloutMemory::of(model, config, rows)?.total() <= free);
        let tokens_fit = |tokens: usize| Ok(TrainingMemory::of(model, config, tokens)?.total() <= free);
        let max_rows = largest(config.rollout.completions_per_step(), rows_fit)?;
        // More than a million rows have no benefit.
        let max_tokens = largest(1 << 20, tokens_fit)?;
        let shortest = config.rollout.max_sequence_length();
        Ok((max_rows > 0 && max_tokens >= shortest).then_some(Fit { max_rows, max_tokens }))
    }
}

/// The largest number up to `limit` for which `fits` holds, by bisection; 0 if there is none.
fn largest(limit: usize, fits: impl Fn(usize) -> Result<bool>) -> Result<usize> {
    let (mut yes, mut no) = (0, limit + 1);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if fits(middle)? { yes = middle } else { no = middle }
    }
    Ok(yes)
}

/// Keys and values of one token in all blocks.
pub fn cache_bytes_per_token(model: &ModelConfig) -> u64 {
    4 * (model.num_hidden_layers * model.num_key_value_heads * model.head_dim) as u64
}

/// `80GiB`, `24 GB`, `512MiB` or a plain number of bytes.
pub fn parse_memory(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit: f64 = match text[digits..].trim().to_lowercase().as_str() {
        "" => bail!("`{text}` has no unit\nhint: write {text}GiB or {text}GB"),
        "b" => 1.0,
        "mb" => 1e6,
        "gb" => 1e9,
        "mib" | "m" => (1u64 << 20) as f64,
        "gib" | "g" => (1u64 << 30) as f64,
        _ => bail!("`{text}` is not an amount of memory\nhint: write it as 80GiB or 24GB"),
    };
    match text[..digits].parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * unit) as u64),
        _ => bail!("`{text}` is not an amount of memory\nhint: write it as 80GiB or 24GB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLayers, Method, resolve};
    use crate::model::config::known_shape;

    const GIB: u64 = 1 << 30;

    fn study() -> (ModelConfig, RunConfig) {
        let layers = ConfigLayers { preset: Some("qwen2.5-7b".into()), ..ConfigLayers::default() };
        (known_shape("qwen2.5-7b").unwrap(), resolve(&layers).unwrap().config)
    }

    /// Within one percent: pieces are rounded up to 256 bytes, and statistics of rows are not included in the
    /// calculation.
    fn about(got: u64, expected: f64) {
        assert!((got as f64 / expected - 1.0).abs() < 0.01, "{got}, expected {expected}");
    }

    #[test]
    fn the_study_by_hand() {
        let (model, config) = study();
        let plan = MemoryPlan::of(&model, &config).unwrap();
        // Next to the weights of the four groups of a block: p rows and p columns, p = 32 for each of their layers.
        let beside = |columns: usize, inputs: usize, outputs: usize| columns * (inputs + outputs + columns);
        let lora =
            beside(96, 3584, 4608) + beside(32, 3584, 3584) + beside(64, 3584, 37_888) + beside(32, 18_944, 3584);
        assert_eq!(LoraColumns::of(&Adapter::shape(&model, &config.lora).unwrap().0[0]).values(&model), lora);
        about(plan.weights, 2.0 * (7_615_616_512 + 28 * lora) as f64);
        // 7 linear layers of 28 blocks: r (in + out) each; 80.7 M at r = 32.
        let widths = (3584 + 3584) + 2 * (3584 + 512) + (3584 + 3584) + 2 * (3584 + 18_944) + (18_944 + 3584);
        about(plan.adapter, 16.0 * 28.0 * 32.0 * f64::from(widths));
        // 56 KiB per token, 4,096 tokens, 256 rows.
        assert_eq!(cache_bytes_per_token(&model), 56 << 10);
        assert_eq!(plan.rollout.completion_cache, 56 * GIB);
        assert_eq!(plan.rollout.prompt_cache, 64 * 1024 * (56 << 10));
        // A decode step: a forward pass of one token per row, logits, spans of 256 keys of attention. And a prefill of
        // 8,192 tokens. A pass has three streams, the kept values and buffers of a block; four of these are rows with
        // columns of the adapter: normed (the maximum of qkv's and gate and up's), attended, gate and up, activated.
        let (qkv, q, inner) = (4608.0, 3584.0, 18_944.0);
        let pass = 2.0 * (5.0 * 3584.0 + qkv + q + 3.0 * inner + 96.0 + 32.0 + 64.0 + 32.0) + 4.0 * 31.0;
        let step = 256.0 * (pass + 4.0 * 152_064.0 + 4.0 * 28.0 * 20.0 * 130.0 + 8.0 * 4096.0);
        about(plan.rollout.working, step + 8192.0 * (pass + 96.0));
        assert_eq!(plan.peak(), plan.fixed() + plan.rollout.total().max(plan.training.total()));
    }

    #[test]
    fn a_micro_batch_by_hand() {
        let (model, mut config) = study();
        config.train.gradient_checkpointing = false;
        let rows = 16_384.0;
        let training = TrainingMemory::of(&model, &config, 16_384).unwrap();
        // For each of 28 blocks: input, the stream between, qkv, the attention output, gate and up, 7 rows of x·Aᵀ of
        // 32 and room for the 2 of the gradient of gate and up, and 30 f32. And the stream after the last block, the
        // hidden rows and their gradient.
        let block = 2.0 * (2.0 * 3584.0 + 4608.0 + 3584.0 + 2.0 * 18_944.0 + 9.0 * 32.0) + 4.0 * 30.0;
        about(training.kept, rows * (28.0 * block + 3.0 * 2.0 * 3584.0));
        // A chunk of 1,024 rows of logits with their hidden rows, and the gradient of the hidden row of each token:
        // four completions of one prompt, each of which has one token more than rows.
        let tokens = rows - 1024.0 + 4.0;
        about(training.head, 1024.0 * (4.0 * 152_064.0 + 2.0 * 3584.0) + tokens * 2.0 * 3584.0);
        // The gradients of the stream (with columns of the adapter), of a norm's output and of the activated width. In
        // addition, those of attention: a sum for each of 28 heads, and the partial sums of the gradient of the
        // prompts' keys.
        let blocks = rows * (2.0 * (2.0 * 3584.0 + 32.0 + 18_944.0) + 4.0 * 28.0);
        let heads = model.heads();
        let tiles = Tiles::new(&longest_parts(&config, 16_384), heads.query / heads.kv);
        about(training.working, blocks + 4.0 * tiles.partial_len(heads) as f64);
    }

    #[test]
    fn a_teacher_adds_its_hidden_rows_and_a_second_chunk_of_logits() {
        let (model, mut config) = study();
        let of_rewards = TrainingMemory::of(&model, &config, 16_384).unwrap();
        config.train.method = Method::Distill;
        let taught = TrainingMemory::of(&model, &config, 16_384).unwrap();
        let tokens = 16_384.0 - 1024.0 + 4.0;
        about(taught.kept - of_rewards.kept, tokens * 2.0 * 3584.0);
        about(taught.head - of_rewards.head, 1024.0 * 4.0 * 152_064.0 + tokens * 4.0);
        assert_eq!(taught.working, of_rewards.working);
        config.distill.kl = DistillKl::Sampled;
        assert_eq!(TrainingMemory::of(&model, &config, 16_384).unwrap(), of_rewards);
    }

    /// The counted parts are a micro-batch: all rows once, in order.
    #[test]
    fn the_longest_parts_fill_a_micro_batch() {
        let (_, config) = study();
        for rows in [1, 1_024, 1_025, 5_120, 16_384, 100_000] {
            let mut at = 0;
            for part in longest_parts(&config, rows) {
                for range in std::iter::once(part.prompt).chain(part.branches) {
                    assert!(range.start == at && range.end > at);
                    at = range.end;
                }
            }
            assert_eq!(at, rows);
        }
    }

    #[test]
    fn the_result_is_the_largest_batch_that_fits() {
        let (model, config) = study();
        for memory in [48 * GIB, 80 * GIB, 141 * GIB] {
            let fit = Fit::within(memory, &model, &config).unwrap().unwrap();
            let peak = |fit: Fit| {
                let mut config = config.clone();
                config.rollout.max_rows = fit.max_rows;
                config.train.max_tokens_per_micro_batch = fit.max_tokens;
                MemoryPlan::of(&model, &config).unwrap().peak()
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
    fn keeping_only_inputs_takes_less() {
        let (model, mut config) = study();
        config.train.gradient_checkpointing = false;
        let plain = TrainingMemory::of(&model, &config, 16_384).unwrap().kept;
        config.train.gradient_checkpointing = true;
        let checkpointed = TrainingMemory::of(&model, &config, 16_384).unwrap().kept;
        assert!(checkpointed * 8 < plain, "{checkpointed} {plain}");
    }

    #[test]
    fn amounts_of_memory() {
        assert_eq!(parse_memory("80GiB").unwrap(), 80 << 30);
        assert_eq!(parse_memory(" 24 GB ").unwrap(), 24_000_000_000);
        assert_eq!(parse_memory("1.5g").unwrap(), 3 << 29);
        assert_eq!(parse_memory("1000B").unwrap(), 1000);
        assert_eq!(parse_memory("80").unwrap_err().to_string(), "`80` has no unit\nhint: write 80GiB or 80GB");
        for text in ["", "GiB", "-1GiB", "0", "12 apples", "1e3GiB"] {
            assert!(parse_memory(text).unwrap_err().to_string().contains("hint: "), "{text}");
        }
    }
}
