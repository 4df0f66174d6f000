//! LoRA on a group of layers that read the same input, by the kernels of lora_*.cu. Layouts: lora.cuh.

use super::Gpu;
use super::adapter::DeviceAdapter;
use super::launch::{Argument, Shape, launch};
use super::memory::{Arena, Buffer};
use crate::ops::lora::LoraGroup;
use anyhow::Result;
use half::bf16;

/// Rows and columns of the kernels' tiles.
const ROWS: usize = 128;
const COLUMNS: usize = 128;
const THREADS: usize = 256;
/// Blocks that fill a large GPU about four times.
const ENOUGH_BLOCKS: usize = 512;
/// Spans that the depth of a shrink is cut into when there are few rows: fixed, so that a row's bits depend on nothing else.
const DECODE_SPLITS: usize = 16;

/// A group with its place in the adapter.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    pub group: &'a LoraGroup,
    pub adapter: &'a DeviceAdapter,
    pub inputs: usize,
    /// Width of the joined output, with the layers that are not adapted.
    pub outputs: usize,
}

/// Up to three column ranges, as the kernels take them: start and width of each.
type Parts = [(usize, usize); 3];

impl Group<'_> {
    /// Columns of a row of `low`: each part's rank, rounded up to the depth of one tensor-core product.
    pub fn low_width(&self) -> usize {
        self.group.parts.len() * self.padded()
    }

    fn padded(&self) -> usize {
        self.group.rank.next_multiple_of(16)
    }

    fn a(&self) -> Buffer<bf16> {
        self.adapter.compute.slice(self.group.a.clone())
    }

    /// The B matrices lie one after the other.
    fn b_range(&self) -> std::ops::Range<usize> {
        self.group.parts[0].b.start..self.group.parts[self.group.parts.len() - 1].b.end
    }

    fn parts(&self) -> Parts {
        let mut parts = [(0, 0); 3];
        for (to, part) in parts.iter_mut().zip(&self.group.parts) {
            *to = (part.columns.start, part.columns.len());
        }
        parts
    }

    /// Whether every column of the output is adapted.
    pub fn covers(&self) -> bool {
        self.group.parts.iter().map(|part| part.columns.len()).sum::<usize>() == self.outputs
    }

    /// Leaves x·Aᵀ in `low` and writes the adapter's part to `y` (rows, outputs), or adds it to what is there.
    pub fn forward(
        &self,
        gpu: &Gpu,
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
        let (n, kernel) = shrink_kernel(all);
        let shape =
            Shape { blocks: [all.div_ceil(n), rows.div_ceil(ROWS), 1], threads: THREADS, shared: 384 * (ROWS + n) };
        let rank = self.group.rank;
        launch!(gpu, kernel, shape; x, self.a(), low, Buffer::<f32>::NULL, rows, self.inputs, rank, count, self.inputs)?;
        let padded = self.padded();
        let b = self.adapter.compute.slice(self.b_range());
        expand(gpu, low, b, y, rows, self.outputs, all, padded, rank, self.group.scale, add, self.parts())
    }

    /// The same for few rows, whose bits do not depend on each other. `partial` has room for
    /// [`Group::partial_values`].
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
        let (n, kernel) = shrink_kernel(all);
        let span = decode_span(self.inputs);
        let splits = self.inputs.div_ceil(span);
        let blocks = [all.div_ceil(n), rows.div_ceil(ROWS), splits];
        let shape = Shape { blocks, threads: THREADS, shared: 384 * (ROWS + n) };
        let (rank, no_low) = (self.group.rank, Buffer::<bf16>::NULL);
        launch!(gpu, kernel, shape; x, self.a(), no_low, partial, rows, self.inputs, rank, count, span)?;
        let b = self.adapter.compute.slice(self.b_range());
        let parts = self.parts();
        let shape = Shape { blocks: [tiles(parts), rows.div_ceil(32), 1], threads: THREADS, shared: 20_480 };
        let mut arguments = vec![
            Argument::from(partial),
            b.into(),
            y.into(),
            rows.into(),
            self.outputs.into(),
            all.into(),
            self.padded().into(),
            rank.into(),
            splits.into(),
            self.group.scale.into(),
            i32::from(add).into(),
        ];
        arguments.extend(columns(parts));
        gpu.launch("lora_expand_split", shape, &mut arguments)
    }

    /// Values that [`Group::decode`] needs for its partial sums.
    pub fn partial_values(&self, rows: usize) -> usize {
        self.inputs.div_ceil(decode_span(self.inputs)) * rows * self.low_width()
    }

    /// From `dy` (rows, outputs): adds to `dx` (rows, inputs) and to the adapter's gradient.
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
    ) -> Result<()> {
        let (all, count, rank) = (self.low_width(), self.group.parts.len(), self.group.rank);
        if count == 0 {
            return Ok(());
        }
        let (padded, scale, parts) = (self.padded(), self.group.scale, self.parts());
        let mark = arena.mark();
        let b_range = self.b_range();
        let b = self.adapter.compute.slice(b_range.clone());

        // d_low = scale · dy · Bᵀ
        let d_low = arena.take::<bf16>(rows * all)?;
        let (n, kernel) = match padded {
            ..=32 => (32, "lora_d_low_n32"),
            33..=64 => (64, "lora_d_low_n64"),
            _ => (128, "lora_d_low_n128"),
        };
        let shape = Shape { blocks: [count, rows.div_ceil(ROWS), 1], threads: THREADS, shared: 384 * (ROWS + n) };
        let mut arguments = vec![
            Argument::from(dy),
            b.into(),
            d_low.into(),
            Buffer::<f32>::NULL.into(),
            rows.into(),
            self.outputs.into(),
            rank.into(),
            scale.into(),
            self.outputs.next_multiple_of(64).into(),
        ];
        arguments.extend(columns(parts));
        gpu.launch(kernel, shape, &mut arguments)?;

        let whole = [(0, self.inputs), (0, 0), (0, 0)];
        // dB += scale · lowᵀ · dy
        let grads = self.adapter.grads.slice(b_range);
        gradient(gpu, arena, low, dy, grads, rows, self.outputs, all, padded, rank, scale, parts)?;
        // dA += d_lowᵀ · x, where d_low has the scale already
        let grads = self.adapter.grads.slice(self.group.a.clone());
        gradient(gpu, arena, d_low, x, grads, rows, self.inputs, all, all, rank, 1.0, whole)?;
        // dx += d_low · A
        expand(gpu, d_low, self.a(), dx, rows, self.inputs, all, all, rank, 1.0, true, whole)?;
        arena.reset(mark);
        Ok(())
    }
}

