//! Branch attention over packed groups, forward and backward, against the operation on the CPU.

use super::shim::{Arg, Module, Shape, bf16, close, f32s, in_rows, int, module, normal, out, rows as in_wide};
use rft::ops::attention::{self, Heads, Part};
use rft::ops::attention_tiles::Tiles;
use std::sync::LazyLock;

static FORWARD: LazyLock<Option<Module>> = LazyLock::new(|| {
    let names = ["branch_attention_forward_d32", "branch_attention_forward_d64", "branch_attention_forward_d128"];
    module("branch_attention", &names)
});

static BACKWARD: LazyLock<Option<Module>> = LazyLock::new(|| {
    let names = [
        "branch_attention_dots",
        "branch_attention_backward_queries_d32",
        "branch_attention_backward_queries_d64",
        "branch_attention_backward_queries_d128",
        "branch_attention_backward_keys_d32",
        "branch_attention_backward_keys_d64",
        "branch_attention_backward_keys_d128",
        "branch_attention_backward_sum",
    ];
    module("branch_attention_backward", &names)
});

/// Columns of an adapter behind the outputs, and behind the gradient of qkv.
const COLUMNS: [usize; 2] = [24, 8];

/// Parts one after the other, each of a prompt and branches of these lengths.
fn pack(lengths: &[(usize, &[usize])]) -> Vec<Part> {
    let mut end = 0;
    let mut next = |len: usize| {
        end += len;
        end - len..end
    };
    let part = |(prompt, branches): &(usize, &[usize])| Part {
        prompt: next(*prompt),
        branches: branches.iter().map(|len| next(*len)).collect(),
    };
    lengths.iter().map(part).collect()
}

/// Heads and packs: all widths, 1 to 8 heads to a group; prompts of odd lengths, of one token and over several tiles;
/// branches of no token, of one, of a tile's and of odd lengths.
fn cases() -> Vec<(Heads, Vec<Part>)> {
    let heads = |query, kv, dim| Heads { query, kv, dim };
    vec![
        (heads(4, 2, 32), pack(&[(5, &[3, 0, 1]), (1, &[64, 7])])),
        (heads(1, 1, 64), pack(&[(131, &[1, 0, 20])])),
        (heads(7, 1, 64), pack(&[(37, &[18, 20])])),
        (heads(6, 2, 128), pack(&[(1, &[]), (23, &[9, 1])])),
        (heads(7, 1, 128), pack(&[(70, &[1, 20]), (3, &[0])])),
        (heads(8, 1, 128), pack(&[(17, &[16, 5])])),
    ]
}

fn rows_of(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.prompt.len() + part.branches.iter().map(ExactSizeIterator::len).sum::<usize>()).sum()
}

fn tiles_arg<const N: usize>(tiles: impl Iterator<Item = [i32; N]>) -> Arg {
    Arg::Buffer(tiles.flatten().flat_map(i32::to_ne_bytes).collect())
}

fn grid(x: usize, y: usize, shared: usize) -> Shape {
    Shape { blocks: [x as u32, y as u32, 1], threads: 128, shared: shared as u32 }
}

fn query_tiles(tiles: &Tiles) -> Arg {
    tiles_arg(tiles.queries.iter().map(|t| [t.start, t.count, t.prompt_start, t.prompt_count, t.own_start]))
}

/// The outputs and their log-sum-exp.
fn forward(device: &Module, heads: Heads, qkv: &[f32], tiles: &Tiles) -> (Vec<f32>, Vec<f32>) {
    let rows = qkv.len() / heads.qkv_width();
    let stride = heads.out_width() + COLUMNS[0];
    let buffers = [bf16(qkv), out(2 * rows * stride), out(4 * rows * heads.query), query_tiles(tiles)];
    let arguments = [&buffers[..], &[int(heads.query / heads.kv), int(stride)]].concat();
    let name = format!("branch_attention_forward_d{}", heads.dim);
    let got = device.launch(&name, grid(heads.kv, tiles.queries.len(), 768 * heads.dim), &arguments);
    (in_rows(&got.bf16(1), heads.out_width(), COLUMNS[0]), got.f32(2))
}

#[test]
fn forward_of_packs() {
    let Some(device) = &*FORWARD else { return };
    for (i, (heads, parts)) in cases().into_iter().enumerate() {
        let qkv = normal(i as u64, rows_of(&parts) * heads.qkv_width());
        let (got, got_lse) = forward(device, heads, &qkv, &Tiles::new(&parts, heads.query / heads.kv));
        let (out, lse) = attention::forward(heads, &qkv, &parts);
        close(&format!("outputs of {heads:?}"), &got, &out, 5e-3);
        close("log-sum-exp", &got_lse, &lse, 1e-6);
    }
}

