//! Attention over packs, forward and backward, and of single tokens over a cache.

use super::lab::Lab;
use super::{BF16, EXACT};
use crate::device::cuda::ops::{self, DecodeRows};
use crate::device::cuda::pack::DevicePack;
use crate::device::memory::layout::{Cache, DecodeSpans};
use crate::model::pack::Pack;
use crate::ops::attention::{self as cpu, Heads, KvSpan};
use anyhow::Result;

/// Head dims, and query heads of a KV head.
const SHAPES: [(usize, usize, usize); 6] = [(2, 2, 32), (8, 1, 32), (6, 2, 64), (14, 2, 64), (7, 1, 128), (10, 2, 128)];

/// Prompts of odd lengths with branches shorter and longer than a tile, one without rows, and a prompt alone.
pub fn pack() -> Pack {
    let mut pack = Pack::default();
    let branch = |len: usize| vec![1; len];
    for (prompt, branches) in
        [(37, vec![20, 1, 133]), (5, vec![2, 3, 4, 5, 6, 7]), (150, vec![]), (301, vec![65, 64, 200, 9]), (1, vec![71])]
    {
        let branches: Vec<Vec<u32>> = branches.into_iter().map(branch).collect();
        pack.push(&branch(prompt), &branches.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    pack
}

pub fn packed(lab: &mut Lab) -> Result<()> {
    let pack = pack();
    let rows = pack.tokens.len();
    for (query, kv, dim) in SHAPES {
        lab.arena.clear();
        let heads = Heads { query, kv, dim };
        let qkv = lab.normals(rows * heads.qkv_width(), 1.0);
        let d_out = lab.normals(rows * heads.out_width(), 1.0);
        let (want, want_lse) = cpu::forward(heads, &qkv, &pack.parts);
        let device = DevicePack::new(&lab.gpu, &mut lab.arena, &pack, heads)?;
        let (qkv_at, d_out_at) = (lab.bf16(&qkv)?, lab.bf16(&d_out)?);
        // Rows of the outputs and of the gradient have room for an adapter's columns.
        let nothing = |rows: usize, width: usize| vec![f32::NAN; rows * width];
        let (width, qkv_width) = (heads.out_width(), heads.qkv_width());
        let (out, lse) = (lab.rows(&nothing(rows, width), width, 24)?, lab.poisoned(want_lse.len())?);
        ops::branch_attention(&lab.gpu, qkv_at, out, lse, &device, heads)?;
        let what = format!("{query} heads over {kv} of {dim}");
        let got = lab.read_rows(out, width)?;
        lab.compare(&format!("{what}: forward"), &got, &want, BF16);
        lab.compare_f32(&format!("{what}: log-sum-exp"), lse, &want_lse, 1e-4)?;

        let want = cpu::backward(heads, &qkv, &pack.parts, &want, &want_lse, &d_out);
        let mut runs = Vec::new();
        for _ in 0..2 {
            let d_qkv = lab.rows(&nothing(rows, qkv_width), qkv_width, 40)?;
            lab.arena_poison()?;
            ops::branch_attention_backward(
                &lab.gpu,
                &mut lab.arena,
                qkv_at,
                out,
                lse,
                d_out_at,
                d_qkv,
                &device,
                heads,
            )?;
            runs.push(lab.read_rows(d_qkv, qkv_width)?);
        }
        // One by one, or an error in the small ones would drown in the others.
        let columns = |values: &[f32], from: usize, len: usize| -> Vec<f32> {
            values.chunks(heads.qkv_width()).flat_map(|row| &row[from..from + len]).copied().collect()
        };
        let (q, k) = (query * dim, kv * dim);
        for (name, from, len) in [("queries", 0, q), ("keys", q, k), ("values", q + k, k)] {
            let (got, want) = (columns(&runs[0], from, len), columns(&want, from, len));
            lab.compare(&format!("{what}: gradient of {name}"), &got, &want, BF16);
        }
        lab.compare(&format!("{what}: the same bits twice"), &runs[1], &runs[0], EXACT);
    }
    Ok(())
}

pub fn decode(lab: &mut Lab) -> Result<()> {
    for (query, kv, dim) in SHAPES {
        lab.arena.clear();
        let heads = Heads { query, kv, dim };
        let (prompt_capacity, capacity) = (330, 300);
        // (prompt slot, prompt length, own length with the new token); 256 keys are a span.
        let rows = [(0, 330, 1), (1, 7, 2), (1, 7, 300), (0, 330, 183), (1, 7, 249), (2, 1, 256)];
        let (slots, width) = (rows.len(), heads.qkv_width());
        let qkv = lab.normals(rows.len() * width, 1.0);
        let mut line = |slots: usize, capacity: usize| -> Result<(Cache, Vec<f32>, Vec<f32>)> {
            let len = slots * kv * capacity * dim;
            let (keys, values) = (lab.normals(len, 1.0), lab.normals(len, 1.0));
            Ok((Cache { keys: lab.bf16(&keys)?, values: lab.bf16(&values)?, capacity }, keys, values))
        };
        let (prompt, prompt_keys, prompt_values) = line(3, prompt_capacity)?;
        let (own, mut own_keys, mut own_values) = line(slots, capacity)?;

        // Tokens of a slot of a cache as rows of q, k and v.
        let tokens = |keys: &[f32], values: &[f32], capacity: usize, slot: usize, count: usize| -> Vec<f32> {
            let mut rows = vec![0.0; count * width];
            for (token, row) in rows.chunks_mut(width).enumerate() {
                for head in 0..kv {
                    let from = ((slot * kv + head) * capacity + token) * dim;
                    row[(query + head) * dim..][..dim].copy_from_slice(&keys[from..from + dim]);
                    row[(query + kv + head) * dim..][..dim].copy_from_slice(&values[from..from + dim]);
                }
            }
            rows
        };
        // The new token's key and value are in the cache before.
        for (row, &(_, _, count)) in rows.iter().enumerate() {
            for head in 0..kv {
                let to = ((row * kv + head) * capacity + count - 1) * dim;
                let from = row * width + (query + head) * dim;
                own_keys[to..to + dim].copy_from_slice(&qkv[from..from + dim]);
                own_values[to..to + dim].copy_from_slice(&qkv[from + kv * dim..from + (kv + 1) * dim]);
            }
        }
        let bf16 = |values: &[f32]| -> Vec<half::bf16> { values.iter().map(|&v| half::bf16::from_f32(v)).collect() };
        own.keys.upload(&lab.gpu, &bf16(&own_keys))?;
        own.values.upload(&lab.gpu, &bf16(&own_values))?;
        let span = |keys: &[f32], values: &[f32], capacity, slot, count| {
            let mut span = KvSpan::new(heads, count);
            span.extend(&tokens(keys, values, capacity, slot, count));
            span
        };
        let prompts: Vec<KvSpan> = rows
            .iter()
            .map(|&(slot, count, _)| span(&prompt_keys, &prompt_values, prompt_capacity, slot, count))
            .collect();
        let mut owns: Vec<KvSpan> = rows
            .iter()
            .enumerate()
            .map(|(row, &(_, _, count))| span(&own_keys, &own_values, capacity, row, count - 1))
            .collect();
        let want =
            cpu::decode(heads, &qkv, &prompts.iter().collect::<Vec<_>>(), &mut owns.iter_mut().collect::<Vec<_>>());

        let mut column = |of: fn(&(usize, usize, usize)) -> usize| lab.int(&rows.map(|row| of(&row) as u32));
        let at = DecodeRows {
            rows: rows.len(),
            prompt_slots: column(|row| row.0)?,
            prompt_lens: column(|row| row.1)?,
            counts: column(|row| row.2)?,
            slots: lab.int(&(0..slots as u32).collect::<Vec<_>>())?,
        };
        let qkv_at = lab.bf16(&qkv)?;
        let mut attend = |keys: usize| -> Result<Vec<f32>> {
            let spans = DecodeSpans::new(&mut lab.arena, rows.len(), heads, keys)?;
            spans.sums.poison(&lab.gpu)?;
            spans.statistics.poison(&lab.gpu)?;
            let nothing = vec![f32::NAN; want.len()];
            let out = lab.rows(&nothing, heads.out_width(), 8)?;
            ops::decode_attention(&lab.gpu, qkv_at, prompt, own, at, spans, out, heads)?;
            lab.read_rows(out, heads.out_width())
        };
        let longest = rows.iter().map(|(_, prompt, own)| prompt + own).max().unwrap_or(0);
        let (got, with_more) = (attend(longest)?, attend(5 * longest)?);
        let name = format!("{query} heads over {kv} of {dim}");
        lab.compare(&name, &got, &want, BF16);
        lab.holds(&format!("{name}: the same bits with blocks for more spans"), got == with_more);
    }
    Ok(())
}
