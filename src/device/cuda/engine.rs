//! Rollouts on the GPU: prompts and rows of the scheduler, in memory that was laid out beforehand.
//!
//! The host reads the sampled tokens only every [`DECODE_STEPS`] steps. In between, a step is a list of launches,
//! captured once for each [`DecodeBatch`] and replayed: nothing waits for the host. The next steps are not issued
//! before the host has found the rows that have ended, because they would be computed for these rows too. So the device
//! waits only for the copy of the sampled tokens, about 140 bytes per row, and for the search for stop strings.

use super::decoder::CudaDecoder;
use super::memory::DeviceArena;
use super::slabs::{DecodeBatch, Slabs, Start};
use super::{Gpu, Shared, room};
use crate::device::memory::DECODE_STEPS;
use crate::model::lora::Adapter;
use crate::rollout::odd_logits::blame;
use crate::rollout::schedule::{self, Decode, DecodingRow};
use crate::rollout::{Completion, Engine, Prompt, RolloutRequest, RolloutWatch, Sampling};
use anyhow::{Context, Result, bail};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use std::collections::BTreeMap;

/// Decodes on a GPU, in the memory that it shares with training.
pub struct CudaEngine<'a> {
    shared: &'a Shared,
    /// Maximum number of completions decoded at the same time.
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
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
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
        let mut rollout = CudaRollout { gpu, decoder, sampling: request.sampling, arena: &mut arena, slabs, graphs };
        let completed = schedule::generate(&mut rollout, request, watch);
        drop(rollout);
        drop(arena);
        completed.map_err(|error| blame(error, adapter, |pack| self.shared.logits(None, pack)))
    }
}

/// One rollout.
struct CudaRollout<'a> {
    gpu: &'a Gpu,
    decoder: &'a CudaDecoder,
    sampling: &'a Sampling,
    arena: &'a mut DeviceArena,
    slabs: Slabs,
    graphs: BTreeMap<DecodeBatch, DecodeStep>,
}

impl Decode for CudaRollout<'_> {
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

    /// The first tokens are sampled with the next steps: the host does not wait for them.
    fn start(&mut self, _rows: &mut [DecodingRow]) -> Result<()> {
        Ok(())
    }

    fn decode(&mut self, rows: &mut [DecodingRow]) -> Result<()> {
        let Self { gpu, decoder, sampling, slabs, graphs, .. } = self;
        let starts: Vec<Start> = rows.iter().map(Start::from).collect();
        slabs.set(gpu, &starts)?;
        slabs.draw_first(gpu, decoder, sampling, &starts)?;
        let steps = slabs.steps(&starts);
        let batch = slabs.batch(&starts, steps);
        let step = graphs.entry(batch).or_insert(DecodeStep::New);
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

impl From<&DecodingRow> for Start {
    fn from(row: &DecodingRow) -> Self {
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

/// One step of decoding for a size of batch: the first time it is run directly, which chooses the algorithms of the
/// products, then captured, then replayed.
pub enum DecodeStep {
    New,
    Ready,
    Captured(CudaGraph),
}

impl DecodeStep {
    /// Issues a step of `batch`, which must be the same each time.
    pub fn run(
        &mut self,
        gpu: &Gpu,
        slabs: &Slabs,
        decoder: &CudaDecoder,
        sampling: &Sampling,
        batch: DecodeBatch,
    ) -> Result<()> {
        match self {
            DecodeStep::New => {
                slabs.step(gpu, decoder, sampling, batch)?;
                *self = DecodeStep::Ready;
            }
            DecodeStep::Ready => {
                gpu.stream()?.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
                let issued = slabs.step(gpu, decoder, sampling, batch);
                let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
                let graph = gpu.stream()?.end_capture(flags);
                // A failed launch also ends the capture, and is the error to report.
                issued?;
                let Some(graph) =
                    graph.map_err(|error| room::explain(error.into())).context("capture a decode step")?
                else {
                    bail!("the capture of a decode step is empty")
                };
                graph.launch()?;
                *self = DecodeStep::Captured(graph);
            }
            DecodeStep::Captured(graph) => graph.launch()?,
        }
        Ok(())
    }
}
