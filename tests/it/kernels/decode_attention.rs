//! Decode attention over slots of a cache, against the operation on the CPU.

use super::shim::{Arg, Module, Shape, bf16, close, in_rows, int, module, normal, out};
use rft::ops::attention::{self, Heads, KvSpan};
use rft::ops::attention_tiles::DECODE_SPAN;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| {
    let names = [
        "decode_attention_spans_d32",
        "decode_attention_spans_d64",
        "decode_attention_spans_d128",
        "decode_attention_sum_d32",
        "decode_attention_sum_d64",
        "decode_attention_sum_d128",
    ];
    module("decode_attention", &names)
});

/// Keys and values of slots with room for `capacity` tokens: those of `rows` (tokens, qkv_width) at their slot, NaN in
/// what no token has written.
fn cache(heads: Heads, capacity: usize, slots: usize, rows: &[(usize, &[f32])]) -> [Arg; 2] {
    let Heads { query, kv, dim } = heads;
    [query, query + kv].map(|first| {
        let mut cells = vec![f32::NAN; slots * kv * capacity * dim];
        for (slot, rows) in rows {
            for (token, row) in rows.chunks(heads.qkv_width()).enumerate() {
                for head in 0..kv {
                    let at = ((slot * kv + head) * capacity + token) * dim;
                    cells[at..at + dim].copy_from_slice(&row[(first + head) * dim..][..dim]);
                }
            }
        }
        bf16(&cells)
    })
}

fn ints(values: &[usize]) -> Arg {
    Arg::Buffer(values.iter().flat_map(|value| (*value as i32).to_ne_bytes()).collect())
}

/// A row is its prompt's number and how many of its own tokens there are, the new one among them. `spans` is that of the
/// launch.
fn outputs(heads: Heads, prompts: &[usize], rows: &[(usize, usize)], spans: usize) -> Option<(Vec<f32>, Vec<f32>)> {
    let device = DEVICE.as_ref()?;
    let Heads { query, kv, dim } = heads;
    let width = heads.qkv_width();
    let prompt_qkv: Vec<Vec<f32>> = prompts.iter().enumerate().map(|(i, n)| normal(i as u64, n * width)).collect();
    let own_qkv: Vec<Vec<f32>> = rows.iter().map(|(p, n)| normal((100 * p + n) as u64, n * width)).collect();
    let (prompt_capacity, own_capacity) = (400, 300);

    // Slots in reverse: they are no row's number.
    let last = |count: usize, i: usize| count - 1 - i;
    let prompt_rows: Vec<_> =
        prompt_qkv.iter().enumerate().map(|(i, qkv)| (last(prompts.len(), i), &qkv[..])).collect();
    let own_rows: Vec<_> = own_qkv.iter().enumerate().map(|(i, qkv)| (last(rows.len(), i), &qkv[..])).collect();
    let [prompt_keys, prompt_values] = cache(heads, prompt_capacity, prompts.len(), &prompt_rows);
    let [own_keys, own_values] = cache(heads, own_capacity, rows.len(), &own_rows);
    let new: Vec<f32> = own_qkv.iter().flat_map(|qkv| qkv[qkv.len() - width..].to_vec()).collect();
    let prompt_slots: Vec<usize> = rows.iter().map(|(prompt, _)| last(prompts.len(), *prompt)).collect();
    let prompt_counts = ints(&rows.iter().map(|(prompt, _)| prompts[*prompt]).collect::<Vec<_>>());
    let own_slots: Vec<usize> = (0..rows.len()).map(|row| last(rows.len(), row)).collect();
    let own_counts = ints(&rows.iter().map(|(_, own)| *own).collect::<Vec<_>>());

    let lines = rows.len() * spans * query;
    let arguments = [
        bf16(&new),
        prompt_keys,
        prompt_values,
        own_keys,
        own_values,
        ints(&prompt_slots),
        prompt_counts.clone(),
        ints(&own_slots),
        own_counts.clone(),
        out(4 * lines * dim),
        out(4 * lines * 2),
        int(query / kv),
        int(prompt_capacity),
        int(own_capacity),
    ];
    let shape = Shape { blocks: [rows.len() as u32, kv as u32, spans as u32], threads: 128, shared: 0 };
    let got = device.launch(&format!("decode_attention_spans_d{dim}"), shape, &arguments);
    // Behind the outputs there are columns of an adapter.
    let stride = heads.out_width() + 8;
    let buffers = [got.buffer(9), got.buffer(10), prompt_counts, own_counts, out(2 * rows.len() * stride)];
    let arguments = [&buffers[..], &[query / kv, spans, stride].map(int)].concat();
    let shape = Shape { blocks: [rows.len() as u32, query as u32, 1], threads: dim as u32, shared: 0 };
    let got = device.launch(&format!("decode_attention_sum_d{dim}"), shape, &arguments).bf16(4);
    let got = in_rows(&got, heads.out_width(), 8);

    let span = |qkv: &[f32]| {
        let mut span = KvSpan::new(heads, qkv.len() / width);
        span.extend(qkv);
        span
    };
    let prompt_spans: Vec<KvSpan> = prompt_qkv.iter().map(|qkv| span(qkv)).collect();
    let mut own_spans: Vec<KvSpan> = own_qkv.iter().map(|qkv| span(&qkv[..qkv.len() - width])).collect();
    let of_rows: Vec<&KvSpan> = rows.iter().map(|(prompt, _)| &prompt_spans[*prompt]).collect();
    let expected = attention::decode(heads, &new, &of_rows, &mut own_spans.iter_mut().collect::<Vec<_>>());
    Some((got, expected))
}

/// Heads (query, KV, width), lengths of prompts, and rows as in [`outputs`].
type Case = ((usize, usize, usize), &'static [usize], &'static [(usize, usize)]);

/// 1 to 8 heads to a group; prompts of no token, of one, and of more than a span; a first token; ends of prompts and rows
/// on, before and behind the edges of spans and steps.
#[test]
fn decode_of_rows() {
    let cases: [Case; 5] = [
        ((4, 2, 32), &[5, 33], &[(0, 1), (0, 12), (1, 20)]),
        ((2, 2, 64), &[1, 250], &[(1, 1), (1, 6), (1, 7), (0, 16)]),
        ((7, 1, 64), &[0, 300], &[(0, 1), (1, 230)]),
        ((7, 1, 128), &[37, 256], &[(0, 1), (0, 11), (1, 1)]),
        ((8, 1, 128), &[60], &[(0, 4), (0, 5)]),
    ];
    for ((query, kv, dim), prompts, rows) in cases {
        let heads = Heads { query, kv, dim };
        let Some((got, expected)) = outputs(heads, prompts, rows, 3) else { return };
        close(&format!("decode attention of {heads:?}"), &got, &expected, 5e-3);
    }
}

/// A row gives the same bits whatever rows are beside it, however many spans the launch has room for.
#[test]
fn a_row_does_not_see_its_neighbours() {
    let heads = Heads { query: 6, kv: 2, dim: 64 };
    let rows = [(0, 3), (1, 200), (0, 40)];
    let Some((together, _)) = outputs(heads, &[200, DECODE_SPAN + 30], &rows, 5) else { return };
    for (i, row) in rows.into_iter().enumerate() {
        let (alone, _) = outputs(heads, &[200, DECODE_SPAN + 30], &[row], 2).unwrap();
        assert_eq!(alone, together[i * heads.out_width()..(i + 1) * heads.out_width()]);
    }
}
