//! A decode step and a micro-batch of training of any size, to count the work that they issue. Their tokens are arbitrary.

use super::learner::CudaLearner;
use super::shared::Shared;
use super::slabs::{DecodeBatch, Slabs, Start};
use crate::config::DistillKl;
use crate::device::memory::DECODE_STEPS;
use crate::grpo::learner::{Keep, Learner};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::rollout::{Prompt, RolloutRequest, Sampling};
use anyhow::Result;

/// Completions of a prompt.
const GROUP: usize = 8;
/// Longest prompt.
const PROMPT: usize = 64;

/// Rows that are decoded together, with the adapter.
pub struct DecodeSetup {
    slabs: Slabs,
    starts: Vec<Start>,
    batch: DecodeBatch,
}

impl DecodeSetup {
    /// Takes memory for `rows` rows that see `context` keys each, the new token's among them, and uploads the state of the
    /// rows. Keys and values are whatever is in memory.
    pub fn set_up(shared: &Shared, rows: usize, context: usize) -> Result<Self> {
        let prompt = PROMPT.min(context / 2);
        let count = context - prompt;
        let group = GROUP.min(rows);
        let prompts: Vec<Prompt> =
            (0..rows.div_ceil(group) as u64).map(|key| Prompt { ids: vec![1; prompt], key }).collect();
        let request = RolloutRequest {
            prompts: &prompts,
            num_generations: group,
            sampling: &Sampling::plain(1.0),
            max_completion_length: count + DECODE_STEPS,
            seed: 1,
            step: 1,
            ends: &|_| false,
            stop_tokens: &shared.decoder.config.eos_token_ids,
        };
        let mut arena = shared.arena.borrow_mut();
        let slabs = Slabs::new(&shared.gpu, &mut arena, &shared.decoder, true, &request, rows)?;
        let start = |row: usize| Start {
            slot: row,
            prompt_slot: row / group % slabs.prompt_slots,
            prompt_len: prompt,
            key: [row as u32, 1],
            count,
            last: 1,
        };
        let starts: Vec<Start> = (0..slabs.rows).map(start).collect();
        slabs.set(&shared.gpu, &starts)?;
        let batch = slabs.batch(&starts, DECODE_STEPS);
        Ok(Self { slabs, starts, batch })
    }

    /// Issues one step.
    pub fn issue(&self, shared: &Shared) -> Result<()> {
        self.slabs.step(&shared.gpu, &shared.decoder, &Sampling::plain(1.0), self.batch)
    }

    /// The work between two sequences of steps: the host downloads the tokens that were drawn, and uploads the state of the rows.
    pub fn look(&mut self, shared: &Shared) -> Result<()> {
        self.slabs.report(&shared.gpu, self.starts.len())?;
        self.slabs.set(&shared.gpu, &self.starts)
    }
}

/// Sequences of `length` rows each, `rows` rows together: a prompt of one token with one completion.
pub fn sequences(rows: usize, length: usize) -> Pack {
    let mut pack = Pack::default();
    for _ in 0..(rows / length).max(1) {
        pack.push(&[1], &[&vec![1; length]]);
    }
    pack
}

/// A forward pass, the head, and a backward pass that adds to the gradient; before them the teacher's pass of the same pack, if a
/// prompt is distilled.
pub fn micro_batch(
    learner: &mut CudaLearner,
    adapter: &Adapter,
    pack: &Pack,
    keep: Keep,
    distill: Option<DistillKl>,
) -> Result<()> {
    let weights = vec![1e-3; pack.pairs.len()];
    match distill {
        None => {
            learner.forward(Some(adapter), pack, keep)?;
            learner.head_backward(pack, 1.0, &weights, 0.0)?;
        }
        Some(DistillKl::Full) => {
            learner.teach(pack)?;
            learner.forward(Some(adapter), pack, keep)?;
            learner.distill_backward(pack, 1.0, &weights)?;
        }
        Some(DistillKl::Sampled) => {
            learner.forward(None, pack, Keep::Nothing)?;
            learner.token_stats(pack, 1.0)?;
            learner.forward(Some(adapter), pack, keep)?;
            learner.token_stats(pack, 1.0)?;
            learner.head_backward(pack, 1.0, &weights, 0.0)?;
        }
    }
    learner.backward(adapter, pack)
}
