//! Attention over packs, forward and backward, and of single tokens over a cache.

use super::case::{SelftestCase, name};
use super::lab::{Lab, Twin};
use crate::device::cuda::ops::{self, DecodeRows};
use crate::device::cuda::pack::DevicePack;
use crate::device::memory::layout::{Cache, DecodeSpans};
use crate::model::pack::Pack;
use crate::ops::attention::{self as cpu, Heads, KvSpan};
use crate::ops::attention_tiles::{DECODE_SPAN, Tiles};
use anyhow::Result;

/// Prompts and the number of rows of each of their completions.
type CaseLengths = &'static [(usize, &'static [usize])];

/// Heads (query, KV, width) with a pack: all widths, 1 to 8 heads per group; prompts of odd lengths, of one token and
/// over several tiles; completions of no row, of one row, of a tile and of odd lengths.
const PACKED: [((usize, usize, usize), CaseLengths); 9] = [
    ((4, 2, 32), &[(5, &[3, 0, 1]), (1, &[64, 7])]),
    ((8, 1, 32), &[(150, &[132, 64, 1]), (5, &[1, 2, 3, 4, 5])]),
    ((2, 2, 32), &[(37, &[19, 0, 132]), (70, &[])]),
    ((1, 1, 64), &[(131, &[1, 0, 20])]),
    ((7, 1, 64), &[(37, &[18, 20])]),
    ((14, 2, 64), &[(301, &[64, 63, 8])]),
    ((6, 2, 128), &[(1, &[]), (23, &[9, 1])]),
    ((7, 1, 128), &[(70, &[1, 20]), (3, &[0])]),
    ((8, 1, 128), &[(17, &[16, 5])]),
];

pub fn packed() -> Vec<SelftestCase> {
    let mut cases: Vec<SelftestCase> = PACKED
        .into_iter()
        .map(|((query, kv, dim), lengths)| {
            let heads = Heads { query, kv, dim };
            SelftestCase::new(name(heads), move |lab| {
                let pack = pack(lengths);
                let tiles = Tiles::new(&pack.parts, query / kv);
                one_pack(lab, heads, &pack, tiles)
            })
        })
        .collect();
    // The gradients of a prompt's keys in several sums, each of a few of the tokens that see them.
    cases.push(SelftestCase::new("in partial sums", |lab| {
        let (heads, pack) = (Heads { query: 6, kv: 2, dim: 64 }, pack(&[(70, &[5, 30, 1])]));
        let tiles = Tiles::with_tasks(&pack.parts, 3, 90);
        lab.holds("there are several partial sums", tiles.sums.len() >= 2 && tiles.slots >= 6);
        one_pack(lab, heads, &pack, tiles)
    }));
    cases
}

