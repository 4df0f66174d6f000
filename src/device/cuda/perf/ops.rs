//! Each operation separately, at the widths of the model.

use super::{PerfBench, PerfLine, time};
use crate::device::cuda::logits::{self, HeadStats, Logits};
use crate::device::cuda::matrix::Matrix;
use crate::device::cuda::memory::{Arena, Buffer};
use crate::device::cuda::ops as kernels;
use crate::device::cuda::pack::DevicePack;
use crate::device::cuda::{Gpu, Shared};
use crate::device::memory::LOGITS_ROWS;
use crate::device::memory::layout::{Cache, StridedRows, logits_stride};
use crate::model::pack::Pack;
use crate::rng::{Purpose, Stream};
use crate::rollout::Sampling;
use anyhow::{Context, Result};
use half::bf16;

/// Number of calls of an operation that are averaged.
const TIMES: usize = 10;
/// Length of the sequences of attention.
const LENGTH: usize = 1_024;

/// Rows of normal values, without gaps.
fn random_rows(gpu: &Gpu, arena: &mut Arena, rows: usize, width: usize) -> Result<StridedRows> {
    lora_rows(gpu, arena, rows, width, 0)
}

/// Rows of normal values, each followed by an adapter's columns.
fn lora_rows(gpu: &Gpu, arena: &mut Arena, rows: usize, width: usize, columns: usize) -> Result<StridedRows> {
    let to = StridedRows::take(arena, rows, width, columns)?;
    let stream = Stream::new(1, Purpose::Test, &[(rows * width) as u64]);
    kernels::fill_normal(gpu, to, rows, width, &stream, 0.0, 1.0)?;
    Ok(to)
}

/// Training's operations on `rows` rows, and the sampler on 256.
pub fn measure(bench: &mut PerfBench, rows: usize) -> Result<()> {
    let mut lines = on_rows(bench, rows)?;
    lines.extend(lora(bench, rows)?);
    lines.extend(on_logits(bench)?);
    lines.into_iter().for_each(|line| bench.add(line));
    Ok(())
}

