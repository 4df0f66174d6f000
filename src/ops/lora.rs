//! LoRA on a group of linear layers that read the same input: one product with A for all, one product with B for each.
//!
//! y[:, part] += scale · (x·Aᵀ)·Bᵀ (Hu et al., arXiv 2106.09685). A is stored as in PEFT, (r, in); B is transposed,
//! (r, out), because a product with a row-major right-hand side gives the same bits for any number of rows.

use super::matmul::{Output, View, add_product};
use super::simd::{dot, vectorized};
use super::stored;
use rayon::prelude::*;
use std::ops::Range;

/// The position of one joined linear layer's adapter in the flat storage.
#[derive(Clone, Debug, Default)]
pub struct LoraGroup {
    pub rank: usize,
    /// alpha / r, or alpha / √r with rsLoRA.
    pub scale: f32,
    /// The A matrices one after the other: (parts·rank, in).
    pub a: Range<usize>,
    pub parts: Vec<LoraPart>,
}

/// The product with B for one layer of a group.
#[derive(Clone, Debug)]
pub struct LoraPart {
    /// B transposed: (rank, out).
    pub b: Range<usize>,
    /// The columns of the joined output that it is added to.
    pub columns: Range<usize>,
}

impl LoraGroup {
    fn columns(&self) -> usize {
        self.rank * self.parts.len()
    }

    /// Adds the adapter's part to `y` (rows, outputs). Returns x·Aᵀ (rows, parts·rank), which the backward needs.
    pub fn forward(&self, params: &[f32], x: &[f32], inputs: usize, y: &mut [f32], outputs: usize) -> Vec<f32> {
        self.forward_of::<false>(params, x, inputs, y, outputs)
    }

    /// [`LoraGroup::forward`]; if `ROUNDED`, x·Aᵀ is rounded to bf16, as a GPU stores it.
    pub fn forward_of<const ROUNDED: bool>(
        &self,
        params: &[f32],
        x: &[f32],
        inputs: usize,
        y: &mut [f32],
        outputs: usize,
    ) -> Vec<f32> {
        let (rows, columns) = (x.len() / inputs, self.columns());
        let mut shrunk = shrink(x, inputs, &params[self.a.clone()], columns);
        shrunk.iter_mut().for_each(|value| *value = stored::<ROUNDED>(*value));
        for (i, part) in self.parts.iter().enumerate() {
            add_product(
                Output::columns(y, outputs, part.columns.start),
                self.scale,
                View::columns(&shrunk, rows, columns, i * self.rank, self.rank),
                View::new(&params[part.b.clone()], self.rank, part.columns.len()),
            );
        }
        shrunk
    }

    /// From `dy` (rows, outputs): adds to `dx` (rows, inputs) and to `grads`, which has the layout of the parameters.
    #[allow(clippy::too_many_arguments, reason = "all operands are needed, and no two form a unit")]
    pub fn backward(
        &self,
        params: &[f32],
        x: &[f32],
        inputs: usize,
        shrunk: &[f32],
        dy: &[f32],
        outputs: usize,
        dx: &mut [f32],
        grads: &mut [f32],
    ) {
        self.backward_of::<false>(params, x, inputs, shrunk, dy, outputs, dx, grads);
    }

    /// [`LoraGroup::backward`]; if `ROUNDED`, the gradient of x·Aᵀ is rounded to bf16.
    #[allow(clippy::too_many_arguments, reason = "all operands are needed, and no two form a unit")]
    pub fn backward_of<const ROUNDED: bool>(
        &self,
        params: &[f32],
        x: &[f32],
        inputs: usize,
        shrunk: &[f32],
        dy: &[f32],
        outputs: usize,
        dx: &mut [f32],
        grads: &mut [f32],
    ) {
        let (rows, columns) = (x.len() / inputs, self.columns());
        if columns == 0 {
            return;
        }
        let mut d_shrunk = vec![0.0; rows * columns];
        for (i, part) in self.parts.iter().enumerate() {
            let width = part.columns.len();
            let dy = View::columns(dy, rows, outputs, part.columns.start, width);
            let b = View::new(&params[part.b.clone()], self.rank, width);
            add_product(Output::columns(&mut d_shrunk, columns, i * self.rank), self.scale, dy, b.t());
            // dBᵀ (rank, out) = scale · shrunkᵀ · dy
            let shrunk = View::columns(shrunk, rows, columns, i * self.rank, self.rank);
            add_product(Output::new(&mut grads[part.b.clone()], width), self.scale, shrunk.t(), dy);
        }
        d_shrunk.iter_mut().for_each(|value| *value = stored::<ROUNDED>(*value));
        let d_shrunk = View::new(&d_shrunk, rows, columns);
        add_product(Output::new(&mut grads[self.a.clone()], inputs), 1.0, d_shrunk.t(), View::new(x, rows, inputs));
        let a = View::new(&params[self.a.clone()], columns, inputs);
        add_product(Output::new(dx, inputs), 1.0, d_shrunk, a);
    }
}

/// x (rows, in) · aᵀ for a (columns, in): dot products of contiguous rows in a fixed order.
fn shrink(x: &[f32], inputs: usize, a: &[f32], columns: usize) -> Vec<f32> {
    let mut shrunk = vec![0.0; x.len() / inputs * columns];
    if columns == 0 {
        return shrunk;
    }
    let task = |(shrunk, x): (&mut [f32], &[f32])| {
        vectorized(
            #[inline(always)]
            || {
                for (shrunk, x) in shrunk.chunks_exact_mut(columns).zip(x.chunks_exact(inputs)) {
                    for (shrunk, a) in shrunk.iter_mut().zip(a.chunks_exact(inputs)) {
                        *shrunk = dot(x, a);
                    }
                }
            },
        );
    };
    let rows = super::ROWS_PER_TASK;
    shrunk.par_chunks_mut(rows * columns).zip(x.par_chunks(rows * inputs)).for_each(task);
    shrunk
}
