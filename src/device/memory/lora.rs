//! LoRA on a device: how its sums are cut where one piece would not fill the GPU, and the memory that the pieces take.
//! Layouts: device/cuda/kernels/lora.cuh.

use super::arena::padded;
use crate::model::config::ModelConfig;
use crate::model::lora::{BlockLora, Target};
use crate::ops::lora::LoraGroup;
use std::ops::Range;

/// Rows and columns of the kernels' tiles.
pub const ROWS: usize = 128;
pub const COLUMNS: usize = 128;
/// Columns of a block of lora_back, and the widest padded rank it is made for.
pub const STRIP: usize = 512;
pub const NARROW: usize = 32;
/// Blocks that fill a large GPU once (two on each of 132 multiprocessors) and about twice. Constants, not asked of the device:
/// how a sum is cut decides its bits.
const ONE_WAVE: usize = 264;
const ENOUGH_BLOCKS: usize = 512;
/// Spans that the depth of a shrink is cut into when decoding: fixed, so that a row's bits depend on nothing else.
const DECODE_SPLITS: usize = 32;

/// A group of adapted layers that read the same input.
#[derive(Clone, Copy, Debug)]
pub struct GroupShape<'a> {
    pub group: &'a LoraGroup,
    pub inputs: usize,
    /// Width of the joined output, with the layers that are not adapted.
    pub outputs: usize,
}

/// The groups of a block, which use their memory in turn.
#[derive(Clone, Copy, Debug)]
pub struct BlockShape<'a> {
    pub qkv: GroupShape<'a>,
    pub o: GroupShape<'a>,
    pub gate_up: GroupShape<'a>,
    pub down: GroupShape<'a>,
}

/// Up to three column ranges, as the kernels take them: start and width of each.
pub type Parts = [(usize, usize); 3];

/// How a sum is cut: into `splits` spans of `span` terms, the last of which may be shorter.
pub struct Cut {
    pub span: usize,
    pub splits: usize,
}

impl Cut {
    /// Spans of `span` terms or a few more: a multiple of 64, as the kernels want it.
    fn new(terms: usize, span: usize) -> Self {
        let span = span.max(1).next_multiple_of(64);
        Self { span, splits: terms.div_ceil(span) }
    }

    /// The depth of a product that has so many tiles: in one where they fill the GPU.
    fn of_depth(depth: usize, tiles: usize) -> Self {
        Self::new(depth, depth.div_ceil((ONE_WAVE / tiles.max(1)).max(1)))
    }
}

/// Tiles of `size` columns of all parts.
pub fn tiles(parts: Parts, size: usize) -> usize {
    parts.iter().map(|(_, width)| width.div_ceil(size)).sum()
}

/// The width of a tile of the shrink for `all` columns of low.
pub fn shrink_columns(all: usize) -> usize {
    match all {
        ..=32 => 32,
        33..=64 => 64,
        _ => 128,
    }
}

pub fn gradient_cut(rows: usize, depth: usize, parts: Parts) -> Cut {
    let m = if depth <= 64 { 64 } else { 128 };
    let blocks = tiles(parts, COLUMNS) * depth.div_ceil(m);
    Cut::new(rows, rows.div_ceil(ENOUGH_BLOCKS.div_ceil(blocks)))
}

impl<'a> BlockShape<'a> {
    pub fn new(block: &'a BlockLora, config: &ModelConfig) -> Self {
        let group = |group, members: &[Target]| {
            let outputs = members.iter().map(|target| target.shape(config).1).sum();
            GroupShape { group, inputs: members[0].shape(config).0, outputs }
        };
        Self {
            qkv: group(&block.qkv, &[Target::Q, Target::K, Target::V]),
            o: group(&block.o, &[Target::O]),
            gate_up: group(&block.gate_up, &[Target::Gate, Target::Up]),
            down: group(&block.down, &[Target::Down]),
        }
    }

    /// The most that `amount` says of the groups.
    pub fn most(&self, amount: impl Fn(&GroupShape) -> usize) -> usize {
        [self.qkv, self.o, self.gate_up, self.down].iter().map(amount).max().unwrap_or(0)
    }
}

impl GroupShape<'_> {
    /// Columns of a row of `low`: each part's rank, rounded up to the depth of one tensor-core product.
    pub fn low_width(&self) -> usize {
        self.group.parts.len() * self.padded()
    }

    pub fn padded(&self) -> usize {
        self.group.rank.next_multiple_of(16)
    }

    /// The B matrices lie one after the other.
    pub fn b_range(&self) -> Range<usize> {
        self.group.parts[0].b.start..self.group.parts[self.group.parts.len() - 1].b.end
    }

    pub fn parts(&self) -> Parts {
        let mut parts = [(0, 0); 3];
        for (to, part) in parts.iter_mut().zip(&self.group.parts) {
            *to = (part.columns.start, part.columns.len());
        }
        parts
    }

    pub fn widest(&self) -> usize {
        self.parts().into_iter().map(|(_, width)| width).max().unwrap_or(0)
    }

    pub fn shrink_cut(&self, rows: usize) -> Cut {
        let all = self.low_width();
        Cut::of_depth(self.inputs, all.div_ceil(shrink_columns(all)) * rows.div_ceil(ROWS))
    }

    /// The same for few rows, however many they are.
    pub fn decode_cut(&self) -> Cut {
        Cut::new(self.inputs, self.inputs.div_ceil(DECODE_SPLITS))
    }

    pub fn d_low_cut(&self, rows: usize) -> Cut {
        Cut::of_depth(self.widest(), self.group.parts.len() * rows.div_ceil(ROWS))
    }

    pub fn back_cut(&self, rows: usize) -> Cut {
        let blocks = tiles(self.parts(), STRIP);
        Cut::new(rows, rows.saturating_mul(blocks).div_ceil(2 * ONE_WAVE).max(512))
    }

    /// Values of partial sums (f32) in a step of decoding.
    pub fn decode_values(&self, rows: usize) -> usize {
        self.decode_cut().splits * rows * self.low_width()
    }

    /// Bytes, at most, that a forward pass of the group takes and gives back.
    pub fn forward_bytes(&self, rows: usize) -> usize {
        match self.shrink_cut(rows).splits {
            _ if self.group.parts.is_empty() => 0,
            1 => 0,
            splits => padded(4 * splits * rows * self.low_width()),
        }
    }

    /// The same for its backward pass.
    pub fn backward_bytes(&self, rows: usize) -> usize {
        if self.group.parts.is_empty() {
            return 0;
        }
        let (all, b_len) = (self.low_width(), self.b_range().len());
        let of_gradient = |depth, parts, len: usize| padded(4 * gradient_cut(rows, depth, parts).splits * len);
        let of_b = if self.padded() <= NARROW {
            padded(4 * self.widest().div_ceil(STRIP) * rows * all) + padded(4 * self.back_cut(rows).splits * b_len)
        } else {
            let d_low = padded(4 * self.d_low_cut(rows).splits * rows * all);
            d_low.max(of_gradient(self.padded(), self.parts(), b_len))
        };
        let whole = [(0, self.inputs), (0, 0), (0, 0)];
        padded(2 * rows * all) + of_b.max(of_gradient(all, whole, self.group.a.len()))
    }
}
