//! LoRA on a group of layers that read the same input, by the kernels of lora_*.cu. Layouts: lora.cuh.

use super::Gpu;
use super::adapter::DeviceAdapter;
use super::launch::{Argument, Shape, launch};
use super::memory::{Arena, Buffer};
use crate::device::memory::lora::{
    COLUMNS, Cut, GroupShape, NARROW, Parts, ROWS, STRIP, gradient_cut, shrink_columns, tiles,
};
use anyhow::Result;
use half::bf16;
use std::ops::Deref;

const THREADS: usize = 256;

/// A group with its place in the adapter.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    pub shape: GroupShape<'a>,
    pub adapter: &'a DeviceAdapter,
}

impl<'a> Deref for Group<'a> {
    type Target = GroupShape<'a>;

    fn deref(&self) -> &GroupShape<'a> {
        &self.shape
    }
}

impl Group<'_> {
    fn a(&self) -> Buffer<bf16> {
        self.adapter.compute.slice(self.group.a.clone())
    }

    /// Whether every column of the output is adapted.
    pub fn covers(&self) -> bool {
        self.group.parts.iter().map(|part| part.columns.len()).sum::<usize>() == self.outputs
    }

    /// Leaves x·Aᵀ in `low` and writes the adapter's part to `y` (rows, outputs), or adds it to what is there.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and the operands of two products")]
    pub fn forward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        x: Buffer<bf16>,
        rows: usize,
        y: Buffer<bf16>,
        low: Buffer<bf16>,
        add: bool,
    ) -> Result<()> {
        let (all, count) = (self.low_width(), self.group.parts.len());
        if count == 0 {
            return Ok(());
        }
        let cut = self.shrink_cut(rows);
        let mark = arena.mark();
        let partial = if cut.splits > 1 { arena.take(cut.splits * rows * all)? } else { Buffer::NULL };
        self.shrink(gpu, x, rows, low, partial, &cut)?;
        if cut.splits > 1 {
            self.sum_low(gpu, partial, low, rows, cut.span, [self.inputs; 3])?;
        }
        arena.reset(mark);
        let (rank, padded) = (self.group.rank, self.padded());
        let b = self.adapter.compute.slice(self.b_range());
        expand(gpu, low, b, y, rows, self.outputs, all, padded, rank, self.group.scale, add, self.parts())
    }

    /// x·Aᵀ of all parts, to `low`, or to `partial` for each span of a cut.
    fn shrink(
        &self,
        gpu: &Gpu,
        x: Buffer<bf16>,
        rows: usize,
        low: Buffer<bf16>,
        partial: Buffer<f32>,
        cut: &Cut,
    ) -> Result<()> {
        let all = self.low_width();
        let n = shrink_columns(all);
        let blocks = [all.div_ceil(n), rows.div_ceil(ROWS), cut.splits];
        let shape = Shape { blocks, threads: THREADS, shared: 384 * (ROWS + n) };
        let (rank, count) = (self.group.rank, self.group.parts.len());
        // SAFETY: a block for each tile of `low` and span of the depth.
        unsafe {
            launch!(
                gpu, shrink_kernel(n), shape;
                x.at_least(rows * self.inputs), self.a().at_least(count * rank * self.inputs),
                low.null_or_at_least(rows * all), partial.null_or_at_least(cut.splits * rows * all), rows, self.inputs,
                rank, count, cut.span
            )
        }
    }

    /// Adds up what the spans of a depth left of `low`, for parts of these depths.
    fn sum_low(
        &self,
        gpu: &Gpu,
        partial: Buffer<f32>,
        low: Buffer<bf16>,
        rows: usize,
        span: usize,
        depths: [usize; 3],
    ) -> Result<()> {
        let shape = Shape::new((rows * self.low_width()).div_ceil(2_048), THREADS);
        let [first, second, third] = depths;
        let (count, values) = (self.group.parts.len(), rows * self.low_width());
        let splits = depths.into_iter().max().unwrap_or(0).div_ceil(span);
        // SAFETY: a thread for 8 values of `low`, each a sum over the splits of its part.
        unsafe {
            launch!(
                gpu, "lora_low", shape;
                partial.at_least(splits * values), low.at_least(values), rows, self.padded(), count, span, first, second,
                third
            )
        }
    }

    /// The same for few rows, whose bits do not depend on each other. `partial` has room for
    /// [`GroupShape::decode_values`].
    pub fn decode(
        &self,
        gpu: &Gpu,
        x: Buffer<bf16>,
        rows: usize,
        y: Buffer<bf16>,
        partial: Buffer<f32>,
        add: bool,
    ) -> Result<()> {
        let (all, count) = (self.low_width(), self.group.parts.len());
        if count == 0 {
            return Ok(());
        }
        let cut = self.decode_cut();
        let rank = self.group.rank;
        self.shrink(gpu, x, rows, Buffer::NULL, partial, &cut)?;
        let b = self.adapter.compute.slice(self.b_range());
        let parts = self.parts();
        let shape = Shape { blocks: [tiles(parts, COLUMNS), rows.div_ceil(32), 1], threads: THREADS, shared: 20_480 };
        let mut arguments = vec![
            partial.at_least(cut.splits * rows * all),
            b.at_least(b.len()),
            y.at_least(rows * self.outputs),
            rows.into(),
            self.outputs.into(),
            all.into(),
            self.padded().into(),
            rank.into(),
            cut.splits.into(),
            self.group.scale.into(),
            i32::from(add).into(),
        ];
        arguments.extend(columns(parts));
        // SAFETY: a block for each tile of the columns of `y` that are adapted.
        unsafe { gpu.launch("lora_expand_split", shape, &mut arguments) }
    }

    /// From `dy` (rows, outputs): adds to the adapter's gradient and writes its part of `dx` (rows, inputs). Returns whether
    /// there was anything to write, for the base layer's product to be added to.
    #[allow(clippy::too_many_arguments, reason = "the operands of one product rule, all of different kinds")]
    pub fn backward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        x: Buffer<bf16>,
        low: Buffer<bf16>,
        dy: Buffer<bf16>,
        rows: usize,
        dx: Buffer<bf16>,
    ) -> Result<bool> {
        let (all, rank) = (self.low_width(), self.group.rank);
        if self.group.parts.is_empty() {
            return Ok(false);
        }
        let mark = arena.mark();
        let d_low = arena.take::<bf16>(rows * all)?;
        if self.padded() <= NARROW {
            self.back(gpu, arena, low, dy, rows, d_low)?;
        } else {
            self.back_wide(gpu, arena, low, dy, rows, d_low)?;
        }
        let whole = [(0, self.inputs), (0, 0), (0, 0)];
        // dA += d_lowᵀ · x, where d_low has the scale already
        let grads = self.adapter.grads.slice(self.group.a.clone());
        gradient(gpu, arena, d_low, x, grads, rows, self.inputs, all, all, rank, 1.0, whole)?;
        // dx = d_low · A
        expand(gpu, d_low, self.a(), dx, rows, self.inputs, all, all, rank, 1.0, false, whole)?;
        arena.reset(mark);
        Ok(true)
    }

    /// d_low = scale · dy · Bᵀ and dB += scale · lowᵀ · dy, with dy read once.
    fn back(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        low: Buffer<bf16>,
        dy: Buffer<bf16>,
        rows: usize,
        d_low: Buffer<bf16>,
    ) -> Result<()> {
        let (padded, count, parts, scale) = (self.padded(), self.group.parts.len(), self.parts(), self.group.scale);
        let Cut { span, splits } = self.back_cut(rows);
        let b_range = self.b_range();
        let mark = arena.mark();
        let d_partial = arena.take::<f32>(self.widest().div_ceil(STRIP) * rows * self.low_width())?;
        let b_partial = arena.take::<f32>(splits * b_range.len())?;
        let blocks = [tiles(parts, STRIP), splits, 1];
        let shape = Shape { blocks, threads: THREADS, shared: 74_752 + 1_152 * padded };
        let mut arguments = vec![
            dy.at_least(rows * self.outputs),
            low.at_least(rows * self.low_width()),
            self.adapter.compute.slice(b_range.clone()).at_least(b_range.len()),
            d_partial.at_least(d_partial.len()),
            b_partial.at_least(splits * b_range.len()),
            rows.into(),
            self.outputs.into(),
            self.group.rank.into(),
            count.into(),
            span.into(),
            b_range.len().into(),
            scale.into(),
        ];
        arguments.extend(columns(parts));
        let kernel = if padded == 16 { "lora_back_r16" } else { "lora_back_r32" };
        // SAFETY: a block for each strip of dy's columns and span of its rows, with sums of its own.
        unsafe { gpu.launch(kernel, shape, &mut arguments)? };
        // The strips' sums have the scale already, those of dB have not.
        self.sum_low(gpu, d_partial, d_low, rows, STRIP, parts.map(|(_, width)| width))?;
        add_gradient(gpu, b_partial, self.adapter.grads.slice(b_range), splits, scale)?;
        arena.reset(mark);
        Ok(())
    }

    /// The same for higher ranks, in two kernels.
    fn back_wide(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        low: Buffer<bf16>,
        dy: Buffer<bf16>,
        rows: usize,
        d_low: Buffer<bf16>,
    ) -> Result<()> {
        let (all, padded, count, rank) = (self.low_width(), self.padded(), self.group.parts.len(), self.group.rank);
        let (scale, parts, b_range) = (self.group.scale, self.parts(), self.b_range());
        let (n, kernel) = if padded <= 64 { (64, "lora_d_low_n64") } else { (128, "lora_d_low_n128") };
        let Cut { span, splits } = self.d_low_cut(rows);
        let mark = arena.mark();
        let partial = if splits > 1 { arena.take(splits * rows * all)? } else { Buffer::<f32>::NULL };
        let blocks = [count, rows.div_ceil(ROWS), splits];
        let shape = Shape { blocks, threads: THREADS, shared: 384 * (ROWS + n) };
        let mut arguments = vec![
            dy.at_least(rows * self.outputs),
            self.adapter.compute.slice(b_range.clone()).at_least(b_range.len()),
            d_low.at_least(rows * all),
            partial.null_or_at_least(splits * rows * all),
            rows.into(),
            self.outputs.into(),
            rank.into(),
            scale.into(),
            span.into(),
        ];
        arguments.extend(columns(parts));
        // SAFETY: a block for each tile of `d_low` and span of the depth.
        unsafe { gpu.launch(kernel, shape, &mut arguments)? };
        if splits > 1 {
            self.sum_low(gpu, partial, d_low, rows, span, parts.map(|(_, width)| width))?;
        }
        arena.reset(mark);
        let grads = self.adapter.grads.slice(b_range);
        gradient(gpu, arena, low, dy, grads, rows, self.outputs, all, padded, rank, scale, parts)
    }
}

