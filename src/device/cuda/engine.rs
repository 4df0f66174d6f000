//! Rollouts on the device: a prompt is prefilled once, its branches are decoded together, and a freed row is refilled.
//!
//! The host looks at the rows every [`POLL`] steps only. Between two looks a step is a list of launches on memory that was
//! laid out beforehand, captured once for each size of batch and replayed: nothing waits for the host.

use super::decoder::Decoder;
use super::slabs::{Slabs, Start};
use super::{Gpu, Shared};
use crate::model::lora::Adapter;
use crate::rng::{Purpose, Stream};
use crate::rollout::{Branch, Engine, Finish, Request, Sampling, Watch};
use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use rayon::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// Steps between two looks at the rows. A row that ends right after a look stays idle for the others.
pub const POLL: usize = 16;

/// Decodes on a GPU, in the memory that it shares with training.
pub struct CudaEngine<'a> {
    shared: &'a Shared,
    /// Branches decoded at the same time, at most.
    max_rows: usize,
}

/// A branch that is being decoded.
struct Row {
    prompt: usize,
    branch: usize,
    prompt_slot: usize,
    slot: usize,
    stream: Stream,
    /// Tokens known to the host.
    tokens: Vec<u32>,
    /// How many of them were looked at for an end.
    checked: usize,
}

impl<'a> CudaEngine<'a> {
    pub fn new(shared: &'a Shared, max_rows: usize) -> Self {
        Self { shared, max_rows }
    }
}

impl Engine for CudaEngine<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &Request,
        watch: &mut dyn Watch,
    ) -> Result<Option<Vec<Vec<Branch>>>> {
        let Shared { gpu, decoder, arena, .. } = self.shared;
        if let Some(adapter) = adapter {
            self.shared.make_current(adapter)?;
        }
        let mut arena = arena.borrow_mut();
        arena.clear();
        let prompts = request.prompts;
        if prompts.is_empty() || request.num_generations == 0 {
            return Ok(Some(prompts.iter().map(|_| Vec::new()).collect()));
        }
        ensure!(prompts.iter().all(|prompt| !prompt.ids.is_empty()), "a prompt rendered to no tokens");
        let slabs = Slabs::new(gpu, &mut arena, decoder, adapter.is_some(), request, self.max_rows)?;
        let mut graphs: BTreeMap<usize, Step> = BTreeMap::new();

        let group = request.num_generations;
        let mut results: Vec<Vec<Option<Branch>>> =
            prompts.iter().map(|_| (0..group).map(|_| None).collect()).collect();
        let mut waiting: VecDeque<(usize, usize)> =
            (0..prompts.len()).flat_map(|p| (0..group).map(move |b| (p, b))).collect();
        let mut unfinished = vec![group; prompts.len()];
        let mut prompt_slots: Vec<Option<usize>> = vec![None; prompts.len()];
        let mut free_prompts: Vec<usize> = (0..slabs.prompt_slots).rev().collect();
        let mut free: Vec<usize> = (0..slabs.rows).rev().collect();
        let mut rows: Vec<Row> = Vec::new();

        loop {
            if watch.cancelled() {
                gpu.synchronize()?;
                return Ok(None);
            }
            // Refill: the branches that start now, and the prompts that none has needed before.
            let (mut starting, mut missing) = (Vec::new(), Vec::new());
            while let (Some(&(prompt, branch)), Some(&slot)) = (waiting.front(), free.last()) {
                let prompt_slot = match prompt_slots[prompt] {
                    Some(slot) => slot,
                    None => {
                        let Some(slot) = free_prompts.pop() else { break };
                        prompt_slots[prompt] = Some(slot);
                        missing.push((prompt, slot));
                        slot
                    }
                };
                waiting.pop_front();
                free.pop();
                let path = [request.step, prompts[prompt].key, branch as u64];
                let stream = Stream::new(request.seed, Purpose::Sampling, &path);
                starting.push(Row { prompt, branch, prompt_slot, slot, stream, tokens: Vec::new(), checked: 0 });
            }
            slabs.prefill(gpu, &mut arena, decoder, prompts, &missing)?;
            rows.extend(starting);
            ensure!(!rows.is_empty(), "no row can start");

            // Steps, without a look in between. A branch that starts draws its first token from its prompt's last row.
            let starts = rows.iter().map(|row| Start {
                slot: row.slot,
                prompt_slot: row.prompt_slot,
                prompt_len: prompts[row.prompt].ids.len(),
                key: row.stream.key(),
                count: row.tokens.len(),
                last: row.tokens.last().copied().unwrap_or(0),
            });
            let starts: Vec<Start> = starts.collect();
            slabs.set(gpu, &starts)?;
            slabs.draw_first(gpu, decoder, request.sampling, &starts)?;
            let bucket = slabs.bucket(rows.len());
            let step = graphs.entry(bucket).or_insert(Step::New);
            for _ in 0..POLL {
                step.run(gpu, &slabs, decoder, request.sampling, bucket)?;
            }

            // The look: what has been drawn, and what has ended.
            let seen = slabs.look(gpu, rows.len())?;
            for (row, &count) in rows.iter_mut().zip(&seen.counts) {
                let from = row.tokens.len();
                row.tokens.extend_from_slice(seen.tokens(row.slot, from..count));
                for &token in &row.tokens[from..] {
                    watch.token(row.prompt, row.branch, token);
                }
            }
            // The device stands still meanwhile, and looking for a stop string means decoding text: all cores do it.
            let ends: Vec<Option<Finish>> = rows.par_iter_mut().map(|row| finished(row, request)).collect();
            for (i, finish) in ends.into_iter().enumerate().rev() {
                let Some(finish) = finish else { continue };
                let row = rows.swap_remove(i);
                let logprobs = slabs.logprobs(gpu, row.slot, row.tokens.len())?;
                free.push(row.slot);
                unfinished[row.prompt] -= 1;
                results[row.prompt][row.branch] = Some(Branch { tokens: row.tokens, logprobs, finish });
                if unfinished[row.prompt] == 0 {
                    free_prompts.extend(prompt_slots[row.prompt].take());
                    let group: Vec<Branch> = results[row.prompt].iter().flatten().cloned().collect();
                    watch.group(row.prompt, &group);
                }
            }
            if rows.is_empty() && waiting.is_empty() {
                break;
            }
        }
        let branches =
            results.into_iter().map(|group| group.into_iter().map(|b| b.expect("every branch ended")).collect());
        Ok(Some(branches.collect()))
    }
}

