//! Log-probabilities, entropies and the gradient of the logits.

use super::shim::{Module, close, f32s, float, grid, i32s, int, module, normal, out, size};
use rft::ops::head::{Head, Pair, TokenGrad, TokenStats};
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("head", &["head_forward_f32", "head_backward_f32"]));

const ROWS: usize = 4;
const THREADS: usize = 512;
/// (vocabulary, stride): the embedded model, whose rows are padded, and one that takes two turns of the block.
const SIZES: [(usize, usize); 2] = [(770, 776), (4200, 4200)];

/// Rows of logits with NaN in the padding. The last row has a token that is impossible.
fn logits(vocab: usize, stride: usize) -> Vec<f32> {
    let mut rows = vec![f32::NAN; ROWS * stride];
    for (row, values) in rows.chunks_mut(stride).zip(normal(1, ROWS * vocab).chunks(vocab)) {
        // Times 4: powers of two keep what bf16 has.
        row.iter_mut().zip(values).for_each(|(to, value)| *to = 4.0 * value);
    }
    rows[(ROWS - 1) * stride + 5] = f32::NEG_INFINITY;
    rows
}

/// The CPU's head on a weight that is the identity, so that the hidden rows are the logits.
fn expected(
    logits: &[f32],
    stride: usize,
    vocab: usize,
    pairs: &[Pair],
    t: f32,
    grads: &[TokenGrad],
) -> (Vec<TokenStats>, Vec<f32>) {
    let mut identity = vec![0.0; vocab * vocab];
    identity.iter_mut().step_by(vocab + 1).for_each(|x| *x = 1.0);
    // A product with -∞ would be NaN: its neighbours are 0.
    let rows: Vec<f32> = logits.chunks(stride).flat_map(|row| &row[..vocab]).map(|x| x.max(-1e30)).collect();
    let mut d_logits = vec![0.0; rows.len()];
    let head = Head { weight: &identity, hidden: vocab, vocab };
    let stats = head.backward(&rows, pairs, t, |i, _| grads[i], &mut d_logits);
    (stats, d_logits)
}

#[test]
fn forward_and_backward() {
    let Some(device) = &*DEVICE else { return };
    let grads: Vec<TokenGrad> =
        normal(2, 2 * ROWS).chunks(2).map(|g| TokenGrad { logprob: g[0], entropy: g[1] }).collect();
    let of = |field: fn(&TokenGrad) -> f32| f32s(&grads.iter().map(field).collect::<Vec<_>>());
    for ((vocab, stride), temperature) in SIZES.into_iter().zip([1.0, 0.7]) {
        let logits = logits(vocab, stride);
        let pairs: Vec<Pair> = (0..ROWS).map(|row| Pair { row, target: (row * 251 % vocab) as u32 }).collect();
        let targets = i32s(&pairs.iter().map(|pair| pair.target as i32).collect::<Vec<_>>());
        let (stats, d_logits) = expected(&logits, stride, vocab, &pairs, temperature, &grads);
        let shape = [int(vocab), size(stride), float(temperature)];
        let buffers = [f32s(&logits), targets.clone(), out(4 * ROWS), out(4 * ROWS), out(4 * ROWS)];
        let forward = device.launch("head_forward_f32", grid(ROWS, THREADS), &[&buffers[..], &shape].concat());
        let field = |field: fn(&TokenStats) -> f32| stats.iter().map(field).collect::<Vec<_>>();
        close(&format!("log-probability of {vocab}"), &forward.f32(2), &field(|s| s.logprob), 1e-6);
        close("its entropy", &forward.f32(3), &field(|s| s.entropy), 1e-6);

        let statistics = [forward.buffer(3), forward.buffer(4), of(|g| g.logprob), of(|g| g.entropy)];
        let arguments = [&[f32s(&logits), targets][..], &statistics, &shape].concat();
        let backward = device.launch("head_backward_f32", grid(ROWS, THREADS), &arguments);
        // The gradient is bf16, in the first half of the row.
        let rows = backward.bf16(0);
        let rows = || rows.chunks(2 * stride);
        let got: Vec<f32> = rows().flat_map(|row| &row[..vocab]).copied().collect();
        close(&format!("gradient of {vocab} logits"), &got, &d_logits, 3e-3);
        assert!(rows().all(|row| row[vocab..stride].iter().all(|x| *x == 0.0)), "padding is no gradient");
    }
}
