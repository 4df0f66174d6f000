//! Rollouts on the CPU: prompts and rows of the scheduler, with their keys and values.

use crate::device::cpu::decoder::CpuDecoder;
use crate::device::memory::cpu::PREFILL_TOKENS;
use crate::grpo::learner::Keep;
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::ops::attention::{self, KvSpan, Part};
use crate::rollout::odd_logits::blame;
use crate::rollout::sampler::sample;
use crate::rollout::schedule::{self, Decode, DecodingRow};
use crate::rollout::{Completion, Engine, Prompt, RolloutRequest, RolloutWatch, Sampling};
use anyhow::Result;
use rayon::prelude::*;

/// Decodes with a model in this process, with the adapter applied unmerged.
pub struct CpuEngine<'a> {
    pub decoder: &'a CpuDecoder,
    /// Completions decoded at the same time.
    pub max_rows: usize,
}

impl Engine for CpuEngine<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
        let mut rollout = CpuRollout {
            decoder: self.decoder,
            adapter,
            sampling: request.sampling,
            max_rows: self.max_rows,
            // A completion rarely uses all of a large maximum, and a span grows when necessary.
            capacity: request.max_completion_length.min(256),
            prompts: request.prompts.iter().map(|_| None).collect(),
            caches: Vec::new(),
        };
        schedule::generate(&mut rollout, request, watch).map_err(|error| {
            let base =
                |pack: &Pack| self.decoder.head().logits(&self.decoder.forward(None, pack, Keep::Nothing).hidden);
            blame(error, adapter, |pack| Ok(base(pack)))
        })
    }
}

/// Weights up to this size stay in the caches, and then each thread computes some rows of a step; larger ones are read
/// from memory once for all rows, and each thread computes some columns.
const CACHED_WEIGHT_BYTES: usize = 16 << 20;
/// Maximum rows per thread at a time: enough for full tiles of the products, and few enough to distribute evenly.
const ROWS_PER_TASK: usize = 32;

/// One rollout: the data of the slots.
struct CpuRollout<'a> {
    decoder: &'a CpuDecoder,
    adapter: Option<&'a Adapter>,
    sampling: &'a Sampling,
    max_rows: usize,
    /// Initial capacity of a row's cache, in tokens.
    capacity: usize,
    /// By slot.
    prompts: Vec<Option<Prefix>>,
    /// Keys and values of the rows' own tokens by slot, for the slots that have been used: a span per block.
    caches: Vec<Vec<KvSpan>>,
}

/// A prefilled prompt.
struct Prefix {
    /// Keys and values, a span per block.
    cache: Vec<KvSpan>,
    /// Logits of the first token of every completion: (vocabulary)
    logits: Vec<f32>,
}

impl Decode for CpuRollout<'_> {
    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn max_prompts(&self) -> usize {
        self.prompts.len()
    }

    fn steps(&self) -> usize {
        1
    }

    fn prefill(&mut self, prompts: &[(usize, &Prompt)]) -> Result<()> {
        let mut rest = prompts;
        while !rest.is_empty() {
            let mut total = 0;
            let mut fits = |(_, prompt): &(usize, &Prompt)| {
                total += prompt.ids.len();
                total <= PREFILL_TOKENS
            };
            let count = rest.iter().take_while(|it| fits(it)).count().max(1);
            let (batch, later) = rest.split_at(count);
            self.prefill_batch(batch);
            rest = later;
        }
        Ok(())
    }

    fn start(&mut self, rows: &mut [DecodingRow]) -> Result<()> {
        for row in rows {
            while self.caches.len() <= row.slot {
                let heads = self.decoder.heads();
                let blocks = 0..self.decoder.config.num_hidden_layers;
                self.caches.push(blocks.map(|_| KvSpan::new(heads, self.capacity)).collect());
            }
            self.caches[row.slot].iter_mut().for_each(KvSpan::clear);
            draw(row, &prefix(&self.prompts, row).logits, self.sampling);
        }
        Ok(())
    }

    fn decode(&mut self, rows: &mut [DecodingRow]) -> Result<()> {
        let Self { decoder, adapter, sampling, prompts, caches, .. } = self;
        let chunk = if decoder.weight_bytes() <= CACHED_WEIGHT_BYTES {
            rows.len().div_ceil(rayon::current_num_threads()).clamp(1, ROWS_PER_TASK)
        } else {
            rows.len()
        };
        let mut caches: Vec<Option<&mut Vec<KvSpan>>> = caches.iter_mut().map(Some).collect();
        let mut cache = |slot: usize| caches[slot].take().expect("no two rows have the same slot");
        let mut rows: Vec<_> = rows.iter_mut().map(|row| (cache(row.slot), row)).collect();
        rows.par_chunks_mut(chunk).for_each(|rows| decode(decoder, *adapter, sampling, prompts, rows));
        Ok(())
    }
}