/// Why the row ended, if it did. What was drawn after its end is cut off.
fn finished(row: &mut Row, request: &Request) -> Option<Finish> {
    for len in row.checked + 1..=row.tokens.len() {
        let last = row.tokens[len - 1];
        let finish = if request.stop_tokens.contains(&last) {
            Finish::Token(last)
        } else if (request.ends)(&row.tokens[..len]) {
            Finish::String
        } else if len >= request.max_completion_length {
            Finish::Length
        } else {
            continue;
        };
        row.tokens.truncate(len);
        return Some(finish);
    }
    row.checked = row.tokens.len();
    None
}

/// One step of decoding for a size of batch: run as it is the first time, which settles the algorithms of the products, then
/// captured, then replayed.
pub enum Step {
    New,
    Ready,
    Captured(CudaGraph),
}

impl Step {
    /// Issues a step of `rows` rows, which has to be the same number each time.
    pub fn run(&mut self, gpu: &Gpu, slabs: &Slabs, decoder: &Decoder, sampling: &Sampling, rows: usize) -> Result<()> {
        match self {
            Step::New => {
                slabs.step(gpu, decoder, sampling, rows)?;
                *self = Step::Ready;
            }
            Step::Ready => {
                gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
                let issued = slabs.step(gpu, decoder, sampling, rows);
                let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
                let graph = gpu.stream.end_capture(flags);
                // A launch that fails ends the capture too, and is the one to tell of.
                issued?;
                let Some(graph) = graph.context("capture a decode step")? else {
                    bail!("a decode step was captured as nothing")
                };
                graph.launch()?;
                *self = Step::Captured(graph);
            }
            Step::Captured(graph) => graph.launch()?,
        }
        Ok(())
    }
}