/// The shrink whose tiles have `n` columns.
fn shrink_kernel(n: usize) -> &'static str {
    match n {
        32 => "lora_shrink_n32",
        64 => "lora_shrink_n64",
        _ => "lora_shrink_n128",
    }
}

fn columns(parts: Parts) -> impl Iterator<Item = Argument> {
    parts.into_iter().flat_map(|(start, width)| [Argument::from(start), Argument::from(width)])
}

/// y[:, part] (+)= scale · low_part · weights_part
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
fn expand(
    gpu: &Gpu,
    low: Buffer<bf16>,
    weights: Buffer<bf16>,
    y: Buffer<bf16>,
    rows: usize,
    stride: usize,
    low_stride: usize,
    depth: usize,
    rank: usize,
    scale: f32,
    add: bool,
    parts: Parts,
) -> Result<()> {
    let shape = Shape { blocks: [tiles(parts, COLUMNS), rows.div_ceil(ROWS), 1], threads: THREADS, shared: 32_768 };
    let mut arguments = vec![
        low.at_least(rows * low_stride),
        weights.at_least(weights.len()),
        y.at_least(rows * stride),
        rows.into(),
        stride.into(),
        low_stride.into(),
        depth.into(),
        rank.into(),
        scale.into(),
        i32::from(add).into(),
    ];
    arguments.extend(columns(parts));
    // SAFETY: a block for each tile of the columns of `y` that are adapted.
    unsafe { gpu.launch("lora_expand", shape, &mut arguments) }
}

