//! Rotary position embedding in the half-split form of Qwen and Llama (Su et al., arXiv 2104.09864).

use rayon::prelude::*;

/// Cosines and sines of all positions, always in f32: (positions, head_dim / 2) each.
pub struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// `frequencies` (head_dim / 2) are the angles by which each pair is rotated from one position to the next.
    pub fn new(frequencies: &[f32], positions: usize) -> Self {
        let half = frequencies.len();
        // The angle is rounded to f32 before its cosine is computed, because the models were trained this way.
        let angle = |i: usize| (i / half) as f32 * frequencies[i % half];
        let values = |f: fn(f32) -> f32| (0..positions * half).map(|i| f(angle(i))).collect();
        Self { cos: values(f32::cos), sin: values(f32::sin), half }
    }

    /// (positions, head_dim / 2)
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// (positions, head_dim / 2)
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Rotates `heads` heads at the start of each row of `x` (rows, stride) by the row's position, in place.
    pub fn forward(&self, x: &mut [f32], stride: usize, heads: usize, positions: &[u32]) {
        self.rotate(x, stride, heads, positions, 1.0);
    }

    /// Rotates the gradient back by the same angles.
    pub fn backward(&self, dx: &mut [f32], stride: usize, heads: usize, positions: &[u32]) {
        self.rotate(dx, stride, heads, positions, -1.0);
    }

    fn rotate(&self, x: &mut [f32], stride: usize, heads: usize, positions: &[u32], direction: f32) {
        let half = self.half;
        x.par_chunks_mut(stride).zip(positions).with_min_len(super::ROWS_PER_TASK).for_each(|(row, &position)| {
            let at = position as usize * half;
            let (cos, sin) = (&self.cos[at..at + half], &self.sin[at..at + half]);
            for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                for i in 0..half {
                    let (a, b, sin) = (first[i], second[i], direction * sin[i]);
                    first[i] = a * cos[i] - b * sin;
                    second[i] = b * cos[i] + a * sin;
                }
            }
        });
    }
}