fn on_rows(bench: &PerfBench, rows: usize) -> Result<Vec<PerfLine>> {
    let Shared { gpu, decoder, arena, .. } = &bench.shared;
    let (config, heads, block) = (&decoder.config, decoder.heads(), &decoder.frozen.blocks[0]);
    let (hidden, inner, eps) = (config.hidden_size, config.intermediate_size, decoder.eps());
    let mut arena = arena.borrow_mut();
    let mut lines = Vec::new();
    let mut line = |name: &str, milliseconds: f64, bytes: usize, flops: f64| {
        lines.push(bench.floors.line(name, milliseconds, bytes as f64, flops));
    };
    let values = |width: usize| rows * width;

    arena.clear();
    let x = random_rows(gpu, &mut arena, rows, hidden)?.buffer;
    let (y, dx) = (StridedRows::take(&mut arena, rows, hidden, 0)?, random_rows(gpu, &mut arena, rows, hidden)?);
    let scales = arena.take(rows)?;
    let norm = block.input_norm;
    let ms = time(gpu, TIMES, || kernels::rms_norm(gpu, x, norm, y, scales, rows, hidden, eps))?;
    line("rms norm", ms, 4 * values(hidden), 0.0);
    let ms = time(gpu, TIMES, || kernels::rms_norm_backward(gpu, y.buffer, x, scales, norm, dx, rows, hidden))?;
    line("rms norm, backward", ms, 10 * values(hidden), 0.0);

    for (name, layer) in [("qkv", &block.qkv), ("o", &block.o), ("gate and up", &block.gate_up), ("down", &block.down)]
    {
        arena.clear();
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (x, y) = (random_rows(gpu, &mut arena, rows, inputs)?, StridedRows::take(&mut arena, rows, outputs, 0)?);
        let weight = layer.matrix(outputs, inputs);
        let (left, right) = (Matrix::of(x, rows, inputs), Matrix::of(y, rows, outputs));
        let bytes = 2 * (values(inputs + outputs) + inputs * outputs);
        let flops = 2.0 * values(inputs) as f64 * outputs as f64;
        line(
            &format!("product {name}"),
            time(gpu, TIMES, || layer.forward(gpu, false, x, rows, None, y))?,
            bytes,
            flops,
        );
        let accumulated = time(gpu, TIMES, || layer.forward(gpu, false, x, rows, Some(y.buffer), y))?;
        line(&format!("product {name}, accumulated"), accumulated, bytes + 2 * values(outputs), flops);
        line(
            &format!("product {name}, backward"),
            time(gpu, TIMES, || gpu.blas.product(right, weight, left))?,
            bytes,
            flops,
        );
    }

    arena.clear();
    let gate_up = random_rows(gpu, &mut arena, rows, 2 * inner)?;
    let y = random_rows(gpu, &mut arena, rows, inner)?;
    line("swiglu", time(gpu, TIMES, || kernels::swiglu(gpu, gate_up, y, rows, inner))?, 6 * values(inner), 0.0);
    let ms = time(gpu, TIMES, || kernels::swiglu_backward(gpu, y.buffer, gate_up, rows, inner))?;
    line("swiglu, backward", ms, 12 * values(inner), 0.0);

    arena.clear();
    let mut pack = Pack::default();
    for _ in 0..(rows / LENGTH).max(1) {
        pack.push(&[1], &[&vec![1; LENGTH]]);
    }
    let at = DevicePack::new(gpu, &mut arena, &pack, heads)?;
    let count = at.rows;
    let qkv = random_rows(gpu, &mut arena, count, heads.qkv_width())?.buffer;
    let d_qkv = StridedRows::take(&mut arena, count, heads.qkv_width(), 0)?;
    let (out, lse) = (StridedRows::take(&mut arena, count, heads.out_width(), 0)?, arena.take(count * heads.query)?);
    let d_out = random_rows(gpu, &mut arena, count, heads.out_width())?.buffer;
    let nowhere = Cache { keys: Buffer::NULL, values: Buffer::NULL, capacity: 0 };
    let (rope, bias, none) = (decoder.frozen.rope, block.qkv_bias, Buffer::NULL);
    let ms = time(gpu, TIMES, || {
        kernels::qkv_rope(gpu, d_qkv.buffer, bias, rope, at.positions, nowhere, none, none, count, heads)
    })?;
    line("bias and positions", ms, 4 * qkv.len(), 0.0);
    // A query sees half of its sequence on average; the backward does at least 2.5 times the forward's products.
    let flops = 4.0 * (count * heads.out_width()) as f64 * LENGTH as f64 / 2.0;
    let ms = time(gpu, TIMES, || kernels::branch_attention(gpu, qkv, out, lse, &at, heads))?;
    line("attention, length 1024", ms, 2 * (qkv.len() + d_out.len()), flops);
    let ms = time(gpu, TIMES, || {
        kernels::branch_attention_backward(gpu, &mut arena, qkv, out, lse, d_out, d_qkv, &at, heads)
    })?;
    line("attention, backward", ms, 2 * (2 * qkv.len() + 2 * d_out.len()), 2.5 * flops);
    Ok(lines)
}

fn lora(bench: &PerfBench, rows: usize) -> Result<Vec<PerfLine>> {
    let Shared { gpu, decoder, adapter, arena } = &bench.shared;
    let device = adapter.as_ref().context("memory for the adapter")?;
    bench.shared.make_current(&bench.adapter)?;
    device.grads.zero(gpu)?;
    let (block, lora) = (&decoder.frozen.blocks[0], &device.blocks[0]);
    let mut arena = arena.borrow_mut();
    let mut lines = Vec::new();
    for (name, layer, group) in [
        ("qkv", &block.qkv, &lora.qkv),
        ("o", &block.o, &lora.o),
        ("gate and up", &block.gate_up, &lora.gate_up),
        ("down", &block.down, &lora.down),
    ] {
        arena.clear();
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let x = lora_rows(gpu, &mut arena, rows, inputs, layer.lora)?;
        let y = lora_rows(gpu, &mut arena, rows, outputs, layer.lora)?;
        let (activations, weights) = (2 * rows * (inputs + outputs), 2 * layer.storage.len());
        // The minimum work: the products of the frozen layer, and those of the adapter.
        let (frozen, adapted) = (
            2.0 * (rows * inputs) as f64 * outputs as f64,
            2.0 * rows as f64 * (group.a.len() + group.parts.iter().map(|part| part.b.len()).sum::<usize>()) as f64,
        );
        let mut line = |what: &str, ms: f64, bytes: usize, flops: f64| {
            lines.push(bench.floors.line(&format!("{name} with LoRA{what}"), ms, bytes as f64, flops));
        };
        let ms = time(gpu, TIMES, || layer.forward(gpu, true, x, rows, None, y))?;
        line("", ms, activations + weights, frozen + adapted);
        let dx = arena.take(rows * inputs)?;
        let ms = time(gpu, TIMES, || layer.input_gradient(gpu, y, rows, dx))?;
        line(", backward", ms, activations + weights, frozen + adapted);
        let shrunk = Matrix::behind(x, rows, inputs, layer.lora);
        let ms = time(gpu, TIMES, || layer.lora_gradient(gpu, group, device.grads, x, shrunk, y, rows))?;
        line(", its gradient", ms, activations, adapted);
    }
    Ok(lines)
}

