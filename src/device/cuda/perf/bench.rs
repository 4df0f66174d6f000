//! What is measured on, and what a measurement is.

use crate::device::cuda::{Gpu, Shared};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use anyhow::Result;
use cudarc::driver::sys::CUevent_flags;
use serde::Serialize;

/// What a device can do at best.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floors {
    /// Bytes read and written in a second by a large copy.
    pub bytes_per_second: f64,
    /// Operations in a second of a large bf16 product with f32 sums.
    pub flops_per_second: f64,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    pub name: String,
    pub milliseconds: f64,
    /// Bytes that have to be moved, and operations that have to be done, whoever does them.
    pub bytes: f64,
    pub flops: f64,
    /// Milliseconds below which nothing of this kind can be done on the device, and its share of the time.
    pub floor: f64,
    pub share_of_floor: f64,
    /// Where tokens go through: how many in a second.
    pub tokens_per_second: Option<f64>,
    /// Wall time less the device's, in milliseconds, where it was measured.
    pub host_gap: Option<f64>,
    pub note: String,
}

/// Weights that every token is multiplied with: all but an embedding that is not the head too. Norms and biases, which are
/// few, are counted along.
pub fn multiplied(config: &ModelConfig) -> usize {
    let embedding = config.vocab_size * config.hidden_size;
    config.parameters() - if config.tie_word_embeddings { 0 } else { embedding }
}

impl Floors {
    pub fn line(&self, name: &str, milliseconds: f64, bytes: f64, flops: f64) -> Line {
        let floor = 1e3 * (bytes / self.bytes_per_second).max(flops / self.flops_per_second);
        let share_of_floor = floor / milliseconds;
        Line { name: name.to_owned(), milliseconds, bytes, flops, floor, share_of_floor, ..Line::default() }
    }
}

/// The device, the model on it, and what was found so far.
pub struct Bench<'a> {
    pub shared: Shared,
    pub adapter: Adapter,
    pub floors: Floors,
    pub tell: &'a mut dyn FnMut(&Line),
    pub lines: Vec<Line>,
    pub planned: Option<u64>,
}

impl Bench<'_> {
    pub fn add(&mut self, line: Line) {
        (self.tell)(&line);
        self.lines.push(line);
    }
}

/// Milliseconds of the device for one call of `work`: the mean of `times` after one that does not count.
pub fn time(gpu: &Gpu, times: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let start = gpu.stream()?.record_event(timed)?;
    for _ in 0..times {
        work()?;
    }
    let end = gpu.stream()?.record_event(timed)?;
    Ok(f64::from(start.elapsed_ms(&end)?) / times as f64)
}
