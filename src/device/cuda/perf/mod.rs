//! The speed of the GPU, compared with the floors of the same device: its copy bandwidth and its product of large
//! matrices, measured first. Weights are random and have the real shapes; the timings do not depend on their values.

mod bench;
mod decode;
mod ops;
mod train;
pub mod tune;

use super::matrix::Matrix;
use super::memory::DeviceArena;
use super::weights::WeightOrigin;
use super::{Gpu, Shared, ops as kernels};
use crate::config::LoraSection;
use crate::device::Extent;
use crate::device::memory::layout::StridedRows;
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::rng::{Purpose, Stream};
use anyhow::Result;
use bench::{PerfBench, multiplied, time};
use half::bf16;
use serde::Serialize;
use std::rc::Rc;

pub use bench::{Floors, PerfLine};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Ops,
    Decode,
    Train,
    Step,
}

#[derive(Clone, Debug, Serialize)]
pub struct PerfReport {
    pub device: String,
    pub floors: Floors,
    pub lines: Vec<PerfLine>,
    /// Maximum bytes in use at a time: weights, and the arena of rollouts and training.
    pub weights: usize,
    pub peak: usize,
    /// The plan's estimate for the arena, if a whole step was measured.
    pub planned: Option<u64>,
}

/// Measures on GPU number `ordinal`, with LoRA of rank `rank` on all linear layers. `rows` are batch sizes of decoding,
/// or rows of the operations. Reports each measurement when it is done.
pub fn run(
    ordinal: usize,
    config: ModelConfig,
    rank: usize,
    what: Workload,
    rows: &[usize],
    tell: &mut dyn FnMut(&PerfLine),
) -> Result<PerfReport> {
    let gpu = Rc::new(Gpu::open(ordinal)?);
    let device = gpu.name.clone();
    let floors = floors(&gpu)?;
    let adapter = Adapter::new(&config, &LoraSection::all_linear(rank), 1)?;
    let extent = Extent { positions: 8_192, max_rows: 256, working_bytes: None, keep: None, taught: false };
    let shared = Shared::on(gpu, config, &WeightOrigin::Random(1), Some(&adapter), &extent)?;
    let mut bench = PerfBench { shared, adapter, floors, tell, lines: Vec::new(), planned: None };
    match what {
        Workload::Ops => ops::measure(&mut bench, rows.first().copied().unwrap_or(16_384))?,
        Workload::Decode => {
            for &rows in if rows.is_empty() { &[8, 64, 256] } else { rows } {
                decode::measure(&mut bench, rows)?;
            }
        }
        Workload::Train => train::sequences(&mut bench, rows.first().copied().unwrap_or(16_384))?,
        Workload::Step => train::step(&mut bench, rows.first().copied().unwrap_or(256))?,
    }
    let peak = bench.shared.arena.borrow().peak();
    let weights = bench.shared.decoder.frozen.bytes();
    Ok(PerfReport { device, floors, lines: bench.lines, weights, peak, planned: bench.planned })
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
    // Random values: with zeros the GPU would use less power and clock higher.
    for (index, matrix) in [a, b].into_iter().enumerate() {
        let stream = Stream::new(1, Purpose::Test, &[index as u64]);
        kernels::fill_normal(gpu, StridedRows::plain(matrix, SIDE), SIDE, SIDE, &stream, 0.0, 1.0)?;
    }
    let square = |buffer| Matrix::new(buffer, SIDE, SIDE);
    let product = time(gpu, 20, || gpu.blas.product(square(a), square(b).t(), square(c)))?;
    Ok(Floors {
        bytes_per_second: 2.0 * BYTES as f64 / copy * 1e3,
        flops_per_second: 2.0 * (SIDE as f64).powi(3) / product * 1e3,
    })
}
