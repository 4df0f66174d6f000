//! The norm on each head of q and k, and its backward.

use super::shim::{Arg, Module, Shape, bf16, close, float, grid, in_rows, int, module, normal, out, rows as in_wide};
use rft::ops::attention::Heads;
use rft::ops::qk_norm;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("qk_norm", &["qk_norm_forward", "qk_norm_backward"]));

const EPS: f32 = 1e-6;
/// The heads of Qwen3's shapes, and smaller ones; threads that are no multiple of a block, nor of a warp.
const HEADS: [(Heads, usize); 4] = [
    (Heads { query: 4, kv: 1, dim: 32 }, 9),
    (Heads { query: 4, kv: 2, dim: 64 }, 5),
    (Heads { query: 16, kv: 8, dim: 128 }, 3),
    (Heads { query: 3, kv: 3, dim: 32 }, 1),
];

fn shape(rows: usize, heads: Heads) -> Shape {
    grid((rows * (heads.query + heads.kv) * heads.dim / 8).div_ceil(256), 256)
}

fn sizes(rows: usize, heads: Heads) -> [Arg; 5] {
    let [rows, query, kv, dim] = [rows, heads.query, heads.kv, heads.dim].map(int);
    [rows, query, kv, dim, float(EPS)]
}

#[test]
fn forward_in_place_and_what_was_before() {
    let Some(device) = &*DEVICE else { return };
    for (heads, rows) in HEADS {
        let Heads { query, kv, dim } = heads;
        let qkv = normal(1, rows * heads.qkv_width());
        // Unlike for q and k, and away from 1.
        let weights: Vec<f32> = normal(2, 2 * dim);
        let (q_weight, k_weight) = weights.split_at(dim);
        let run = |before: Arg| {
            let buffers = [bf16(&qkv), bf16(&weights), before];
            device.launch("qk_norm_forward", shape(rows, heads), &[&buffers[..], &sizes(rows, heads)].concat())
        };
        let got = run(out(2 * rows * (query + kv) * dim));
        let mut expected = qkv.clone();
        qk_norm::forward(heads, &mut expected, q_weight, k_weight, EPS);
        close(&format!("qk_norm_forward {query} over {kv} of {dim}"), &got.bf16(0), &expected, 2e-3);
        let before: Vec<f32> =
            qkv.chunks(heads.qkv_width()).flat_map(|row| row[..(query + kv) * dim].to_vec()).collect();
        assert_eq!(got.bf16(2), before);
        for (row, from) in got.bf16(0).chunks(heads.qkv_width()).zip(qkv.chunks(heads.qkv_width())) {
            assert_eq!(row[(query + kv) * dim..], from[(query + kv) * dim..], "v stays");
        }
        // Decoding keeps nothing.
        assert_eq!(run(Arg::Null).bf16(0), got.bf16(0));
    }
}

#[test]
fn backward_in_place() {
    let Some(device) = &*DEVICE else { return };
    for (heads, rows) in HEADS {
        let Heads { query, kv, dim } = heads;
        let (mut qkv, mut d_qkv) = (normal(3, rows * heads.qkv_width()), normal(4, rows * heads.qkv_width()));
        let weights: Vec<f32> = normal(5, 2 * dim);
        let (q_weight, k_weight) = weights.split_at(dim);
        let before: Vec<f32> =
            qkv.chunks(heads.qkv_width()).flat_map(|row| row[..(query + kv) * dim].to_vec()).collect();
        // Behind the gradient there are columns of an adapter.
        let width = heads.qkv_width();
        let buffers = [in_wide(&d_qkv, width, 8), bf16(&weights), bf16(&before)];
        let numbers = [[rows, query, kv, dim, width + 8].map(int).to_vec(), vec![float(EPS)]].concat();
        let arguments = [&buffers[..], &numbers].concat();
        let got = device.launch("qk_norm_backward", shape(rows, heads), &arguments).bf16(0);
        let got = in_rows(&got, width, 8);
        let saved = qk_norm::forward(heads, &mut qkv, q_weight, k_weight, EPS);
        qk_norm::backward(heads, &saved, &mut d_qkv, q_weight, k_weight);
        close(&format!("qk_norm_backward {query} over {kv} of {dim}"), &got, &d_qkv, 3e-3);
    }
}