/// The width of the tile for `all` columns of low, and its kernel.
fn shrink_kernel(all: usize) -> (usize, &'static str) {
    match all {
        ..=32 => (32, "lora_shrink_n32"),
        33..=64 => (64, "lora_shrink_n64"),
        _ => (128, "lora_shrink_n128"),
    }
}

fn decode_span(inputs: usize) -> usize {
    inputs.div_ceil(DECODE_SPLITS).next_multiple_of(64)
}

/// Tiles of the columns of all parts.
fn tiles(parts: Parts) -> usize {
    parts.iter().map(|(_, width)| width.div_ceil(COLUMNS)).sum()
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
    let shape = Shape { blocks: [tiles(parts), rows.div_ceil(ROWS), 1], threads: THREADS, shared: 32_768 };
    let mut arguments = vec![
        Argument::from(low),
        weights.into(),
        y.into(),
        rows.into(),
        stride.into(),
        low_stride.into(),
        depth.into(),
        rank.into(),
        scale.into(),
        i32::from(add).into(),
    ];
    arguments.extend(columns(parts));
    gpu.launch("lora_expand", shape, &mut arguments)
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
    let blocks = tiles(parts) * depth.div_ceil(m);
    let span = rows.div_ceil(ENOUGH_BLOCKS.div_ceil(blocks)).next_multiple_of(64);
    let splits = rows.div_ceil(span);
    let mark = arena.mark();
    let partial = arena.take::<f32>(splits * grads.len())?;
    let shape = Shape { blocks: [tiles(parts), splits, depth.div_ceil(m)], threads: THREADS, shared: 384 * (ROWS + m) };
    let mut arguments = vec![
        Argument::from(left),
        right.into(),
        partial.into(),
        rows.into(),
        stride.into(),
        left_stride.into(),
        depth.into(),
        rank.into(),
        span.into(),
        grads.len().into(),
    ];
    arguments.extend(columns(parts));
    gpu.launch(kernel, shape, &mut arguments)?;
    let shape = Shape::new(grads.len().div_ceil(1_024), THREADS);
    launch!(gpu, "lora_grad_sum", shape; partial, grads, grads.len(), splits, scale)?;
    arena.reset(mark);
    Ok(())
}
