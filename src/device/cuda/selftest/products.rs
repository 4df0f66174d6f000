//! cuBLASLt: every transpose, stride, accumulation and output type that the decoder uses.

use super::SelftestCase;
use super::lab::{F32, Lab, distance};
use crate::device::cuda::matrix::Matrix;
use crate::ops::matmul::{View, product};
use anyhow::Result;

pub fn products() -> Vec<SelftestCase> {
    // Widths are multiples of 8 like the decoder's, but not of the tiles; rows are odd.
    [(1, 104, 72), (77, 264, 136), (300, 152, 1_032)]
        .map(|(m, n, k)| SelftestCase::new(format!("({m}, {k}) · ({k}, {n})"), move |lab| one(lab, m, n, k)))
        .into()
}

fn one(lab: &mut Lab, m: usize, n: usize, k: usize) -> Result<()> {
    let (a, b) = (lab.normals(m * k, 1.0), lab.normals(k * n, 1.0));
    let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
    let want = product(View::new(&a, m, k), View::new(&b, k, n));
    let (a_at, b_at, bt_at) = (lab.bf16(&a)?, lab.bf16(&b)?, lab.bf16(&transposed)?);
    let left = Matrix::new(a_at, m, k);

    let out = lab.poisoned(m * n)?;
    lab.gpu.blas.product(left, Matrix::new(b_at, k, n), Matrix::new(out, m, n))?;
    lab.stored("as dx = dy·W", out, &want)?;
    let out = lab.poisoned(m * n)?;
    lab.gpu.blas.product(left, Matrix::new(bt_at, n, k).t(), Matrix::new(out, m, n))?;
    lab.stored("as y = x·Wᵀ", out, &want)?;

    let before = lab.normals(m * n, 3.0);
    let sum: Vec<f32> = before.iter().zip(&want).map(|(a, b)| a + 0.5 * b).collect();
    let (before_at, out) = (lab.bf16(&before)?, lab.poisoned(m * n)?);
    let right = Matrix::new(bt_at, n, k).t();
    lab.gpu.blas.add_product(0.5, left, right, before_at, Matrix::new(out, m, n))?;
    lab.stored("half of it added to another matrix", out, &sum)?;
    lab.gpu.blas.add_product(0.5, left, right, before_at, Matrix::new(before_at, m, n))?;
    let (got, beside) = (lab.read(before_at)?, lab.read(out)?);
    lab.same("added in place", &got, &beside);

    // The gradient of an adapter: a sum over rows, of columns that begin inside wider rows, added in f32.
    let (rank, start) = (13, 16);
    let (wide, grads) = (lab.rows(&b, n, 16)?, lab.normals(rank * (n - start), 3.0));
    let columns = |start, count| View::columns(&b, k, n, start, count);
    let added = product(columns(8, rank).t(), columns(start, n - start));
    let sum: Vec<f32> = grads.iter().zip(&added).map(|(a, b)| a + 0.5 * b).collect();
    let (to, inside) = (lab.put(&grads)?, |start, count| Matrix::behind(wide, k, start, count));
    let (picked, right) = (inside(8, rank).t(), inside(start, n - start));
    lab.gpu.blas.add_product(0.5, picked, right, to, Matrix::new(to, rank, n - start))?;
    lab.close("as the gradient of LoRA", to, &sum)?;

    // Logits: f32 rows with a stride larger than their width, for a vocabulary of any size.
    let (vocab, stride) = (n - 3, n);
    let out = lab.poisoned::<f32>(m * stride)?;
    let to = Matrix::new(out, m, vocab).with_stride(stride);
    lab.gpu.blas.product(left, Matrix::new(bt_at.slice(0..vocab * k), vocab, k).t(), to)?;
    let got = out.download(&lab.gpu)?;
    let cut = |values: &[f32]| -> Vec<f32> { values.chunks(n).flat_map(|row| &row[..vocab]).copied().collect() };
    lab.value("f32 rows with a stride", distance(&cut(&got), &cut(&want)), F32);
    lab.holds("nothing between the rows", got.chunks(n).all(|row| row[vocab..].iter().all(|v| v.is_nan())));

    // The gradient of the logits: rows that fill the first half of the f32 rows.
    let wide: Vec<f32> = a.chunks(k).flat_map(|row| row.iter().copied().chain(vec![f32::NAN; k])).collect();
    let wide = lab.bf16(&wide)?;
    let out = lab.poisoned(m * n)?;
    let left = Matrix::new(wide, m, k).with_stride(2 * k);
    lab.gpu.blas.product(left, Matrix::new(b_at, k, n), Matrix::new(out, m, n))?;
    lab.stored("rows with a stride", out, &want)
}