/// The gradient of qkv by all kernels of the backward, of which each writes its part.
fn backward(
    device: &Module,
    heads: Heads,
    qkv: &[f32],
    tiles: &Tiles,
    out_of: &[f32],
    lse: &[f32],
    d_out: &[f32],
) -> Vec<f32> {
    let Heads { query, kv, dim } = heads;
    let (rows, group) = (lse.len() / query, query / kv);
    let count = rows * query;
    let blocks = (count * dim / 8).div_ceil(256);
    let (width, stride) = (heads.out_width(), heads.out_width() + COLUMNS[0]);
    let buffers = [in_wide(out_of, width, COLUMNS[0]), bf16(d_out), out(4 * count)];
    let arguments = [&buffers[..], &[count, query, dim, stride].map(int)].concat();
    let dots = device.launch("branch_attention_dots", super::shim::grid(blocks, 256), &arguments).buffer(2);

    let shared = if dim == 128 { 768 * dim } else { 1024 * dim };
    let shape = grid(kv, tiles.queries.len(), shared);
    let name = format!("branch_attention_backward_queries_d{dim}");
    let (width, stride) = (heads.qkv_width(), heads.qkv_width() + COLUMNS[1]);
    let d_qkv = out(2 * rows * stride);
    let buffers = [bf16(qkv), f32s(lse), bf16(d_out), dots.clone(), d_qkv, query_tiles(tiles)];
    let arguments = [&buffers[..], &[int(group), int(stride)]].concat();
    let d_qkv = device.launch(&name, shape, &arguments).buffer(4);

    let key_tiles = tiles.keys.iter().map(|t| [t.start, t.count, t.own_end, t.others_start, t.from, t.to, t.slot]);
    let shape = grid(kv, tiles.keys.len(), 768 * dim + 1024);
    let name = format!("branch_attention_backward_keys_d{dim}");
    let partial = out(4 * tiles.partial_len(heads));
    let buffers = [bf16(qkv), f32s(lse), bf16(d_out), dots, d_qkv, partial, tiles_arg(key_tiles)];
    let arguments = [&buffers[..], &[int(group), int(stride)]].concat();
    let got = device.launch(&name, shape, &arguments);
    if tiles.sums.is_empty() {
        return in_rows(&got.bf16(4), width, COLUMNS[1]);
    }
    let sums = tiles_arg(tiles.sums.iter().map(|t| [t.start, t.count, t.slot, t.slots]));
    let arguments = [got.buffer(5), got.buffer(4), sums, int(group), int(dim), int(stride)];
    let shape = Shape { threads: 256, ..grid(kv, tiles.sums.len(), 0) };
    in_rows(&device.launch("branch_attention_backward_sum", shape, &arguments).bf16(1), width, COLUMNS[1])
}

/// Compares the gradients of q, k and v each by itself: they differ in size.
fn check_backward(path: u64, heads: Heads, parts: &[Part], tiles: &Tiles) {
    let Some(device) = &*BACKWARD else { return };
    let qkv = normal(path, rows_of(parts) * heads.qkv_width());
    let d_out = normal(100 + path, rows_of(parts) * heads.out_width());
    let (out, lse) = attention::forward(heads, &qkv, parts);
    let got = backward(device, heads, &qkv, tiles, &out, &lse, &d_out);
    let expected = attention::backward(heads, &qkv, parts, &out, &lse, &d_out);
    let (q, k) = (heads.out_width(), heads.out_width() + heads.kv * heads.dim);
    for (name, columns) in [("q", 0..q), ("k", q..k), ("v", k..heads.qkv_width())] {
        let of = |values: &[f32]| -> Vec<f32> {
            values.chunks(heads.qkv_width()).flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        close(&format!("gradient of {name} of {heads:?}"), &of(&got), &of(&expected), 1e-2);
    }
}

#[test]
fn backward_of_packs() {
    for (i, (heads, parts)) in cases().into_iter().enumerate() {
        check_backward(i as u64, heads, &parts, &Tiles::new(&parts, heads.query / heads.kv));
    }
}

/// The gradients of a prompt's keys in several sums, each of a few of the tokens that see them.
#[test]
fn backward_in_partial_sums() {
    let heads = Heads { query: 6, kv: 2, dim: 64 };
    let parts = pack(&[(70, &[5, 30, 1])]);
    let tiles = Tiles::with_tasks(&parts, heads.query / heads.kv, 90);
    assert!(tiles.sums.len() >= 2 && tiles.slots >= 6, "{tiles:?}");
    check_backward(50, heads, &parts, &tiles);
}
