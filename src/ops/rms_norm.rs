//! RMSNorm, with the residual addition that comes before it.
//!
//! y = x · w / √(mean(x²) + ε) (Zhang and Sennrich, arXiv 1910.07467).

use super::ROWS_PER_TASK;
use super::simd::{dot, vectorized};
use rayon::prelude::*;

/// x (rows, width) -> (y, 1/rms): y (rows, width), 1/rms (rows). A row whose sum of squares is not finite becomes NaN.
pub fn forward(x: &[f32], weight: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let (mut y, mut scales) = (vec![0.0; x.len()], vec![0.0; x.len() / width]);
    let tasks = (y.par_chunks_mut(ROWS_PER_TASK * width), x.par_chunks(ROWS_PER_TASK * width));
    tasks.into_par_iter().zip(scales.par_chunks_mut(ROWS_PER_TASK)).for_each(|((y, x), scales)| {
        vectorized(
            #[inline(always)]
            || {
                let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for ((y, x), scale) in rows.zip(scales) {
                    let square = dot(x, x) / width as f32;
                    // An infinite square would give zeros, which hide that the values are too large.
                    *scale = if square < f32::INFINITY { 1.0 / (square + eps).sqrt() } else { f32::NAN };
                    for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                        *y = x * *scale * weight;
                    }
                }
            },
        );
    });
    (y, scales)
}

/// `forward` of x + delta. The sum is left in `x`, the residual stream.
pub fn forward_residual(x: &mut [f32], delta: &[f32], weight: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    x.par_chunks_mut(1 << 14).zip(delta.par_chunks(1 << 14)).for_each(|(x, delta)| {
        x.iter_mut().zip(delta).for_each(|(x, delta)| *x += delta);
    });
    forward(x, weight, eps)
}

/// The output, recomputed from the input and the saved 1/rms.
pub fn recompute(x: &[f32], scales: &[f32], weight: &[f32]) -> Vec<f32> {
    let width = weight.len();
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(width).zip(x.par_chunks(width)).zip(scales).for_each(|((y, x), scale)| {
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * *scale * weight;
        }
    });
    y
}

/// Adds the gradient of the input to `dx` (rows, width).
pub fn backward(dy: &[f32], x: &[f32], scales: &[f32], weight: &[f32], dx: &mut [f32]) {
    let width = weight.len();
    let rows = dx.par_chunks_mut(width).zip(dy.par_chunks(width)).zip(x.par_chunks(width)).zip(scales);
    rows.with_min_len(ROWS_PER_TASK).for_each_init(
        || vec![0.0; width],
        |weighted, (((dx, dy), x), &scale)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((weighted, dy), weight) in weighted.iter_mut().zip(dy).zip(weight) {
                        *weighted = dy * weight;
                    }
                    let common = dot(weighted, x) * scale * scale * scale / width as f32;
                    for ((dx, weighted), x) in dx.iter_mut().zip(weighted.iter()).zip(x) {
                        *dx += weighted * scale - x * common;
                    }
                },
            );
        },
    );
}
