//! An estimate of the memory of a run on the CPU, calculated before anything is loaded.
//!
//! The weights and the adapter with its optimizer are in memory during the whole run. Rollouts and training
//! take turns, but the allocator keeps most of what one of them has freed, so both count. All values are f32. Completions are
//! assumed to have their maximum length; most runs need less.

use super::machine::MachineMemory;
use crate::config::{DistillKl, RunConfig};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::ops::attention::KvSpan;
use crate::ops::head;
use anyhow::{Result, bail};
use indicatif::HumanBytes;

/// Maximum prompt tokens per prefill.
pub const PREFILL_TOKENS: usize = 4096;

/// The prompts of a run.
#[derive(Clone, Copy, Debug)]
pub struct PromptSizes {
    /// Tokens of the longest prompt.
    pub longest: usize,
    /// Number of held-out questions: an evaluation has one completion of each.
    pub held_out: usize,
}

/// Bytes, by purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuMemory {
    /// The program, with everything that is in memory already.
    pub program: f64,
    pub weights: f64,
    /// The adapter with its gradient and two moments.
    pub adapter: f64,
    /// Keys and values of prompts and completions, and the buffers of a decode step with its logits.
    pub rollout: f64,
    /// What the largest micro-batch keeps for its backward pass, the buffers of a block, and a chunk of logits.
    pub training: f64,
}

impl CpuMemory {
    /// `program` is the memory of the process now, in bytes.
    pub fn of(model: &ModelConfig, config: &RunConfig, prompts: PromptSizes, program: u64) -> Result<CpuMemory> {
        let (_, adapter) = Adapter::shape(model, &config.lora)?;
        // Tied weights are stored twice, because a head is transposed.
        let head = if model.tie_word_embeddings { floats(model.vocab_size, model.hidden_size) } else { 0.0 };
        // A step of several updates keeps the state before the first of them.
        let copies = if config.grpo.updates_per_step() > 1 { 7 } else { 4 };
        Ok(CpuMemory {
            program: program as f64,
            weights: floats(model.parameters(), 1) + head,
            adapter: floats(adapter, copies),
            rollout: rollout(model, config, prompts),
            training: training(model, config, prompts),
        })
    }

    /// The estimate for the whole run.
    pub fn peak(&self) -> u64 {
        (self.program + self.weights + self.adapter + self.rollout + self.training) as u64
    }

    /// # Errors
    /// If the machine does not have this much memory.
    pub fn check(&self, machine: &MachineMemory) -> Result<()> {
        if self.peak() <= machine.total {
            return Ok(());
        }
        let remedy = if self.program + self.weights > machine.total as f64 {
            "use a smaller model or a machine with more memory"
        } else if self.adapter > self.rollout.max(self.training) {
            "lower `lora.r`"
        } else if self.rollout > self.training {
            "lower `rollout.max_rows` or `rollout.max_completion_length`"
        } else {
            "lower `train.max_tokens_per_micro_batch` or `rollout.max_completion_length`, or set `train.gradient_checkpointing` to true"
        };
        let size = |bytes: f64| HumanBytes(bytes as u64);
        bail!(
            "not enough memory: the run needs about {} (weights {}, adapter and optimizer {}, rollouts {}, training {}), and \
             this machine has {}\nhint: {remedy}",
            HumanBytes(self.peak()),
            size(self.weights),
            size(self.adapter),
            size(self.rollout),
            size(self.training),
            HumanBytes(machine.total)
        )
    }
}

/// Bytes of `rows` rows of `width` values. A product of sizes from a configuration may be too large for an integer.
fn floats(rows: usize, width: usize) -> f64 {
    4.0 * rows as f64 * width as f64
}

/// Values of a row in the forward pass of a block: those that a backward pass needs, in addition to the block's input, and all.
fn block_widths(model: &ModelConfig) -> (usize, usize) {
    let heads = model.heads();
    let (hidden, inner) = (model.hidden_size, model.intermediate_size);
    let unnormed = if model.qk_norm { (heads.query + heads.kv) * heads.dim } else { 0 };
    let saved = hidden + unnormed + heads.qkv_width() + heads.out_width() + 2 * inner;
    // Two normed rows, the outputs of o and of the block, and the activated row.
    (saved, hidden + saved + 4 * hidden + inner)
}

fn rollout(model: &ModelConfig, config: &RunConfig, prompts: PromptSizes) -> f64 {
    let rollout = &config.rollout;
    let rows = rollout.local_rows().min(rollout.completions_per_step().max(prompts.held_out));
    let at_once = rollout.prompts_per_step.max(prompts.held_out).min(rows);
    let cache = |tokens| model.num_hidden_layers as f64 * KvSpan::bytes(model.heads(), tokens) as f64;
    let (_, width) = block_widths(model);
    let prefilled = PREFILL_TOKENS.max(prompts.longest).min(at_once.saturating_mul(prompts.longest));
    let caches = at_once as f64 * (cache(prompts.longest) + floats(1, model.vocab_size))
        + rows as f64 * cache(rollout.max_completion_length);
    caches + floats(prefilled, width).max(floats(rows, width + model.vocab_size))
}

