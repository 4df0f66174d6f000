//! SwiGLU: silu(gate) · up (Shazeer, arXiv 2002.05202), on rows that contain gate and up side by side.

use super::simd::{exp, vectorized};
use rayon::prelude::*;

/// gate_up (rows, 2·width) -> (rows, width).
pub fn forward(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut y = vec![0.0; gate_up.len() / 2];
    let rows = y.par_chunks_mut(width).zip(gate_up.par_chunks(2 * width)).with_min_len(super::ROWS_PER_TASK);
    rows.for_each(|(y, row)| {
        vectorized(
            #[inline(always)]
            || {
                let (gate, up) = row.split_at(width);
                for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                    *y = gate * sigmoid(*gate) * up;
                }
            },
        );
    });
    y
}

/// dy (rows, width) -> gradient of gate_up (rows, 2·width), which replaces the values.
pub fn backward(dy: &[f32], gate_up: &mut [f32], width: usize) {
    let rows = gate_up.par_chunks_mut(2 * width).zip(dy.par_chunks(width)).with_min_len(super::ROWS_PER_TASK);
    rows.for_each(|(row, dy)| {
        vectorized(
            #[inline(always)]
            || {
                let (gate, up) = row.split_at_mut(width);
                for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
                    let s = sigmoid(*gate);
                    // Not 1 + gate - gate·s, which loses the 1 for a large gate.
                    let d_gate = dy * *up * s * (1.0 + *gate * (1.0 - s));
                    *up = dy * *gate * s;
                    *gate = d_gate;
                }
            },
        );
    });
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // Below -87 the exponential would exceed f32's range; the sigmoid is then zero to within f32.
    1.0 / (1.0 + exp(if x < -87.0 { 87.0 } else { -x }))
}
