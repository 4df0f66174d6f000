//! A linear layer and its LoRA adapter as one product, forward and backward. Storage: device/memory/lora.rs.
//!
//! With s for the adapter's scale:
//!
//! - y = [x | x·Aᵀ] · [W | s·B]ᵀ: one product fills the columns after x, then a product over inputs + p gives y;
//! - dx = [dy | dy·s·B] · [W; A]: the same over outputs + p;
//! - dA += (dy·s·B)ᵀ · x and dB += s·dyᵀ·(x·Aᵀ), in f32 into the flat gradient.
//!
//! So y and dx are rounded once, as without an adapter. x·Aᵀ and dy·s·B are bf16, because products need bf16 inputs,
//! and the gradients use the values of the forward.

use super::Gpu;
use super::launch::{LaunchShape, launch};
use super::matrix::Matrix;
use super::memory::Buffer;
use super::weights::CudaLinear;
use crate::device::memory::layout::StridedRows;
use crate::device::memory::lora::padded_rank;
use crate::ops::lora::LoraGroup;
use anyhow::Result;
use half::bf16;

impl CudaLinear {
    /// `y = x · Wᵀ`, plus the adapter's part if `adapted`, plus `residual` if there is one, which has the row stride of
    /// y: (rows, inputs) -> (rows, outputs). Writes x·Aᵀ after each row of x.
    pub fn forward(
        &self,
        gpu: &Gpu,
        adapted: bool,
        x: StridedRows,
        rows: usize,
        residual: Option<Buffer<bf16>>,
        y: StridedRows,
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

    /// The gradient `dx` (rows, inputs) of the input from that of the adapted output. Writes dy·s·B after each row of
    /// dy.
    pub fn input_gradient(&self, gpu: &Gpu, dy: StridedRows, rows: usize, dx: Buffer<bf16>) -> Result<()> {
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

    /// Adds the gradients of `group` to `grads`, which has the layout of the adapter's parameters. `shrunk` is x·Aᵀ,
    /// and after each row of `dy` are the values that [`CudaLinear::input_gradient`] wrote.
    #[allow(clippy::too_many_arguments, reason = "all operands of two product rules")]
    pub fn lora_gradient(
        &self,
        gpu: &Gpu,
        group: &LoraGroup,
        grads: Buffer<f32>,
        x: StridedRows,
        shrunk: Matrix<bf16>,
        dy: StridedRows,
        rows: usize,
    ) -> Result<()> {
        let (rank, padded) = (group.rank, padded_rank(group.rank));
        for (i, part) in group.parts.iter().enumerate() {
            let (width, to) = (part.columns.len(), grads.slice(part.b.clone()));
            let left = shrunk.columns(i * padded, rank).t();
            let right = Matrix::behind(dy, rows, part.columns.start, width);
            gpu.blas.add_product(group.scale, left, right, to, Matrix::new(to, rank, width))?;
        }
        // The gradients of all A are contiguous: one product, unless there are unused columns between them.
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

    /// Writes the weights of `group` next to W: A and s·B from the adapter's f32 parameters.
    pub fn write_lora(&self, gpu: &Gpu, group: &LoraGroup, params: Buffer<f32>) -> Result<()> {
        let (rank, padded) = (group.rank, padded_rank(group.rank));
        for (i, part) in group.parts.iter().enumerate() {
            let a = params.slice(group.a.start + i * rank * self.inputs..group.a.end);
            let b = params.slice(part.b.clone());
            let shape = LaunchShape::new((padded * (self.inputs + self.outputs) / 8).div_ceil(256), 256);
            let written = size_of::<bf16>() * padded * (self.inputs + self.outputs);
            // SAFETY: a thread per 8 values of the part's lines of A and columns of B, all of which are within the
            // storage.
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