fn pack(lengths: CaseLengths) -> Pack {
    let mut pack = Pack::default();
    for (prompt, completions) in lengths {
        // A completion's last token is not an input.
        let completions: Vec<Vec<u32>> = completions.iter().map(|rows| vec![1; rows + 1]).collect();
        pack.push(&vec![1; *prompt], &completions.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    pack
}

fn one_pack(lab: &mut Lab, heads: Heads, pack: &Pack, tiles: Tiles) -> Result<()> {
    let Heads { query, kv, dim } = heads;
    let rows = pack.tokens.len();
    let (qkv, d_out) = (lab.normals(rows * heads.qkv_width(), 1.0), lab.normals(rows * heads.out_width(), 1.0));
    let (want, want_lse) = cpu::forward(heads, &qkv, &pack.parts);
    let rounded = cpu::forward_of::<true>(heads, &qkv, &pack.parts).0;
    let twin = Twin { exact: want.clone(), rounded }.when_stored();
    let device = DevicePack::with_tiles(&lab.gpu, &mut lab.arena, pack, tiles)?;
    let (qkv_at, d_out_at) = (lab.bf16(&qkv)?, lab.bf16(&d_out)?);
    // Rows of the outputs and of the gradient have room for an adapter's columns.
    let (width, qkv_width) = (heads.out_width(), heads.qkv_width());
    let (out, lse) = (lab.rows(&vec![f32::NAN; want.len()], width, 24)?, lab.poisoned(want_lse.len())?);
    ops::branch_attention(&lab.gpu, qkv_at, out, lse, &device, heads)?;
    let got = lab.read_rows(out, width)?;
    lab.near("forward", &got, &twin);
    lab.close("log-sum-exp", lse, &want_lse)?;

    let want = cpu::backward(heads, &qkv, &pack.parts, &want, &want_lse, &d_out);
    let rounded = cpu::backward_of::<true>(heads, &qkv, &pack.parts, &twin.rounded, &want_lse, &d_out);
    let mut runs = Vec::new();
    for _ in 0..2 {
        let d_qkv = lab.rows(&vec![f32::NAN; qkv.len()], qkv_width, 40)?;
        lab.poison_scratch()?;
        ops::branch_attention_backward(&lab.gpu, &mut lab.arena, qkv_at, out, lse, d_out_at, d_qkv, &device, heads)?;
        runs.push(lab.read_rows(d_qkv, qkv_width)?);
    }
    // Separately, because an error in the small ones would be hidden by the others.
    let columns = |values: &[f32], from: usize, len: usize| -> Vec<f32> {
        values.chunks(heads.qkv_width()).flat_map(|row| &row[from..from + len]).copied().collect()
    };
    let (q, k) = (query * dim, kv * dim);
    for (part, from, len) in [("queries", 0, q), ("keys", q, k), ("values", q + k, k)] {
        let twin = Twin { exact: columns(&want, from, len), rounded: columns(&rounded, from, len) }.when_stored();
        lab.near(&format!("gradient of {part}"), &columns(&runs[0], from, len), &twin);
    }
    lab.same("equal bits when repeated", &runs[1], &runs[0]);
    Ok(())
}

/// Heads (query, KV, width), lengths of prompts, and rows: the number of the prompt, and how many tokens of its own a
/// row has, including the new one.
type Decoded = ((usize, usize, usize), &'static [usize], &'static [(usize, usize)]);

/// 1 to 8 heads per group; prompts of no token, of one, and longer than a span; a first token; ends of prompts and rows
/// at, before and after the edges of spans and steps.
const DECODED: [Decoded; 7] = [
    ((4, 2, 32), &[5, 33], &[(0, 1), (0, 12), (1, 20)]),
    ((2, 2, 64), &[1, 250], &[(1, 1), (1, 6), (1, 7), (0, 16)]),
    ((7, 1, 64), &[0, 300], &[(0, 1), (1, 230)]),
    ((14, 2, 64), &[330, 7, 1], &[(0, 1), (1, 2), (1, 300), (0, 183), (1, 249), (2, 256)]),
    ((7, 1, 128), &[37, 256], &[(0, 1), (0, 11), (1, 1)]),
    ((10, 2, 128), &[330, 7], &[(0, 183), (1, 300), (1, 249)]),
    ((8, 1, 128), &[60], &[(0, 4), (0, 5)]),
];

pub fn decode() -> Vec<SelftestCase> {
    let mut cases: Vec<SelftestCase> = DECODED
        .into_iter()
        .map(|((query, kv, dim), prompts, rows)| {
            let heads = Heads { query, kv, dim };
            SelftestCase::new(name(heads), move |lab| {
                let batch = AttentionBatch::new(lab, heads, prompts, rows);
                let got = batch.on_device(lab, 0..rows.len(), 3)?;
                let want = batch.on_host();
                lab.near("forward", &got, &Twin::stored(&want));
                Ok(())
            })
        })
        .collect();
    // A row's bits do not depend on the other rows or on the number of spans in the launch.
    cases.push(SelftestCase::new("a row and its neighbors", |lab| {
        let heads = Heads { query: 6, kv: 2, dim: 64 };
        let rows = &[(0, 3), (1, 200), (0, 40)];
        let batch = AttentionBatch::new(lab, heads, &[200, DECODE_SPAN + 30], rows);
        let together = batch.on_device(lab, 0..rows.len(), 5)?;
        for (row, of_row) in together.chunks(heads.out_width()).enumerate() {
            let alone = batch.on_device(lab, row..row + 1, 2)?;
            lab.same(&format!("row {row} by itself"), &alone, of_row);
        }
        Ok(())
    }));
    cases
}

/// Tokens of prompts and of rows of a decode step as rows of q, k and v.
struct AttentionBatch {
    heads: Heads,
    rows: &'static [(usize, usize)],
    prompts: Vec<Vec<f32>>,
    own: Vec<Vec<f32>>,
}

/// Capacity of a slot in tokens.
const PROMPT_CAPACITY: usize = 400;
const OWN_CAPACITY: usize = 300;

impl AttentionBatch {
    fn new(lab: &mut Lab, heads: Heads, prompts: &[usize], rows: &'static [(usize, usize)]) -> Self {
        let mut tokens = |count: usize| lab.normals(count * heads.qkv_width(), 1.0);
        let prompts = prompts.iter().map(|count| tokens(*count)).collect();
        let own = rows.iter().map(|(_, count)| tokens(*count)).collect();
        Self { heads, rows, prompts, own }
    }

    /// The q, k and v of the new tokens.
    fn new_tokens(&self, rows: std::ops::Range<usize>) -> Vec<f32> {
        let width = self.heads.qkv_width();
        self.own[rows].iter().flat_map(|own| &own[own.len() - width..]).copied().collect()
    }

    /// Outputs of some of the rows, in a launch with this number of spans. The new token's key and value are in the
    /// cache.
    fn on_device(&self, lab: &mut Lab, range: std::ops::Range<usize>, spans: usize) -> Result<Vec<f32>> {
        let (heads, rows) = (self.heads, &self.rows[range.clone()]);
        // Slots in reverse order, so that they differ from the row numbers.
        let (last_prompt, last_row) = (self.prompts.len() - 1, self.own.len() - 1);
        let prompt = cache(lab, heads, PROMPT_CAPACITY, &self.prompts)?;
        let own = cache(lab, heads, OWN_CAPACITY, &self.own)?;
        let mut column =
            |values: &mut dyn Iterator<Item = usize>| lab.int(&values.map(|value| value as u32).collect::<Vec<_>>());
        let at = DecodeRows {
            rows: rows.len(),
            prompt_slots: column(&mut rows.iter().map(|(prompt, _)| last_prompt - prompt))?,
            prompt_lens: column(&mut rows.iter().map(|(prompt, _)| self.prompts[*prompt].len() / heads.qkv_width()))?,
            slots: column(&mut range.clone().map(|row| last_row - row))?,
            counts: column(&mut rows.iter().map(|(_, count)| *count))?,
        };
        lab.poison_scratch()?;
        let spans = DecodeSpans::new(&mut lab.arena, rows.len(), heads, spans * DECODE_SPAN)?;
        let new = self.new_tokens(range);
        let (qkv, width) = (lab.bf16(&new)?, heads.out_width());
        let out = lab.rows(&vec![f32::NAN; rows.len() * width], width, 8)?;
        ops::decode_attention(&lab.gpu, qkv, prompt, own, at, spans, out, heads)?;
        lab.read_rows(out, width)
    }

    fn on_host(&self) -> Vec<f32> {
        let (heads, width) = (self.heads, self.heads.qkv_width());
        let span = |qkv: &[f32]| {
            let mut span = KvSpan::new(heads, qkv.len() / width);
            span.extend(qkv);
            span
        };
        let prompts: Vec<KvSpan> = self.prompts.iter().map(|qkv| span(qkv)).collect();
        let mut own: Vec<KvSpan> = self.own.iter().map(|qkv| span(&qkv[..qkv.len() - width])).collect();
        let of_rows: Vec<&KvSpan> = self.rows.iter().map(|(prompt, _)| &prompts[*prompt]).collect();
        let new = self.new_tokens(0..self.rows.len());
        cpu::decode(heads, &new, &of_rows, &mut own.iter_mut().collect::<Vec<_>>())
    }
}

/// A cache of one block: the last slot has the keys and values of the first of `tokens`; unwritten cells are NaN.
fn cache(lab: &mut Lab, heads: Heads, capacity: usize, tokens: &[Vec<f32>]) -> Result<Cache> {
    let Heads { query, kv, dim } = heads;
    let [keys, values] = [query, query + kv].map(|first| {
        let mut cells = vec![f32::NAN; tokens.len() * kv * capacity * dim];
        for (slot, rows) in tokens.iter().rev().enumerate() {
            for (token, row) in rows.chunks(heads.qkv_width()).enumerate() {
                for head in 0..kv {
                    let to = ((slot * kv + head) * capacity + token) * dim;
                    cells[to..to + dim].copy_from_slice(&row[(first + head) * dim..][..dim]);
                }
            }
        }
        cells
    });
    Ok(Cache { keys: lab.bf16(&keys)?, values: lab.bf16(&values)?, capacity })
}
