//! Decoding at about a thousand tokens of context: the device time of a step, and the time that the host adds to it.

use super::{PerfBench, multiplied, time};
use crate::device::cuda::Shared;
use crate::device::cuda::engine::DecodeStep;
use crate::device::cuda::ops;
use crate::device::cuda::slabs::{Slabs, Start};
use crate::device::memory::DECODE_STEPS;
use crate::device::memory::layout::StridedRows;
use crate::device::memory::plan::cache_bytes_per_token;
use crate::rng::{Purpose, Stream};
use crate::rollout::{Prompt, RolloutRequest, Sampling};
use anyhow::Result;
use std::time::Instant;

const PROMPT: usize = 64;
/// Tokens of each completion before the first step. The steps are around a context of 1,024.
const BEFORE: usize = 928;
const CAPACITY: usize = 1_536;
/// How often the host reads the sampled tokens in a measurement.
const REPORTS: usize = 8;

pub fn measure(bench: &mut PerfBench, rows: usize) -> Result<()> {
    let Shared { gpu, decoder, arena, .. } = &bench.shared;
    bench.shared.make_current(&bench.adapter)?;
    let sampling = Sampling::plain(1.0);
    let group = 8.min(rows);
    let prompts: Vec<Prompt> =
        (0..rows.div_ceil(group) as u64).map(|key| Prompt { ids: vec![1; PROMPT], key }).collect();
    let request = RolloutRequest {
        prompts: &prompts,
        num_generations: group,
        sampling: &sampling,
        max_completion_length: CAPACITY,
        seed: 1,
        step: 1,
        ends: &|_| false,
        stop_tokens: &[],
    };
    let mut arena = arena.borrow_mut();
    let mut slabs = Slabs::new(gpu, &mut arena, decoder, true, &request, rows)?;
    let rows = slabs.rows;
    // Keys and values of tokens that were never decoded.
    for (index, buffer) in slabs.caches().enumerate() {
        let (stream, dim) = (Stream::new(1, Purpose::Test, &[index as u64]), decoder.config.head_dim);
        ops::fill_normal(gpu, StridedRows::plain(buffer, dim), buffer.len() / dim, dim, &stream, 0.0, 1.0)?;
    }
    let starts: Vec<Start> = (0..rows)
        .map(|row| Start {
            slot: row,
            prompt_slot: row / group % slabs.prompt_slots,
            prompt_len: PROMPT,
            key: Stream::new(1, Purpose::Sampling, &[row as u64]).key(),
            count: BEFORE,
            last: 1,
        })
        .collect();
    slabs.set(gpu, &starts)?;
    let mut step = DecodeStep::New;
    let batch = slabs.batch(&starts, REPORTS * DECODE_STEPS);
    for _ in 0..4 {
        step.run(gpu, &slabs, decoder, &sampling, batch)?;
    }
    let device_ms = time(gpu, 32, || step.run(gpu, &slabs, decoder, &sampling, batch))?;

    // As in the engine: steps, a report, and the rows set again.
    slabs.set(gpu, &starts)?;
    gpu.synchronize()?;
    let started = Instant::now();
    for _ in 0..REPORTS {
        for _ in 0..DECODE_STEPS {
            step.run(gpu, &slabs, decoder, &sampling, batch)?;
        }
        let report = slabs.report(gpu, rows)?;
        let starts: Vec<Start> =
            starts.iter().enumerate().map(|(i, start)| Start { count: report.count(i), ..*start }).collect();
        slabs.set(gpu, &starts)?;
    }
    gpu.synchronize()?;
    let wall_ms = started.elapsed().as_secs_f64() * 1e3 / (REPORTS * DECODE_STEPS) as f64;

    let config = &decoder.config;
    let read = multiplied(config) as f64;
    let context = (PROMPT + BEFORE + 32) as f64;
    let cache = rows as f64 * context * cache_bytes_per_token(config) as f64;
    let attention =
        4.0 * rows as f64 * context * (config.num_hidden_layers * config.num_attention_heads * config.head_dim) as f64;
    drop(arena);
    let mut line = bench.floors.line(
        &format!("decode, batch {rows}, context 1k"),
        wall_ms,
        2.0 * read + cache,
        2.0 * read * rows as f64 + attention,
    );
    line.tokens_per_second = Some(1e3 * rows as f64 / wall_ms);
    line.host_gap = Some(wall_ms - device_ms);
    bench.add(line);
    Ok(())
}
