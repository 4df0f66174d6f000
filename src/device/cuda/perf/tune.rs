//! Finds the fastest of cuBLASLt's algorithms for the products of a model.
//!
//! The products are not listed here: decoding steps and training passes are run, and the products that they use are
//! measured.

use crate::config::LoraSection;
use crate::device::Extent;
use crate::device::cuda::blas::Tuned;
use crate::device::cuda::choices::AlgorithmChoices;
use crate::device::cuda::engine::CudaEngine;
use crate::device::cuda::learner::CudaLearner;
use crate::device::cuda::weights::WeightOrigin;
use crate::device::cuda::{Gpu, Shared, ops};
use crate::device::memory::DECODE_STEPS;
use crate::device::memory::layout::StridedRows;
use crate::grpo::learner::{Keep, Learner, OutOfMemory};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::rng::{Purpose, Stream};
use crate::rollout::{Engine, Prompt, RolloutRequest, Sampling, Unwatched};
use anyhow::Result;
use half::bf16;
use std::path::PathBuf;
use std::rc::Rc;

/// Default maximum of completions that are decoded together, and default maximum of rows of a micro-batch.
const BATCH: usize = 256;
const ROWS: usize = 16_384;
/// Completions per prompt.
const GROUP: usize = 8;
/// Bytes written before each measurement: more than any cache can hold, as the weights of other layers would be.
const CACHE: usize = 256 << 20;

/// Measures on GPU number `ordinal` with LoRA of rank `rank` on all linear layers, for batches and micro-batches of
/// `rows` rows, or of all sizes. Reports each product, and returns the file from which later runs read the choices.
pub fn run(
    ordinal: usize,
    config: ModelConfig,
    rank: usize,
    rows: &[usize],
    tell: &mut dyn FnMut(&Tuned),
) -> Result<PathBuf> {
    let gpu = Rc::new(Gpu::open(ordinal)?);
    // Earlier choices are ignored.
    let fresh = || AlgorithmChoices::new(gpu.blas.setup());
    gpu.blas.set_choices(fresh());
    let adapter = Adapter::new(&config, &LoraSection::all_linear(rank), 1)?;
    let (keep, max_rows) = (Some(Keep::Inputs), BATCH);
    let extent = Extent { positions: 1_024, max_rows, working_bytes: None, keep, taught: false };
    let shared = Shared::on(gpu.clone(), config, &WeightOrigin::Random(1), Some(&adapter), &extent)?;
    let (batches, passes) = match rows {
        [] => (sizes(1, BATCH), sizes(64, ROWS)),
        rows => (rows.iter().copied().filter(|&it| it <= BATCH).collect(), rows.to_vec()),
    };
    for rows in batches {
        decode(&shared, &adapter, rows)?;
    }
    for rows in passes {
        match pass(&shared, &adapter, rows) {
            // A run will not have micro-batches of this size either.
            Err(error) if error.is::<OutOfMemory>() => break,
            done => done?,
        }
    }

    let shapes = gpu.blas.shapes();
    gpu.blas.set_choices(fresh());
    let mut arena = shared.arena.borrow_mut();
    for shape in shapes {
        arena.clear();
        let [a, b, c] = shape.reach();
        let (first, second, out) = (arena.take::<bf16>(a)?, arena.take::<bf16>(b)?, arena.take::<f32>(c)?);
        for (index, operand) in [first, second].into_iter().enumerate() {
            let stream = Stream::new(1, Purpose::Test, &[index as u64]);
            ops::fill_normal(&gpu, StridedRows::plain(operand, operand.len()), 1, operand.len(), &stream, 0.0, 1.0)?;
        }
        out.zero(&gpu)?;
        let cache = arena.take::<u8>(CACHE)?;
        tell(&gpu.blas.tune(shape, (first, second, out), &|| cache.zero(&gpu))?);
    }
    gpu.blas.save_as_tuned()
}

/// The sizes from `from` to `to` for which algorithms are chosen: 2ⁱ and 3 · 2ⁱ.
fn sizes(from: usize, to: usize) -> Vec<usize> {
    let powers = (0..to.ilog2() + 1).flat_map(|i| [1 << i, 3 << i >> 1]);
    let mut sizes: Vec<usize> = powers.filter(|size| (from..=to).contains(size)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Some steps of decoding `rows` completions together, after their prefill.
fn decode(shared: &Shared, adapter: &Adapter, rows: usize) -> Result<()> {
    let prompts: Vec<Prompt> =
        (0..rows.div_ceil(GROUP) as u64).map(|key| Prompt { ids: vec![1; GROUP.min(rows)], key }).collect();
    let request = RolloutRequest {
        prompts: &prompts,
        num_generations: GROUP.min(rows),
        sampling: &Sampling::plain(1.0),
        max_completion_length: DECODE_STEPS,
        seed: 1,
        step: 1,
        ends: &|_| false,
        stop_tokens: &[],
    };
    CudaEngine::new(shared, rows).generate(Some(adapter), &request, &mut Unwatched)?;
    Ok(())
}

/// A pass of training over `rows` rows, with the adapter and without.
fn pass(shared: &Shared, adapter: &Adapter, rows: usize) -> Result<()> {
    let mut pack = Pack::default();
    // Sequences of at most 1,024 rows: the prompt's token, and all but the last of its completion.
    let mut left = rows;
    while left > 0 {
        let length = left.min(1_024);
        pack.push(&[1], &[&vec![1; length]]);
        left -= length;
    }
    let mut learner = CudaLearner::new(shared);
    learner.begin(adapter)?;
    for with in [None, Some(adapter)] {
        learner.forward(with, &pack, Keep::Inputs)?;
        learner.token_stats(&pack, 1.0)?;
    }
    learner.head_backward(&pack, 1.0, &vec![1e-3; pack.pairs.len()], 0.0)?;
    learner.backward(adapter, &pack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_for_which_algorithms_are_chosen() {
        assert_eq!(sizes(1, 16), [1, 2, 3, 4, 6, 8, 12, 16]);
        assert_eq!(sizes(64, 256), [64, 96, 128, 192, 256]);
    }
}