impl CpuRollout<'_> {
    /// Runs packed prompts, and keeps their keys, values and last logits.
    fn prefill_batch(&mut self, batch: &[(usize, &Prompt)]) {
        let (mut tokens, mut positions, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for (_, Prompt { ids, .. }) in batch {
            let start = tokens.len();
            tokens.extend_from_slice(ids);
            positions.extend(0..ids.len() as u32);
            parts.push(Part { prompt: start..tokens.len(), branches: Vec::new() });
        }
        let heads = self.decoder.heads();
        let mut caches: Vec<Vec<KvSpan>> = batch.iter().map(|_| Vec::new()).collect();
        let hidden = self.decoder.infer(self.adapter, &tokens, &positions, |_, qkv| {
            for (cache, part) in caches.iter_mut().zip(&parts) {
                let mut span = KvSpan::new(heads, part.prompt.len());
                span.extend(&qkv[part.prompt.start * heads.qkv_width()..part.prompt.end * heads.qkv_width()]);
                cache.push(span);
            }
            attention::forward(heads, qkv, &parts).0
        });
        let (head, width) = (self.decoder.head(), self.decoder.config.hidden_size);
        let last_rows: Vec<f32> = parts
            .iter()
            .flat_map(|part| &hidden[(part.prompt.end - 1) * width..part.prompt.end * width])
            .copied()
            .collect();
        let logits = head.logits(&last_rows);
        for ((&(slot, _), cache), logits) in batch.iter().zip(caches).zip(logits.chunks_exact(head.vocab)) {
            self.prompts[slot] = Some(Prefix { cache, logits: logits.to_vec() });
        }
    }
}

fn prefix<'a>(prompts: &'a [Option<Prefix>], row: &DecodingRow) -> &'a Prefix {
    prompts[row.prompt_slot].as_ref().expect("a row's prompt is prefilled before it starts")
}

fn draw(row: &mut DecodingRow, logits: &[f32], sampling: &Sampling) {
    let (token, logprob) = sample(logits, sampling, &row.stream, row.tokens.len() as u64);
    row.push(token, logprob);
}

/// Samples the next token of every row, each with its cache.
fn decode(
    decoder: &CpuDecoder,
    adapter: Option<&Adapter>,
    sampling: &Sampling,
    prompts: &[Option<Prefix>],
    rows: &mut [(&mut Vec<KvSpan>, &mut DecodingRow)],
) {
    let tokens: Vec<u32> = rows.iter().map(|(_, row)| row.tokens[row.tokens.len() - 1]).collect();
    let positions: Vec<u32> = rows.iter().map(|(_, row)| (row.prompt_len + row.tokens.len() - 1) as u32).collect();
    let hidden = decoder.infer(adapter, &tokens, &positions, |block, qkv| {
        let of_prompts: Vec<&KvSpan> = rows.iter().map(|(_, row)| &prefix(prompts, row).cache[block]).collect();
        let mut own: Vec<&mut KvSpan> = rows.iter_mut().map(|(cache, _)| &mut cache[block]).collect();
        attention::decode(decoder.heads(), qkv, &of_prompts, &mut own)
    });
    let head = decoder.head();
    let logits = head.logits(&hidden);
    rows.par_iter_mut().zip(logits.par_chunks(head.vocab)).for_each(|((_, row), logits)| draw(row, logits, sampling));
}
