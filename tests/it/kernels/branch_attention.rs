//! Branch attention over packed groups, forward and backward, against the operation on the CPU.

use super::shim::{Arg, Module, Outputs, Shape, bf16, close, int, module, normal, out};
use rft::ops::attention::{self, Heads, Part};
use rft::ops::attention_tiles::Tiles;
use std::sync::LazyLock;

static FORWARD: LazyLock<Option<Module>> = LazyLock::new(|| {
    module(
        "branch_attention",
        &["branch_attention_forward_d32", "branch_attention_forward_d64", "branch_attention_forward_d128"],
    )
});

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
        (heads(2, 2, 64), pack(&[(131, &[1, 0, 70])])),
        (heads(7, 1, 64), pack(&[(37, &[18, 19, 0, 36])])),
        (heads(6, 2, 128), pack(&[(1, &[]), (23, &[9, 1])])),
        (heads(7, 1, 128), pack(&[(150, &[1, 20]), (3, &[40])])),
        (heads(8, 1, 128), pack(&[(17, &[16, 33])])),
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

fn forward(device: &Module, heads: Heads, qkv: &[f32], tiles: &Tiles) -> Outputs {
    let rows = qkv.len() / heads.qkv_width();
    let (out_bytes, lse_bytes) = (2 * rows * heads.out_width(), 4 * rows * heads.query);
    let arguments = [bf16(qkv), out(out_bytes), out(lse_bytes), query_tiles(tiles), int(heads.query / heads.kv)];
    let name = format!("branch_attention_forward_d{}", heads.dim);
    device.launch(&name, grid(heads.kv, tiles.queries.len(), 768 * heads.dim), &arguments)
}

#[test]
fn forward_of_packs() {
    let Some(device) = &*FORWARD else { return };
    for (i, (heads, parts)) in cases().into_iter().enumerate() {
        let qkv = normal(i as u64, rows_of(&parts) * heads.qkv_width());
        let got = forward(device, heads, &qkv, &Tiles::new(&parts, heads.query / heads.kv));
        let (out, lse) = attention::forward(heads, &qkv, &parts);
        close(&format!("outputs of {heads:?}"), &got.bf16(1), &out, 5e-3);
        close("log-sum-exp", &got.f32(2), &lse, 1e-6);
    }
}
