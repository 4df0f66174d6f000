//! The setup of a measurement, and its result.

use crate::device::cuda::{Gpu, Shared};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use anyhow::Result;
use cudarc::driver::sys::CUevent_flags;
use serde::Serialize;

/// The maximum speed of a device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floors {
    /// Bytes read and written per second by a large copy.
    pub bytes_per_second: f64,
    /// Operations per second of a large bf16 product with f32 sums.
    pub flops_per_second: f64,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PerfLine {
    pub name: String,
    pub milliseconds: f64,
    /// Minimum number of bytes moved and of operations, for any implementation.
    pub bytes: f64,
    pub flops: f64,
    /// The minimum time on the device in milliseconds, and its share of the measured time.
    pub floor: f64,
    pub share_of_floor: f64,
    /// Tokens per second, if tokens are processed.
    pub tokens_per_second: Option<f64>,
    /// Wall time minus the device's time, in milliseconds, if it was measured.
    pub host_gap: Option<f64>,
    pub note: String,
}

/// Weights that every token is multiplied with: all except an embedding that is not also the head. Norms and biases,
/// which are few, are included.
pub fn multiplied(config: &ModelConfig) -> usize {
    let embedding = config.vocab_size * config.hidden_size;
    config.parameters() - if config.tie_word_embeddings { 0 } else { embedding }
}

impl Floors {
    pub fn line(&self, name: &str, milliseconds: f64, bytes: f64, flops: f64) -> PerfLine {
        let floor = 1e3 * (bytes / self.bytes_per_second).max(flops / self.flops_per_second);
        let share_of_floor = floor / milliseconds;
        PerfLine { name: name.to_owned(), milliseconds, bytes, flops, floor, share_of_floor, ..PerfLine::default() }
    }
}

/// The device, the model on it, and the results so far.
pub struct PerfBench<'a> {
    pub shared: Shared,
    pub adapter: Adapter,
    pub floors: Floors,
    pub tell: &'a mut dyn FnMut(&PerfLine),
    pub lines: Vec<PerfLine>,
    pub planned: Option<u64>,
}

impl PerfBench<'_> {
    pub fn add(&mut self, line: PerfLine) {
        (self.tell)(&line);
        self.lines.push(line);
    }
}

/// Device time of one call of `work` in milliseconds: the mean of `times` calls after a warm-up call.
pub fn time(gpu: &Gpu, times: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let start = gpu.stream.record_event(timed)?;
    for _ in 0..times {
        work()?;
    }
    let end = gpu.stream.record_event(timed)?;
    Ok(f64::from(start.elapsed_ms(&end)?) / times as f64)
}
