//! Matrix products with `gemm`. A result depends neither on the number of rows nor on the number of threads.
//!
//! By default `gemm` changes the order of a sum in three cases: a single row or column, very small products, and a
//! depth above its cache block. Therefore the depth is split here into blocks of [`DEPTH`], and a single row, or a
//! depth of 1 or 2, has its own kernel, which adds in the same order.

use super::simd::{axpy, vectorized};
use rayon::prelude::*;

/// Depth of one block: each element is a chain of at most this many fused multiply-adds, which is added to the output.
const DEPTH: usize = 512;

/// Below this number of multiply-adds, a product runs on the calling thread.
const PARALLEL_FROM: usize = 1 << 20;

/// A matrix inside a slice: element (i, j) at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a> View<'a> {
    /// `data` as (rows, cols), row-major without gaps.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Columns `start..start + cols` of (rows, stride) row-major data.
    pub fn columns(data: &'a [f32], rows: usize, stride: usize, start: usize, cols: usize) -> Self {
        Self { data: &data[start.min(data.len())..], rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    fn check(&self) {
        if self.rows > 0 && self.cols > 0 {
            assert!((self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride < self.data.len());
        }
    }
}

/// A row-major matrix to write to, possibly some columns of a wider one.
pub struct Output<'a> {
    pub data: &'a mut [f32],
    pub row_stride: usize,
}

impl<'a> Output<'a> {
    pub fn new(data: &'a mut [f32], cols: usize) -> Self {
        Self { data, row_stride: cols }
    }

    /// Columns from `start` of row-major data with `stride` columns.
    pub fn columns(data: &'a mut [f32], stride: usize, start: usize) -> Self {
        let start = start.min(data.len());
        Self { data: &mut data[start..], row_stride: stride }
    }
}

/// out += scale · lhs · rhs, for lhs (m, k) and rhs (k, n). FLOPs: 2·m·n·k.
pub fn add_product(out: Output, scale: f32, lhs: View, rhs: View) {
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    assert_eq!(k, rhs.rows, "the inner dimensions of a product must be equal");
    lhs.check();
    rhs.check();
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!((m - 1) * out.row_stride + n <= out.data.len());
    // Adapters of rank 1 and 2 give products so shallow that `gemm` uses another method for them, too.
    if (m == 1 || k <= 2) && lhs.col_stride == 1 && rhs.col_stride == 1 {
        for (i, out) in out.data.chunks_mut(out.row_stride).take(m).enumerate() {
            add_row_product(&mut out[..n], scale, &lhs.data[i * lhs.row_stride..][..k], rhs);
        }
        return;
    }
    let parallelism = if m * n * k < PARALLEL_FROM { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(0) };
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        // SAFETY: the three asserts above show that every element addressed by (m, n, depth) and the strides lies
        // is inside its slice, and `out` is borrowed mutably, so it overlaps neither operand.
        unsafe {
            gemm::gemm(
                m,
                n,
                depth,
                out.data.as_mut_ptr(),
                1,
                out.row_stride as isize,
                true,
                lhs.data.as_ptr().add(start * lhs.col_stride),
                lhs.col_stride as isize,
                lhs.row_stride as isize,
                rhs.data.as_ptr().add(start * rhs.row_stride),
                rhs.col_stride as isize,
                rhs.row_stride as isize,
                1.0,
                scale,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

/// lhs (m, k) · rhs (k, n) as a new (m, n) matrix.
pub fn product(lhs: View, rhs: View) -> Vec<f32> {
    let mut out = vec![0.0; lhs.rows * rhs.cols];
    let cols = rhs.cols;
    add_product(Output::new(&mut out, cols), 1.0, lhs, rhs);
    out
}

/// One row times a matrix with contiguous rows: memory-bound, so the columns are divided among the threads.
fn add_row_product(out: &mut [f32], scale: f32, row: &[f32], rhs: View) {
    const COLS: usize = 64;
    let task = |(block, out): (usize, &mut [f32])| {
        let first = block * COLS;
        vectorized(
            #[inline(always)]
            || {
                for (start, row) in (0..row.len()).step_by(DEPTH).zip(row.chunks(DEPTH)) {
                    let mut sums = [0.0f32; COLS];
                    for (i, &x) in row.iter().enumerate() {
                        let at = (start + i) * rhs.row_stride + first;
                        let weights = &rhs.data[at..at + out.len()];
                        match weights.as_array::<COLS>() {
                            Some(weights) => axpy(x, weights, &mut sums),
                            None => axpy(x, weights, &mut sums[..weights.len()]),
                        }
                    }
                    out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = sum.mul_add(scale, *out));
                }
            },
        );
    };
    if row.len() * out.len() < PARALLEL_FROM {
        out.chunks_mut(COLS).enumerate().for_each(task);
    } else {
        out.par_chunks_mut(COLS).with_min_len(8).enumerate().for_each(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn random(path: u64, len: usize) -> Vec<f32> {
        let stream = Stream::new(11, Purpose::Test, &[path]);
        (0..len as u64).map(|i| stream.normal(i) as f32).collect()
    }

    #[test]
    fn a_row_does_not_depend_on_other_rows() {
        for (k, n) in [(128, 256), (896, 1152), (1100, 64), (16, 48), (48, 16), (520, 2), (1, 64), (2, 64), (3, 64)] {
            let (x, w, base) = (random(1, 600 * k), random(2, k * n), random(5, 600 * n));
            let sum = |first: usize, rows: usize| {
                let mut out = base[first * n..(first + rows) * n].to_vec();
                let rows = View::new(&x[first * k..], rows, k);
                add_product(Output::new(&mut out, n), 0.7, rows, View::new(&w, k, n));
                out
            };
            let all = sum(0, 600);
            for rows in [1, 2, 3, 4, 8, 16, 17, 64, 65, 128, 512] {
                for first in [0, 600 - rows] {
                    let expected = &all[first * n..(first + rows) * n];
                    assert!(sum(first, rows) == expected, "{rows} rows from {first} of a ({k}, {n}) product differ");
                }
            }
        }
    }

    #[test]
    fn strides_address_the_right_elements() {
        let (m, k, n) = (5, 7, 3);
        let (x, w) = (random(3, m * k), random(4, n * k));
        let got = product(View::new(&x, m, k), View::new(&w, n, k).t());
        for i in 0..m {
            for j in 0..n {
                let expected: f64 = (0..k).map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l])).sum();
                assert!((f64::from(got[i * n + j]) - expected).abs() < 1e-5);
            }
        }
        let mut wide = vec![1.0; m * 10];
        add_product(Output::columns(&mut wide, 10, 4), 2.0, View::new(&x, m, k), View::new(&w, n, k).t());
        assert_eq!(wide[3], 1.0);
        assert!((wide[14] - (1.0 + 2.0 * got[n])).abs() < 1e-5);
        assert_eq!(wide[17], 1.0);
    }
}
