//! How LoRA's sums are cut where one piece would not fill the GPU, and the memory that the pieces take.

use super::super::memory::Arena;
use super::{COLUMNS, Group, NARROW, Parts, ROWS, STRIP, shrink_kernel, tiles};

/// Blocks that fill a large GPU once (two on each of 132 multiprocessors) and about twice. Constants, not asked of the device:
/// how a sum is cut decides its bits.
const ONE_WAVE: usize = 264;
const ENOUGH_BLOCKS: usize = 512;
/// Spans that the depth of a shrink is cut into when decoding: fixed, so that a row's bits depend on nothing else.
const DECODE_SPLITS: usize = 32;

/// How a sum is cut: into `splits` spans of `span` terms, the last of which may be shorter.
pub(super) struct Cut {
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

/// What an arena gives for so many bytes.
fn padded_bytes(bytes: usize) -> usize {
    bytes.next_multiple_of(Arena::ALIGNMENT)
}

pub(super) fn gradient_cut(rows: usize, depth: usize, parts: Parts) -> Cut {
    let m = if depth <= 64 { 64 } else { 128 };
    let blocks = tiles(parts, COLUMNS) * depth.div_ceil(m);
    Cut::new(rows, rows.div_ceil(ENOUGH_BLOCKS.div_ceil(blocks)))
}

impl Group<'_> {
    pub(super) fn widest(&self) -> usize {
        self.parts().into_iter().map(|(_, width)| width).max().unwrap_or(0)
    }

    pub(super) fn shrink_cut(&self, rows: usize) -> Cut {
        let all = self.low_width();
        Cut::of_depth(self.inputs, all.div_ceil(shrink_kernel(all).0) * rows.div_ceil(ROWS))
    }

    /// The same for few rows, however many they are.
    pub(super) fn decode_cut(&self) -> Cut {
        Cut::new(self.inputs, self.inputs.div_ceil(DECODE_SPLITS))
    }

    pub(super) fn d_low_cut(&self, rows: usize) -> Cut {
        Cut::of_depth(self.widest(), self.group.parts.len() * rows.div_ceil(ROWS))
    }

    pub(super) fn back_cut(&self, rows: usize) -> Cut {
        let blocks = tiles(self.parts(), STRIP);
        Cut::new(rows, rows.saturating_mul(blocks).div_ceil(2 * ONE_WAVE).max(512))
    }

    /// Bytes, at most, that [`Group::forward`] takes and gives back.
    pub fn forward_bytes(&self, rows: usize) -> usize {
        match self.shrink_cut(rows).splits {
            _ if self.group.parts.is_empty() => 0,
            1 => 0,
            splits => padded_bytes(4 * splits * rows * self.low_width()),
        }
    }

    /// Bytes, at most, that [`Group::backward`] takes and gives back.
    pub fn backward_bytes(&self, rows: usize) -> usize {
        if self.group.parts.is_empty() {
            return 0;
        }
        let (all, b_len) = (self.low_width(), self.b_range().len());
        let of_gradient = |depth, parts, len: usize| padded_bytes(4 * gradient_cut(rows, depth, parts).splits * len);
        let of_b = if self.padded() <= NARROW {
            padded_bytes(4 * self.widest().div_ceil(STRIP) * rows * all)
                + padded_bytes(4 * self.back_cut(rows).splits * b_len)
        } else {
            padded_bytes(4 * self.d_low_cut(rows).splits * rows * all).max(of_gradient(
                self.padded(),
                self.parts(),
                b_len,
            ))
        };
        let whole = [(0, self.inputs), (0, 0), (0, 0)];
        padded_bytes(2 * rows * all) + of_b.max(of_gradient(all, whole, self.group.a.len()))
    }
}