fn on_logits(bench: &PerfBench) -> Result<Vec<PerfLine>> {
    let Shared { gpu, decoder, arena, .. } = &bench.shared;
    let (vocab, hidden) = (decoder.config.vocab_size, decoder.config.hidden_size);
    let stride = logits_stride(&decoder.config);
    let mut arena = arena.borrow_mut();
    arena.clear();
    let rows = LOGITS_ROWS;
    let x = random_rows(gpu, &mut arena, rows, hidden)?.buffer;
    let buffer = arena.take::<f32>(rows * stride)?;
    let d_x = arena.take::<bf16>(rows * hidden)?;
    let weight = Matrix::new(decoder.frozen.head, vocab, hidden);
    let mut lines = Vec::new();
    let mut line = |name: &str, milliseconds: f64, bytes: usize, flops: f64| {
        lines.push(bench.floors.line(name, milliseconds, bytes as f64, flops));
    };
    let logits = Matrix::new(buffer, rows, vocab).with_stride(stride);
    let product = || gpu.blas.product(Matrix::new(x, rows, hidden), weight.t(), logits);
    let flops = 2.0 * (rows * hidden) as f64 * vocab as f64;
    line("head, 1024 rows", time(gpu, TIMES, product)?, 2 * vocab * hidden + 4 * rows * vocab, flops);

    let at = Logits { buffer, rows, vocab, stride };
    let targets = arena.take(rows)?;
    targets.zero(gpu)?;
    let stats = HeadStats { logprob: arena.take(rows)?, entropy: arena.take(rows)?, lse: arena.take(rows)? };
    let ms = time(gpu, TIMES, || logits::head_stats(gpu, at, targets, stats, 1.0))?;
    line("log-probabilities, 1024 rows", ms, 4 * rows * vocab, 0.0);

    let sampled = 256;
    let (keys, places) = (arena.take(2 * sampled)?, arena.take(sampled)?);
    let (tokens, logprobs) = (arena.take(sampled)?, arena.take(sampled)?);
    keys.zero(gpu)?;
    places.zero(gpu)?;
    let some = Logits { rows: sampled, ..at };
    let plain = Sampling::plain(1.0);
    let nucleus = Sampling { top_p: 0.95, ..plain.clone() };
    for (name, sampling) in [("sampler, 256 rows", &plain), ("sampler, 256 rows, top-p", &nucleus)] {
        let ms =
            time(gpu, TIMES, || logits::sample(gpu, some, keys, places, Buffer::NULL, tokens, logprobs, sampling))?;
        line(name, ms, 4 * sampled * vocab, 0.0);
    }

    // The logits are overwritten by their gradient, so these measurements come last.
    let derivatives = arena.take(rows)?;
    derivatives.zero(gpu)?;
    let ms = time(gpu, TIMES, || logits::head_backward(gpu, at, targets, stats, derivatives, derivatives, 1.0))?;
    line("gradient of the logits", ms, 6 * rows * vocab, 0.0);
    let d_logits = Matrix::new(buffer.as_bf16(), rows, vocab).with_stride(2 * stride);
    let back = || gpu.blas.product(d_logits, weight, Matrix::new(d_x, rows, hidden));
    line("head, backward", time(gpu, TIMES, back)?, 2 * vocab * hidden + 2 * rows * vocab, flops);
    Ok(lines)
}
