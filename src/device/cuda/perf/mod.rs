//! How fast the GPU's side is, against the floors of the very device: its copy bandwidth and its product of large matrices,
//! measured first. Weights are random and of the true shape; nothing here depends on what they say.

mod decode;
mod ops;
mod train;
pub mod tune;

use super::blas::Matrix;
use super::memory::DeviceArena;
use super::weights::Origin;
use super::{Gpu, Shared, ops as kernels};
use crate::config::LoraSection;
use crate::device::Extent;
use crate::device::memory::layout::Rows;
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::rng::{Purpose, Stream};
use anyhow::Result;
use cudarc::driver::sys::CUevent_flags;
use half::bf16;
use serde::Serialize;
use std::rc::Rc;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Ops,
    Decode,
    Train,
    Step,
}

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

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub device: String,
    pub floors: Floors,
    pub lines: Vec<Line>,
    /// Most bytes in use at a time: weights, and the arena of rollouts and training.
    pub weights: usize,
    pub peak: usize,
    /// What the plan has for the arena, where a whole step was measured.
    pub planned: Option<u64>,
}

/// Weights that every token is multiplied with: all but an embedding that is not the head too. Norms and biases, which are
/// few, are counted along.
fn multiplied(config: &ModelConfig) -> usize {
    let embedding = config.vocab_size * config.hidden_size;
    config.parameters() - if config.tie_word_embeddings { 0 } else { embedding }
}

impl Floors {
    fn line(&self, name: &str, milliseconds: f64, bytes: f64, flops: f64) -> Line {
        let floor = 1e3 * (bytes / self.bytes_per_second).max(flops / self.flops_per_second);
        let share_of_floor = floor / milliseconds;
        Line { name: name.to_owned(), milliseconds, bytes, flops, floor, share_of_floor, ..Line::default() }
    }
}

/// The device, the model on it, and what was found so far.
struct Bench<'a> {
    shared: Shared,
    adapter: Adapter,
    floors: Floors,
    tell: &'a mut dyn FnMut(&Line),
    lines: Vec<Line>,
    planned: Option<u64>,
}

impl Bench<'_> {
    fn add(&mut self, line: Line) {
        (self.tell)(&line);
        self.lines.push(line);
    }
}

/// Measures on GPU number `ordinal`, with LoRA at rank `rank` on all linear layers. `rows` are batches of decoding, or rows of
/// the operations. Tells of each measurement as it is made.
pub fn run(
    ordinal: usize,
    config: ModelConfig,
    rank: usize,
    what: What,
    rows: &[usize],
    tell: &mut dyn FnMut(&Line),
) -> Result<Report> {
    let gpu = Rc::new(Gpu::open(ordinal)?);
    let device = gpu.name.clone();
    let floors = floors(&gpu)?;
    let adapter = Adapter::new(&config, &LoraSection::all_linear(rank), 1)?;
    let extent = Extent { positions: 8_192, max_rows: 256, working_bytes: None, keep: None };
    let shared = Shared::on(gpu, config, &Origin::Random(1), Some(&adapter), &extent)?;
    let mut bench = Bench { shared, adapter, floors, tell, lines: Vec::new(), planned: None };
    match what {
        What::Ops => ops::measure(&mut bench, rows.first().copied().unwrap_or(16_384))?,
        What::Decode => {
            for &rows in if rows.is_empty() { &[8, 64, 256] } else { rows } {
                decode::measure(&mut bench, rows)?;
            }
        }
        What::Train => train::sequences(&mut bench, rows.first().copied().unwrap_or(16_384))?,
        What::Step => train::step(&mut bench, rows.first().copied().unwrap_or(256))?,
    }
    let peak = bench.shared.arena.borrow().peak();
    let weights = bench.shared.decoder.frozen.bytes();
    Ok(Report { device, floors, lines: bench.lines, weights, peak, planned: bench.planned })
}

/// Milliseconds of the device for one call of `work`: the mean of `times` after one that does not count.
fn time(gpu: &Gpu, times: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let start = gpu.stream()?.record_event(timed)?;
    for _ in 0..times {
        work()?;
    }
    let end = gpu.stream()?.record_event(timed)?;
    Ok(f64::from(start.elapsed_ms(&end)?) / times as f64)
}

fn floors(gpu: &Gpu) -> Result<Floors> {
    const BYTES: usize = 2 << 30;
    const SIDE: usize = 8_192;
    let mut arena = DeviceArena::new(gpu, 2 * BYTES, "the measurement of the copy bandwidth")?;
    let (from, to) = (arena.take::<u8>(BYTES)?, arena.take::<u8>(BYTES)?);
    from.zero(gpu)?;
    let copy = time(gpu, 10, || to.copy_from(gpu, from))?;
    arena.clear();
    let [a, b, c] = [arena.take::<bf16>(SIDE * SIDE)?, arena.take(SIDE * SIDE)?, arena.take(SIDE * SIDE)?];
    // Random values: zeros would draw less power and clock higher.
    for (index, matrix) in [a, b].into_iter().enumerate() {
        let stream = Stream::new(1, Purpose::Test, &[index as u64]);
        kernels::fill_normal(gpu, Rows::plain(matrix, SIDE), SIDE, SIDE, &stream, 0.0, 1.0)?;
    }
    let square = |buffer| Matrix::new(buffer, SIDE, SIDE);
    let product = time(gpu, 20, || gpu.blas.product(square(a), square(b).t(), square(c)))?;
    Ok(Floors {
        bytes_per_second: 2.0 * BYTES as f64 / copy * 1e3,
        flops_per_second: 2.0 * (SIDE as f64).powi(3) / product * 1e3,
    })
}
