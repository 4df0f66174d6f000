//! RMSNorm on each head of q and k (Qwen3), in place on rows that contain q, k and v side by side.

use super::attention::Heads;
use super::rms_norm;

/// What the backward needs: q and k before the norm, (rows · heads, dim) each, with their 1/rms.
pub struct SavedQk {
    q: (Vec<f32>, Vec<f32>),
    k: (Vec<f32>, Vec<f32>),
}

/// Normalizes q and k of `qkv` (rows, qkv_width) in place; the weights are (dim) each.
pub fn forward(heads: Heads, qkv: &mut [f32], q_weight: &[f32], k_weight: &[f32], eps: f32) -> SavedQk {
    let [q, k] = columns(heads).map(|columns| gather(heads, qkv, columns));
    let (q_out, q_scales) = rms_norm::forward(&q, q_weight, eps);
    let (k_out, k_scales) = rms_norm::forward(&k, k_weight, eps);
    for (columns, out) in columns(heads).into_iter().zip([q_out, k_out]) {
        scatter(heads, &out, columns, qkv);
    }
    SavedQk { q: (q, q_scales), k: (k, k_scales) }
}

/// Replaces the gradient of the output by that of the input, in place.
pub fn backward(heads: Heads, saved: &SavedQk, d_qkv: &mut [f32], q_weight: &[f32], k_weight: &[f32]) {
    for (columns, ((x, scales), weight)) in columns(heads).into_iter().zip([(&saved.q, q_weight), (&saved.k, k_weight)])
    {
        let dy = gather(heads, d_qkv, columns);
        let mut dx = vec![0.0; dy.len()];
        rms_norm::backward(&dy, x, scales, weight, &mut dx);
        scatter(heads, &dx, columns, d_qkv);
    }
}

/// First column and width of q, and of k.
fn columns(heads: Heads) -> [(usize, usize); 2] {
    let (q, k) = (heads.query * heads.dim, heads.kv * heads.dim);
    [(0, q), (q, k)]
}

fn gather(heads: Heads, qkv: &[f32], (first, width): (usize, usize)) -> Vec<f32> {
    qkv.chunks_exact(heads.qkv_width()).flat_map(|row| &row[first..first + width]).copied().collect()
}

fn scatter(heads: Heads, from: &[f32], (first, width): (usize, usize), qkv: &mut [f32]) {
    for (row, from) in qkv.chunks_exact_mut(heads.qkv_width()).zip(from.chunks_exact(width)) {
        row[first..first + width].copy_from_slice(from);
    }
}
