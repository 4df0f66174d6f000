//! The operands of a matrix product, and the properties that distinguish one product from another.

use super::element::Element;
use crate::device::memory::arena::Buffer;
use crate::device::memory::layout::StridedRows;
use half::bf16;
use std::fmt;

/// A row-major matrix, possibly some columns of a wider one.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<T> {
    pub buffer: Buffer<T>,
    pub rows: usize,
    pub columns: usize,
    /// Values from the start of one row to the next.
    pub stride: usize,
    pub(super) transposed: bool,
}

impl<T: Element> Matrix<T> {
    pub fn new(buffer: Buffer<T>, rows: usize, columns: usize) -> Self {
        Self { buffer, rows, columns, stride: columns, transposed: false }
    }

    /// The same with rows that are `stride` values apart.
    pub fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The transposed matrix; nothing is copied.
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }

    /// `count` columns, starting at `start`.
    pub fn columns(self, start: usize, count: usize) -> Self {
        assert!(!self.transposed && start + count <= self.columns, "columns past the end of a matrix");
        Self { buffer: self.buffer.slice(start..self.buffer.len()), columns: count, ..self }
    }

    /// Rows and their width, as stored in memory.
    pub(super) fn lying(&self) -> (usize, usize) {
        if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }

    /// Minimum length of the buffer, in values.
    pub(super) fn reach(&self) -> usize {
        let (lines, width) = self.lying();
        if lines == 0 { 0 } else { (lines - 1) * self.stride + width }
    }

    /// Whether its rows are within the buffer and do not overlap.
    pub(super) fn fits(&self) -> bool {
        self.lying().1 <= self.stride && self.reach() <= self.buffer.len()
    }
}

impl Matrix<bf16> {
    /// The first `columns` values of `rows` rows.
    pub fn of(x: StridedRows, rows: usize, columns: usize) -> Matrix<bf16> {
        Matrix::new(x.buffer, rows, columns).with_stride(x.stride)
    }

    /// `columns` values of each of `rows` rows, starting at value `start`.
    pub fn behind(x: StridedRows, rows: usize, start: usize, columns: usize) -> Matrix<bf16> {
        Matrix::new(x.buffer.slice(start..x.buffer.len()), rows, columns).with_stride(x.stride)
    }
}

/// The properties that distinguish one product from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductShape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub(super) strides: [usize; 3],
    pub(super) transposed: [bool; 2],
    pub(super) adds: bool,
    pub(super) f32_out: bool,
    /// Alignment in bytes of the addresses of a, b, the added matrix and the output: 256 at most.
    pub(super) alignments: [u32; 4],
}

/// Rows and operands begin at multiples of this number of bytes: kernels for tensor cores require it.
pub(super) const ALIGNMENT: usize = 16;

/// The largest power of two up to 256 that divides an address.
pub(super) fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

/// The key in a file of choices: (m, k) · (k, n), which operands are transposed, the strides of all three, and the
/// alignments.
impl fmt::Display for ProductShape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { m, n, k, strides: [a, b, c], transposed, adds, f32_out, alignments } = *self;
        let [first, second] = transposed.map(|it| if it { 't' } else { 'n' });
        let (kind, sign) = (if f32_out { "f32" } else { "bf16" }, if adds { "+=" } else { "=" });
        write!(f, "{m}x{n}x{k} {first}{second} {sign} {kind}, strides {a} {b} {c}")?;
        let [a, b, c, d] = alignments;
        write!(f, ", aligned to {a} {b} {c} {d}")
    }
}

impl ProductShape {
    /// The shape for which an algorithm is chosen: the same with the number of rows of a rounded up to 2ⁱ or 3 · 2ⁱ,
    /// because micro-batches can have any number of rows. For the gradient of an adapter, the rows are the depth of the
    /// sum.
    pub(super) fn class(self) -> Self {
        let rounded = |rows: usize| {
            let power = rows.next_power_of_two();
            if power >= 4 && rows <= power / 4 * 3 { power / 4 * 3 } else { power }
        };
        if self.transposed[0] { Self { k: rounded(self.k), ..self } } else { Self { m: rounded(self.m), ..self } }
    }

    /// Lengths of the two operands and of the output, as stored in memory.
    pub fn reach(&self) -> [usize; 3] {
        let matrix = |rows, columns, i: usize, transposed| {
            let whole = Matrix::<u8>::new(Buffer::NULL, rows, columns).with_stride(self.strides[i]);
            Matrix { transposed, ..whole }.reach()
        };
        let [first, second] = self.transposed;
        [matrix(self.m, self.k, 0, first), matrix(self.k, self.n, 1, second), matrix(self.m, self.n, 2, false)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn shape(m: usize) -> ProductShape {
        let (transposed, strides) = ([false, true], [64, 80, 32]);
        ProductShape { m, n: 32, k: 64, strides, transposed, adds: false, f32_out: false, alignments: [256; 4] }
    }

    #[test]
    fn rows_are_rounded_up_to_a_class() {
        let classes: Vec<usize> = (1..=2_048).map(|m| shape(m).class().m).collect();
        assert!(classes.iter().zip(1..).all(|(&class, m)| m <= class && 2 * class <= 3 * m.max(2)));
        let distinct: BTreeSet<usize> = classes.into_iter().collect();
        let few = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048];
        assert!(distinct.iter().eq(&few), "{distinct:?}");
        let gradient = ProductShape { m: 33, k: 1_500, transposed: [true, false], ..shape(0) }.class();
        assert_eq!((gradient.m, gradient.k), (33, 1_536));
    }

    #[test]
    fn a_shape_has_its_name_and_its_extents() {
        let accumulated = ProductShape { adds: true, f32_out: true, ..shape(5) };
        assert_eq!(accumulated.to_string(), "5x32x64 nt += f32, strides 64 80 32, aligned to 256 256 256 256");
        assert_eq!(shape(5).reach(), [5 * 64, 31 * 80 + 64, 5 * 32]);
    }
}