/// grads += scale · leftᵀ · right, by a fixed number of splits of the rows whose sums are added in order.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
fn gradient(
    gpu: &Gpu,
    arena: &mut Arena,
    left: Buffer<bf16>,
    right: Buffer<bf16>,
    grads: Buffer<f32>,
    rows: usize,
    stride: usize,
    left_stride: usize,
    depth: usize,
    rank: usize,
    scale: f32,
    parts: Parts,
) -> Result<()> {
    let (m, kernel) = if depth <= 64 { (64, "lora_grad_m64") } else { (128, "lora_grad_m128") };
    let Cut { span, splits } = gradient_cut(rows, depth, parts);
    let mark = arena.mark();
    let partial = arena.take::<f32>(splits * grads.len())?;
    let blocks = [tiles(parts, COLUMNS), splits, depth.div_ceil(m)];
    let shape = Shape { blocks, threads: THREADS, shared: 384 * (COLUMNS + m) };
    let mut arguments = vec![
        left.at_least(rows * left_stride),
        right.at_least(rows * stride),
        partial.at_least(splits * grads.len()),
        rows.into(),
        stride.into(),
        left_stride.into(),
        depth.into(),
        rank.into(),
        span.into(),
        grads.len().into(),
    ];
    arguments.extend(columns(parts));
    // SAFETY: a block for each tile of the gradient and span of the rows, with sums of its own.
    unsafe { gpu.launch(kernel, shape, &mut arguments)? };
    add_gradient(gpu, partial, grads, splits, scale)?;
    arena.reset(mark);
    Ok(())
}

/// grads += scale · the sum of `partial` over the splits.
fn add_gradient(gpu: &Gpu, partial: Buffer<f32>, grads: Buffer<f32>, splits: usize, scale: f32) -> Result<()> {
    let shape = Shape::new(grads.len().div_ceil(1_024), THREADS);
    let len = grads.len();
    // SAFETY: a thread for 4 values of the gradient, each a sum over the splits.
    unsafe {
        launch!(gpu, "lora_grad_sum", shape; partial.at_least(splits * len), grads.at_least(len), len, splits, scale)
    }
}
