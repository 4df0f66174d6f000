//! Bias, rotary positions and the write to the cache; the way back.

use super::shim::{
    Arg, Module, bf16, close, f32s, grid, i32s, in_rows, int, module, normal, out, rows as in_wide, u32s,
};
use rft::model::config::ModelConfig;
use rft::ops::attention::Heads;
use rft::ops::rope::RopeTable;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> =
    LazyLock::new(|| module("qkv_rope", &["qkv_rope_forward", "qkv_rope_backward"]));

/// The embedded model, Qwen2.5 0.5B, and the heads of a 7B group.
const HEADS: [Heads; 3] =
    [Heads { query: 4, kv: 2, dim: 32 }, Heads { query: 14, kv: 2, dim: 64 }, Heads { query: 7, kv: 1, dim: 128 }];
const POSITIONS: [u32; 5] = [0, 3, 90, 17, 4];

fn table(dim: usize) -> RopeTable {
    let config = ModelConfig { rope_theta: 1e6, ..ModelConfig::qwen2(1, dim, (1, 1), 1, 1) };
    RopeTable::new(&config, 100)
}

/// Cosines and sines as the kernels read them: what becomes of a one in the first half of a head.
fn angles(rope: &RopeTable, dim: usize) -> (Vec<f32>, Vec<f32>) {
    let positions: Vec<u32> = (0..rope.positions() as u32).collect();
    let mut ones = [vec![1.0; dim / 2], vec![0.0; dim / 2]].concat().repeat(positions.len());
    rope.forward(&mut ones, dim, 1, &positions);
    let halves = |first: usize| ones.chunks(dim).flat_map(move |row| row[first..first + dim / 2].to_vec()).collect();
    (halves(0), halves(dim / 2))
}

fn threads(rows: usize, heads: usize, dim: usize) -> super::shim::Shape {
    grid((rows * heads * dim / 16).div_ceil(256), 256)
}

#[test]
fn forward_writes_rows_and_cache() {
    let Some(device) = &*DEVICE else { return };
    for heads in HEADS {
        let (rows, width, dim) = (POSITIONS.len(), heads.qkv_width(), heads.dim);
        let (qkv, bias) = (normal(1, rows * width), normal(2, width));
        let rope = table(dim);
        let (cos, sin) = angles(&rope, dim);
        // The third row goes to no slot.
        let (slots, cells, capacity) = ([1, 0, -1, 1, 2], [3, 0, 1, 4, 4], 5);
        let cache = out(2 * 3 * heads.kv * capacity * dim);
        let run = |bias: Arg, cache: Arg| {
            let shape = threads(rows, heads.query + 2 * heads.kv, dim);
            let sizes = [rows, heads.query, heads.kv, dim, capacity].map(int);
            let tables = [bf16(&qkv), bias, f32s(&cos), f32s(&sin), u32s(&POSITIONS)];
            let cells = [cache.clone(), cache, i32s(&slots), i32s(&cells)];
            device.launch("qkv_rope_forward", shape, &[&tables[..], &cells, &sizes].concat())
        };

        let got = run(bf16(&bias), cache);
        let mut expected: Vec<f32> = qkv.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
        rope.forward(&mut expected, width, heads.query + heads.kv, &POSITIONS);
        let rotated = got.bf16(0);
        close(&format!("qkv_rope_forward {dim}"), &rotated, &expected, 2e-3);
        let (keys, values) = (got.bf16(5), got.bf16(6));
        let mut written = 0;
        for (row, (&slot, &cell)) in rotated.chunks(width).zip(slots.iter().zip(&cells)).filter(|(_, (s, _))| **s >= 0)
        {
            for head in 0..heads.kv {
                let at = ((slot as usize * heads.kv + head) * capacity + cell as usize) * dim;
                let key = (heads.query + head) * dim;
                assert_eq!(keys[at..at + dim], row[key..key + dim]);
                let value = key + heads.kv * dim;
                assert_eq!(values[at..at + dim], row[value..value + dim]);
                written += dim;
            }
        }
        for cache in [keys, values] {
            assert_eq!(cache.iter().filter(|x| !x.is_nan()).count(), written, "only the cells that were named");
        }

        // In training there is no cache, and other families have no bias.
        let mut expected = qkv.clone();
        rope.forward(&mut expected, width, heads.query + heads.kv, &POSITIONS);
        close("without bias and cache", &run(Arg::Null, Arg::Null).bf16(0), &expected, 2e-3);
    }
}

#[test]
fn backward_turns_back() {
    let Some(device) = &*DEVICE else { return };
    for heads in HEADS {
        let (rows, width, dim) = (POSITIONS.len(), heads.qkv_width(), heads.dim);
        let mut d_qkv = normal(1, rows * width);
        let rope = table(dim);
        let (cos, sin) = angles(&rope, dim);
        // Behind the gradient there are columns of an adapter.
        let tables = [in_wide(&d_qkv, width, 16), f32s(&cos), f32s(&sin), u32s(&POSITIONS)];
        let sizes = [rows, heads.query, heads.kv, dim, width + 16].map(int);
        let shape = threads(rows, heads.query + heads.kv, dim);
        let got = device.launch("qkv_rope_backward", shape, &[&tables[..], &sizes].concat());
        rope.backward(&mut d_qkv, width, heads.query + heads.kv, &POSITIONS);
        close(&format!("qkv_rope_backward {dim}"), &in_rows(&got.bf16(0), width, 16), &d_qkv, 2e-3);
    }
}
