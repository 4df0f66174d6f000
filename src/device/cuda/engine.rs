//! The GPU's side of rollouts: prompts and rows of the scheduler, in memory that was laid out beforehand.
//!
//! The host reads what was drawn every [`DECODE_STEPS`] steps only. In between a step is a list of launches, captured once
//! for each [`Batch`] and replayed: nothing waits for the host. The next steps are not issued before the host has found
//! the rows that have ended, since those steps would be computed for them too; so the copy of what was drawn, some 140 bytes
//! a row, is all that the device waits for, beside the search for stop strings.

use super::decoder::Decoder;
use super::memory::DeviceArena;
use super::slabs::{Batch, Slabs, Start};
use super::{Gpu, Shared, room};
use crate::device::memory::DECODE_STEPS;
use crate::model::lora::Adapter;
use crate::rollout::schedule::{self, Decode, Row};
use crate::rollout::{Branch, Engine, Prompt, Request, Sampling, Watch};
use anyhow::{Context, Result, bail};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use std::collections::BTreeMap;

/// Decodes on a GPU, in the memory that it shares with training.
pub struct CudaEngine<'a> {
    shared: &'a Shared,
    /// Branches decoded at the same time, at most.
    max_rows: usize,
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
        if request.prompts.is_empty() || request.num_generations == 0 {
            // There is no memory to lay out.
            return Ok(Some(vec![Vec::new(); request.prompts.len()]));
        }
        let slabs = Slabs::new(gpu, &mut arena, decoder, adapter.is_some(), request, self.max_rows)?;
        let graphs = BTreeMap::new();
        let mut rollout = Rollout { gpu, decoder, sampling: request.sampling, arena: &mut arena, slabs, graphs };
        schedule::generate(&mut rollout, request, watch)
    }
}

/// One rollout.
struct Rollout<'a> {
    gpu: &'a Gpu,
    decoder: &'a Decoder,
    sampling: &'a Sampling,
    arena: &'a mut DeviceArena,
    slabs: Slabs,
    graphs: BTreeMap<Batch, Step>,
}

impl Decode for Rollout<'_> {
    fn max_rows(&self) -> usize {
        self.slabs.rows
    }

    fn max_prompts(&self) -> usize {
        self.slabs.prompt_slots
    }

    fn steps(&self) -> usize {
        DECODE_STEPS
    }

    fn prefill(&mut self, prompts: &[(usize, &Prompt)]) -> Result<()> {
        self.slabs.prefill(self.gpu, self.arena, self.decoder, prompts)
    }

    /// The first tokens are drawn with the next steps: the host does not wait for them.
    fn start(&mut self, _rows: &mut [Row]) -> Result<()> {
        Ok(())
    }

    fn decode(&mut self, rows: &mut [Row]) -> Result<()> {
        let Self { gpu, decoder, sampling, slabs, graphs, .. } = self;
        let starts: Vec<Start> = rows.iter().map(Start::from).collect();
        slabs.set(gpu, &starts)?;
        slabs.draw_first(gpu, decoder, sampling, &starts)?;
        let steps = slabs.steps(&starts);
        let batch = slabs.batch(&starts, steps);
        let step = graphs.entry(batch).or_insert(Step::New);
        for _ in 0..steps {
            step.run(gpu, slabs, decoder, sampling, batch)?;
        }
        let report = slabs.report(gpu, rows.len())?;
        for (i, row) in rows.iter_mut().enumerate() {
            report.tokens(i, row.tokens.len())?.for_each(|(token, logprob)| row.push(token, logprob));
        }
        Ok(())
    }
}

impl From<&Row> for Start {
    fn from(row: &Row) -> Self {
        Self {
            slot: row.slot,
            prompt_slot: row.prompt_slot,
            prompt_len: row.prompt_len,
            key: row.stream.key(),
            count: row.tokens.len(),
            last: row.tokens.last().copied().unwrap_or(0),
        }
    }
}

/// One step of decoding for a size of batch: run as it is the first time, which settles the algorithms of the products, then
/// captured, then replayed.
pub enum Step {
    New,
    Ready,
    Captured(CudaGraph),
}

impl Step {
    /// Issues a step of `batch`, which has to be the same each time.
    pub fn run(
        &mut self,
        gpu: &Gpu,
        slabs: &Slabs,
        decoder: &Decoder,
        sampling: &Sampling,
        batch: Batch,
    ) -> Result<()> {
        match self {
            Step::New => {
                slabs.step(gpu, decoder, sampling, batch)?;
                *self = Step::Ready;
            }
            Step::Ready => {
                gpu.stream()?.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
                let issued = slabs.step(gpu, decoder, sampling, batch);
                let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
                let graph = gpu.stream()?.end_capture(flags);
                // A launch that fails ends the capture too, and is the one to tell of.
                issued?;
                let Some(graph) =
                    graph.map_err(|error| room::explain(error.into())).context("capture a decode step")?
                else {
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