fn training(model: &ModelConfig, config: &RunConfig, prompts: PromptSizes) -> f64 {
    let rollout = &config.rollout;
    let heads = model.heads();
    let (hidden, inner) = (model.hidden_size, model.intermediate_size);
    let sequence = prompts.longest + rollout.max_completion_length;
    let group = prompts.longest as f64 + rollout.num_generations as f64 * rollout.max_completion_length as f64;
    let batch = rollout.prompts_per_step as f64 * group;
    let rows = (config.train.max_tokens_per_micro_batch.max(sequence) as f64).min(batch) as usize;
    let (saved, all) = block_widths(model);
    let (kept, again) = match config.train.gradient_checkpointing {
        true => (hidden, saved),
        false => (hidden + saved, 0),
    };
    // The activated row and its gradient, normed rows with their gradients, gradients of the stream, of attention's output, and
    // of q, k and v, which attention collects by head first.
    let backward = again + 2 * inner + 6 * hidden + heads.out_width() + 2 * heads.qkv_width();
    let forward = all - saved;
    // To distill a prompt over the whole vocabulary, the teacher's hidden rows are kept, and both logits are in memory.
    let (taught, heads_at_once) = if config.distilled() == Some(DistillKl::Full) { (hidden, 2) } else { (0, 1) };
    // The last hidden rows before and after the norm, and their gradients.
    let ends = 4 * hidden + taught;
    let logits = floats(head::CHUNK.min(rows), heads_at_once * model.vocab_size + 2 * hidden);
    let blocks = floats(rows, backward.max(forward));
    model.num_hidden_layers as f64 * floats(rows, kept) + floats(rows, ends) + blocks.max(logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLayers, Method, resolve};
    use crate::model::config::known_shape;

    const PROMPTS: PromptSizes = PromptSizes { longest: 300, held_out: 64 };

    fn laptop() -> (ModelConfig, RunConfig) {
        let layers = ConfigLayers { preset: Some("qwen2.5-0.5b".into()), ..ConfigLayers::default() };
        (known_shape("qwen2.5-0.5b").unwrap(), resolve(&layers).unwrap().config)
    }

    #[test]
    fn the_laptop_preset_by_hand() {
        let (model, config) = laptop();
        let memory = CpuMemory::of(&model, &config, PROMPTS, 1000).unwrap();
        // 494.0 M parameters, and the transposed head.
        assert_eq!(memory.weights, 4.0 * (494_032_768.0 + 151_936.0 * 896.0));
        // 7 linear layers of 24 blocks at r = 16: weights, gradient, two moments.
        let widths = (896 + 896) + 2 * (896 + 128) + (896 + 896) + 3 * (896 + 4864);
        assert_eq!(memory.adapter, 16.0 * (24 * 16 * widths) as f64);
        // 32 rows of 256 tokens and 32 prompts of 300, whose keys have room for 320: 2 heads of 64 in 24 blocks. A prefill of
        // 4,096 tokens is larger than the logits of 32 rows.
        let token = 4.0 * 24.0 * 2.0 * 64.0;
        let caches = 32.0 * token * (2.0 * 256.0 + 320.0 + 300.0) + 32.0 * 4.0 * 151_936.0;
        let width = 6.0 * 896.0 + 1152.0 + 896.0 + 3.0 * 4864.0;
        assert_eq!(memory.rollout, caches + 4.0 * 4096.0 * width);
        // 2,048 rows: the input of each block, and a block that is recomputed.
        let saved = 896.0 + 1152.0 + 896.0 + 2.0 * 4864.0;
        let backward = 2.0 * 4864.0 + 6.0 * 896.0 + 896.0 + 2.0 * 1152.0;
        assert_eq!(memory.training, 4.0 * 2048.0 * (24.0 * 896.0 + 4.0 * 896.0 + saved + backward));
        let sum = 1000.0 + memory.weights + memory.adapter + memory.rollout + memory.training;
        assert_eq!(memory.peak(), sum as u64);
    }

    #[test]
    fn a_teacher_takes_its_hidden_rows_and_a_second_chunk_of_logits() {
        let (model, mut config) = laptop();
        let training = |config: &RunConfig| CpuMemory::of(&model, config, PROMPTS, 0).unwrap().training;
        let of_rewards = training(&config);
        config.train.method = Method::Distill;
        // The blocks of 2,048 rows need more than the logits.
        assert_eq!(training(&config) - of_rewards, 4.0 * 2048.0 * 896.0);
        config.distill.kl = DistillKl::Sampled;
        assert_eq!(training(&config), of_rewards);
    }

    #[test]
    fn a_machine_without_enough_memory_is_an_error() {
        let (model, mut config) = laptop();
        let error = |config: &RunConfig, total: u64| {
            let memory = CpuMemory::of(&model, config, PROMPTS, 0).unwrap();
            memory.check(&MachineMemory { total, available: total }).unwrap_err().to_string()
        };
        let memory = CpuMemory::of(&model, &config, PROMPTS, 0).unwrap();
        memory.check(&MachineMemory { total: memory.peak(), available: 0 }).unwrap();
        let said = error(&config, 2 << 30);
        assert!(said.contains("and this machine has 2.00 GiB\nhint: use a smaller model or a machine"), "{said}");
        config.rollout.max_completion_length = 30_000;
        let said = error(&config, 8 << 30);
        assert!(said.contains("the run needs about ") && said.contains("hint: lower `rollout.max_rows`"), "{said}");
        config.rollout.max_rows = 1;
        let said = error(&config, 4 << 30);
        assert!(said.contains("hint: lower `train.max_tokens_per_micro_batch`"), "{said}");
        // Products of large numbers do not overflow.
        config.rollout.prompts_per_step = 1 << 40;
        config.train.max_tokens_per_micro_batch = 1 << 50;
        assert!(error(&config, 1 << 40).contains("hint: lower `train.max_tokens_per_micro_batch`"));
    }
}
