//! Every operation by itself, at the widths of the model.

use super::{Bench, Line, time};
use crate::device::cuda::blas::Matrix;
use crate::device::cuda::lora::Scratch;
use crate::device::cuda::memory::{Arena, Buffer};
use crate::device::cuda::ops::{self as kernels, HeadStats, Logits};
use crate::device::cuda::pack::DevicePack;
use crate::device::cuda::{Gpu, Shared};
use crate::device::memory::LOGITS_ROWS;
use crate::device::memory::layout::{Cache, logits_stride};
use crate::model::pack::Pack;
use crate::rng::{Purpose, Stream};
use crate::rollout::Sampling;
use anyhow::{Context, Result};
use half::bf16;

/// Calls of an operation that are averaged.
const TIMES: usize = 10;
/// Length of the sequences of attention.
const LENGTH: usize = 1_024;

fn random(gpu: &Gpu, arena: &mut Arena, len: usize) -> Result<Buffer<bf16>> {
    let buffer = arena.take(len)?;
    kernels::fill_normal(gpu, buffer, &Stream::new(1, Purpose::Test, &[len as u64]), 0.0, 1.0)?;
    Ok(buffer)
}

/// Training's operations on `rows` rows, and the sampler on 256.
pub fn measure(bench: &mut Bench, rows: usize) -> Result<()> {
    let mut lines = on_rows(bench, rows)?;
    lines.extend(lora(bench, rows)?);
    lines.extend(on_logits(bench)?);
    lines.into_iter().for_each(|line| bench.add(line));
    Ok(())
}

fn on_rows(bench: &Bench, rows: usize) -> Result<Vec<Line>> {
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
    let (x, y, dx) = (
        random(gpu, &mut arena, values(hidden))?,
        arena.take(values(hidden))?,
        random(gpu, &mut arena, values(hidden))?,
    );
    let scales = arena.take(rows)?;
    let norm = block.input_norm;
    let ms = time(gpu, TIMES, || kernels::rms_norm(gpu, x, norm, y, scales, rows, hidden, eps))?;
    line("rms norm", ms, 4 * values(hidden), 0.0);
    let ms = time(gpu, TIMES, || kernels::rms_norm_backward(gpu, y, x, scales, norm, dx, rows, hidden))?;
    line("rms norm, backward", ms, 8 * values(hidden), 0.0);

    for (name, layer) in [("qkv", &block.qkv), ("o", &block.o), ("gate and up", &block.gate_up), ("down", &block.down)]
    {
        arena.clear();
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let (x, y) = (random(gpu, &mut arena, values(inputs))?, arena.take::<bf16>(values(outputs))?);
        let weight = Matrix::new(layer.weight, outputs, inputs);
        let (left, right) = (Matrix::new(x, rows, inputs), Matrix::new(y, rows, outputs));
        let bytes = 2 * (values(inputs + outputs) + inputs * outputs);
        let flops = 2.0 * values(inputs) as f64 * outputs as f64;
        line(
            &format!("product {name}"),
            time(gpu, TIMES, || gpu.blas.product(left, weight.t(), right, false))?,
            bytes,
            flops,
        );
        let accumulated = time(gpu, TIMES, || gpu.blas.product(left, weight.t(), right, true))?;
        line(&format!("product {name}, accumulated"), accumulated, bytes + 2 * values(outputs), flops);
        line(
            &format!("product {name}, backward"),
            time(gpu, TIMES, || gpu.blas.product(right, weight, left, false))?,
            bytes,
            flops,
        );
    }

    arena.clear();
    let (gate_up, y) = (random(gpu, &mut arena, values(2 * inner))?, random(gpu, &mut arena, values(inner))?);
    line("swiglu", time(gpu, TIMES, || kernels::swiglu(gpu, gate_up, y, rows, inner))?, 6 * values(inner), 0.0);
    let ms = time(gpu, TIMES, || kernels::swiglu_backward(gpu, y, gate_up, rows, inner))?;
    line("swiglu, backward", ms, 10 * values(inner), 0.0);

    arena.clear();
    let mut pack = Pack::default();
    for _ in 0..(rows / LENGTH).max(1) {
        pack.push(&[1], &[&vec![1; LENGTH]]);
    }
    let at = DevicePack::new(gpu, &mut arena, &pack, heads)?;
    let count = at.rows;
    let qkv = random(gpu, &mut arena, count * heads.qkv_width())?;
    let d_qkv = arena.take(qkv.len())?;
    let (out, lse) = (arena.take(count * heads.out_width())?, arena.take(count * heads.query)?);
    let d_out = random(gpu, &mut arena, out.len())?;
    let nowhere = Cache { keys: Buffer::NULL, values: Buffer::NULL, capacity: 0 };
    let (rope, bias, none) = (decoder.frozen.rope, block.qkv_bias, Buffer::NULL);
    let ms = time(gpu, TIMES, || {
        kernels::qkv_rope(gpu, d_qkv, bias, rope, at.positions, nowhere, none, none, count, heads)
    })?;
    line("bias and positions", ms, 4 * qkv.len(), 0.0);
    // A query sees half of its sequence on average; the backward does 2.5 times the forward's products at least.
    let flops = 4.0 * (count * heads.out_width()) as f64 * LENGTH as f64 / 2.0;
    let ms = time(gpu, TIMES, || kernels::branch_attention(gpu, qkv, out, lse, &at, heads))?;
    line("attention, length 1024", ms, 2 * (qkv.len() + out.len()), flops);
    let ms = time(gpu, TIMES, || {
        kernels::branch_attention_backward(gpu, &mut arena, qkv, out, lse, d_out, d_qkv, &at, heads)
    })?;
    line("attention, backward", ms, 2 * (2 * qkv.len() + 2 * out.len()), 2.5 * flops);
    Ok(lines)
}

