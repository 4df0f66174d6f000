//! A linear layer and its LoRA adapter as one product, forward and backward. Storage: device/memory/lora.rs.
//!
//! With s for the adapter's scale:
//!
//! - y = [x | x·Aᵀ] · [W | s·B]ᵀ: the columns behind x are filled by a product, then one over inputs + p gives y;
//! - dx = [dy | dy·s·B] · [W; A]: the same over outputs + p;
//! - dA += (dy·s·B)ᵀ · x and dB += s·dyᵀ·(x·Aᵀ), in f32 into the flat gradient.
//!
//! So y and dx are rounded once, as without an adapter. x·Aᵀ and dy·s·B are bf16: products take nothing else, and the
//! gradients see what the forward used.

use super::Gpu;
use super::blas::Matrix;
use super::launch::{Shape, launch};
use super::memory::Buffer;
use super::weights::Linear;
use crate::device::memory::layout::Rows;
use crate::device::memory::lora::padded_rank;
use crate::ops::lora::LoraGroup;
use anyhow::Result;
use half::bf16;

impl Linear {
    /// `y = x · Wᵀ`, plus the adapter's part where `adapted`, plus `residual` where there is one, whose rows lie as those of y:
    /// (rows, inputs) -> (rows, outputs). Leaves x·Aᵀ behind the rows of x.
    pub fn forward(
        &self,
        gpu: &Gpu,
        adapted: bool,
        x: Rows,
        rows: usize,
        residual: Option<Buffer<bf16>>,
        y: Rows,
    ) -> Result<()> {
        let columns = if adapted { self.lora } else { 0 };
        if columns > 0 {
            let shrunk = Matrix::behind(x, rows, self.inputs, columns);
            gpu.blas.product(Matrix::of(x, rows, self.inputs), self.a().t(), shrunk)?;
        }
        let width = self.inputs + columns;
        let (left, right) = (Matrix::of(x, rows, width), self.matrix(self.outputs, width).t());
        let y = Matrix::of(y, rows, self.outputs);
        match residual {
            Some(residual) => gpu.blas.add_product(1.0, left, right, residual, y),
            None => gpu.blas.product(left, right, y),
        }
    }

    /// The gradient `dx` (rows, inputs) of the input from that of the adapted output. Leaves dy·s·B behind the rows of dy.
    pub fn input_gradient(&self, gpu: &Gpu, dy: Rows, rows: usize, dx: Buffer<bf16>) -> Result<()> {
        if self.lora > 0 {
            let shrunk = Matrix::behind(dy, rows, self.outputs, self.lora);
            gpu.blas.product(Matrix::of(dy, rows, self.outputs), self.b(), shrunk)?;
        }
        let width = self.outputs + self.lora;
        gpu.blas.product(
            Matrix::of(dy, rows, width),
            self.matrix(width, self.inputs),
            Matrix::new(dx, rows, self.inputs),
        )
    }

    /// Adds the gradients of `group` to `grads`, which is laid out as the adapter's parameters are. `shrunk` is x·Aᵀ, and behind
    /// the rows of `dy` is what [`Linear::input_gradient`] has left.
    #[allow(clippy::too_many_arguments, reason = "the operands of two product rules")]
    pub fn lora_gradient(
        &self,
        gpu: &Gpu,
        group: &LoraGroup,
        grads: Buffer<f32>,
        x: Rows,
        shrunk: Matrix<bf16>,
        dy: Rows,
        rows: usize,
    ) -> Result<()> {
        let (rank, padded) = (group.rank, padded_rank(group.rank));
        for (i, part) in group.parts.iter().enumerate() {
            let (width, to) = (part.columns.len(), grads.slice(part.b.clone()));
            let left = shrunk.columns(i * padded, rank).t();
            let right = Matrix::behind(dy, rows, part.columns.start, width);
            gpu.blas.add_product(group.scale, left, right, to, Matrix::new(to, rank, width))?;
        }
        // The gradients of all A lie one after the other: one product, unless there are columns past the rank between theirs.
        let joined = if rank == padded { group.parts.len().max(1) } else { 1 };
        for (i, _) in group.parts.iter().enumerate().step_by(joined) {
            let (start, lines) = (group.a.start + i * rank * self.inputs, joined * rank);
            let to = grads.slice(start..start + lines * self.inputs);
            let left = Matrix::behind(dy, rows, self.outputs + i * padded, lines).t();
            gpu.blas.add_product(
                1.0,
                left,
                Matrix::of(x, rows, self.inputs),
                to,
                Matrix::new(to, lines, self.inputs),
            )?;
        }
        Ok(())
    }

    /// Puts the weights of `group` beside W: A and s·B from the adapter's f32 parameters.
    pub fn write_lora(&self, gpu: &Gpu, group: &LoraGroup, params: Buffer<f32>) -> Result<()> {
        let (rank, padded) = (group.rank, padded_rank(group.rank));
        for (i, part) in group.parts.iter().enumerate() {
            let a = params.slice(group.a.start + i * rank * self.inputs..group.a.end);
            let b = params.slice(part.b.clone());
            let shape = Shape::new((padded * (self.inputs + self.outputs) / 8).div_ceil(256), 256);
            let written = size_of::<bf16>() * padded * (self.inputs + self.outputs);
            // SAFETY: a thread for 8 values of the part's lines of A and columns of B, all of which the storage has.
            unsafe {
                launch!(
                    gpu, "lora_write", shape;
                    a.at_least(rank * self.inputs), b.at_least(rank * part.columns.len()),
                    self.storage.at_least((self.outputs + (i + 1) * padded) * self.stride()).writes(written), self.inputs, self.outputs,
                    self.stride(), rank, padded, i * padded, part.columns.start, part.columns.len(), group.scale
                )?;
            }
        }
        Ok(())
    }
}