fn lora(bench: &Bench, rows: usize) -> Result<Vec<Line>> {
    let Shared { gpu, adapter, arena, .. } = &bench.shared;
    let device = adapter.as_ref().context("memory for the adapter")?;
    device.make_current(gpu, &bench.adapter)?;
    device.grads.zero(gpu)?;
    let block = device.block(0);
    let mut arena = arena.borrow_mut();
    let mut lines = Vec::new();
    for (name, group) in [("qkv", block.qkv), ("o", block.o), ("gate and up", block.gate_up), ("down", block.down)] {
        arena.clear();
        let (inputs, outputs, all) = (rows * group.inputs, rows * group.outputs, group.low_width());
        let (x, y) = (random(gpu, &mut arena, inputs)?, random(gpu, &mut arena, outputs)?);
        let low = arena.take(rows * all)?;
        let ms = time(gpu, TIMES, || group.forward(gpu, &mut Scratch::Arena(&mut arena), x, rows, y, low, false))?;
        let rank = group.group.rank as f64;
        let flops = 2.0 * (inputs as f64 * all as f64 + outputs as f64 * rank);
        lines.push(bench.floors.line(&format!("LoRA {name}"), ms, 2.0 * (inputs + outputs) as f64, flops));
        let dx = arena.take(inputs)?;
        let ms = time(gpu, TIMES, || group.backward(gpu, &mut arena, x, low, y, rows, dx).map(|_| ()))?;
        let bytes = 2.0 * (2 * inputs + outputs) as f64;
        lines.push(bench.floors.line(&format!("LoRA {name}, backward"), ms, bytes, 2.0 * flops));
    }
    Ok(lines)
}

fn on_logits(bench: &Bench) -> Result<Vec<Line>> {
    let Shared { gpu, decoder, arena, .. } = &bench.shared;
    let (vocab, hidden) = (decoder.config.vocab_size, decoder.config.hidden_size);
    let stride = logits_stride(&decoder.config);
    let mut arena = arena.borrow_mut();
    arena.clear();
    let rows = LOGITS_ROWS;
    let x = random(gpu, &mut arena, rows * hidden)?;
    let buffer = arena.take::<f32>(rows * stride)?;
    let d_x = arena.take::<bf16>(rows * hidden)?;
    let weight = Matrix::new(decoder.frozen.head.weight, vocab, hidden);
    let mut lines = Vec::new();
    let mut line = |name: &str, milliseconds: f64, bytes: usize, flops: f64| {
        lines.push(bench.floors.line(name, milliseconds, bytes as f64, flops));
    };
    let logits = Matrix::new(buffer, rows, vocab).with_stride(stride);
    let product = || gpu.blas.product(Matrix::new(x, rows, hidden), weight.t(), logits, false);
    let flops = 2.0 * (rows * hidden) as f64 * vocab as f64;
    line("head, 1024 rows", time(gpu, TIMES, product)?, 2 * vocab * hidden + 4 * rows * vocab, flops);

    let at = Logits { buffer, rows, vocab, stride };
    let targets = arena.take(rows)?;
    targets.zero(gpu)?;
    let stats = HeadStats { logprob: arena.take(rows)?, entropy: arena.take(rows)?, lse: arena.take(rows)? };
    let ms = time(gpu, TIMES, || kernels::head_stats(gpu, at, targets, stats, 1.0))?;
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
        let ms = time(gpu, TIMES, || kernels::sample(gpu, some, keys, places, tokens, logprobs, sampling))?;
        line(name, ms, 4 * sampled * vocab, 0.0);
    }

    // The logits are overwritten by their gradient, so these come last.
    let derivatives = arena.take(rows)?;
    derivatives.zero(gpu)?;
    let ms = time(gpu, TIMES, || kernels::head_backward(gpu, at, targets, stats, derivatives, derivatives, 1.0))?;
    line("gradient of the logits", ms, 6 * rows * vocab, 0.0);
    let d_logits = Matrix::new(buffer.as_bf16(), rows, vocab).with_stride(2 * stride);
    let back = || gpu.blas.product(d_logits, weight, Matrix::new(d_x, rows, hidden), false);
    line("head, backward", time(gpu, TIMES, back)?, 2 * vocab * hidden + 2 * rows * vocab, flops);
    Ok(lines)
}
