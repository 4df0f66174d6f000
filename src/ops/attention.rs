//! Branch attention: a token attends to its group's prompt and, causally, to its own branch.
//!
//! Grouped queries, online softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135), and no
//! score matrix larger than a tile. Keys are visited in blocks of [`BLOCK`], counted from the start of each span, so a
//! query gives the same bits whether it is a row of a packed training batch or a single decoded token: its computation
//! depends only on the lengths of its own spans.

use super::simd::{dot, exp, max, sum_of, vectorized};
use super::stored;
use rayon::prelude::*;
use std::ops::Range;

/// Keys per block.
const BLOCK: usize = 64;
/// Query rows of one tile: the heads of a KV group, then those of the next token. Decoding small groups uses a smaller
/// tile. The rows of a tile are independent, so its size does not change the result.
const TILE: usize = 4;
/// Head widths are padded with zeros to a multiple of this. The zeros do not change the result.
const WIDTH: usize = 16;

/// Heads of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
}

impl Heads {
    /// Width of a row that contains q, k and v side by side.
    pub fn qkv_width(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// Width of a row of outputs.
    pub fn out_width(&self) -> usize {
        self.query * self.dim
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.query / self.kv
    }

    fn padded(&self) -> usize {
        self.dim.next_multiple_of(WIDTH)
    }

    fn key_columns(&self, head: usize) -> Range<usize> {
        let start = (self.query + head) * self.dim;
        start..start + self.dim
    }

    fn value_columns(&self, head: usize) -> Range<usize> {
        let start = (self.query + self.kv + head) * self.dim;
        start..start + self.dim
    }
}

/// A prompt and some of its branches, as rows of a pack. A branch is never split; a large group has several parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub prompt: Range<usize>,
    pub branches: Vec<Range<usize>>,
}

impl Part {
    fn rows(&self) -> usize {
        self.prompt.len() + self.branches.iter().map(ExactSizeIterator::len).sum::<usize>()
    }
}

/// Keys and values of consecutive tokens for one KV head.
#[derive(Clone, Debug, Default)]
struct HeadSpan {
    /// (blocks, padded dim, BLOCK): keys transposed within their block, so that scores vectorize over keys.
    keys: Vec<f32>,
    /// (tokens, padded dim)
    values: Vec<f32>,
}

impl HeadSpan {
    fn push(&mut self, index: usize, key: &[f32], value: &[f32], padded: usize) {
        if index.is_multiple_of(BLOCK) {
            self.keys.resize(self.keys.len() + padded * BLOCK, 0.0);
        }
        let block = &mut self.keys[index / BLOCK * padded * BLOCK..];
        for (d, key) in key.iter().enumerate() {
            block[d * BLOCK + index % BLOCK] = *key;
        }
        self.values.extend_from_slice(value);
        self.values.resize((index + 1) * padded, 0.0);
    }
}

/// The KV cache of consecutive tokens in one layer: a prompt, or the tokens of one branch so far.
#[derive(Clone, Debug)]
pub struct KvSpan {
    heads: Heads,
    len: usize,
    spans: Vec<HeadSpan>,
}

impl KvSpan {
    /// An empty span with room for `capacity` tokens before it allocates again.
    pub fn new(heads: Heads, capacity: usize) -> Self {
        let padded = heads.padded();
        let span = || HeadSpan {
            keys: Vec::with_capacity(capacity.next_multiple_of(BLOCK) * padded),
            values: Vec::with_capacity(capacity * padded),
        };
        Self { heads, len: 0, spans: (0..heads.kv).map(|_| span()).collect() }
    }

    /// Bytes of the keys and values of `tokens` tokens.
    pub fn bytes(heads: Heads, tokens: usize) -> usize {
        4 * heads.kv * heads.padded() * (tokens.next_multiple_of(BLOCK) + tokens)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all tokens and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
        for span in &mut self.spans {
            span.keys.clear();
            span.values.clear();
        }
    }

    /// Appends the keys and values of `qkv` rows (tokens, qkv_width), with positions already applied.
    pub fn extend(&mut self, qkv: &[f32]) {
        let heads = self.heads;
        for row in qkv.chunks_exact(heads.qkv_width()) {
            for (head, span) in self.spans.iter_mut().enumerate() {
                let (key, value) = (&row[heads.key_columns(head)], &row[heads.value_columns(head)]);
                span.push(self.len, key, value, heads.padded());
            }
            self.len += 1;
        }
    }
}

/// One new token per branch: `qkv` (rows, qkv_width) -> (rows, out_width). Row i attends to its `prompts` span and
/// to its `own` span, to which its key and value are appended first.
pub fn decode(heads: Heads, qkv: &[f32], prompts: &[&KvSpan], own: &mut [&mut KvSpan]) -> Vec<f32> {
    let mut out = vec![0.0; qkv.len() / heads.qkv_width() * heads.out_width()];
    let rows = out.par_chunks_mut(heads.out_width()).zip(qkv.par_chunks(heads.qkv_width()));
    rows.zip(prompts).zip(own).for_each(|(((out, qkv), prompt), own)| {
        own.extend(qkv);
        let mut lse = vec![0.0; heads.query];
        for head in 0..heads.kv {
            let spans = [(&prompt.spans[head], Visible::All(prompt.len)), (&own.spans[head], Visible::All(own.len))];
            let attend = match heads.group() {
                1 => attend::<1, false>,
                2 => attend::<2, false>,
                _ => attend::<TILE, false>,
            };
            attend(heads, head, HeadRows { qkv, count: 1 }, &spans, out, &mut lse);
        }
    });
    out
}

/// Packed groups: `qkv` (rows, qkv_width), positions applied -> outputs (rows, out_width) and the log-sum-exp of each
/// query's scores (rows, query heads), which the backward needs.
pub fn forward(heads: Heads, qkv: &[f32], parts: &[Part]) -> (Vec<f32>, Vec<f32>) {
    forward_of::<false>(heads, qkv, parts)
}

/// [`forward`]; if `ROUNDED`, the weights are rounded to bf16 for their product with the values, as on a GPU.
pub fn forward_of<const ROUNDED: bool>(heads: Heads, qkv: &[f32], parts: &[Part]) -> (Vec<f32>, Vec<f32>) {
    let width = heads.qkv_width();
    let rows = qkv.len() / width;
    let (mut out, mut lse) = (vec![0.0; rows * heads.out_width()], vec![0.0; rows * heads.query]);
    let results: Vec<_> = sequences(parts)
        .into_par_iter()
        .map(|Sequence { part, rows }| {
            let prompt = &parts[part].prompt;
            let rows_qkv = &qkv[rows.start * width..rows.end * width];
            let mut own = KvSpan::new(heads, rows.len());
            own.extend(rows_qkv);
            let mut context = KvSpan::new(heads, 0);
            if rows != *prompt {
                context = KvSpan::new(heads, prompt.len());
                context.extend(&qkv[prompt.start * width..prompt.end * width]);
            }
            let mut out = vec![0.0; rows.len() * heads.out_width()];
            let mut lse = vec![0.0; rows.len() * heads.query];
            for head in 0..heads.kv {
                let spans = [(&context.spans[head], Visible::All(context.len)), (&own.spans[head], Visible::Causal)];
                attend::<TILE, ROUNDED>(
                    heads,
                    head,
                    HeadRows { qkv: rows_qkv, count: rows.len() },
                    &spans,
                    &mut out,
                    &mut lse,
                );
            }
            (rows, out, lse)
        })
        .collect();
    for (rows, part_out, part_lse) in results {
        out[rows.start * heads.out_width()..rows.end * heads.out_width()].copy_from_slice(&part_out);
        lse[rows.start * heads.query..rows.end * heads.query].copy_from_slice(&part_lse);
    }
    (out, lse)
}

/// Gradient of `qkv` (rows, qkv_width) from that of the outputs. The prompt's keys and values collect the gradients of
/// all branches in branch order, within one task, so no sum depends on the number of threads.
pub fn backward(heads: Heads, qkv: &[f32], parts: &[Part], out: &[f32], lse: &[f32], d_out: &[f32]) -> Vec<f32> {
    backward_of::<false>(heads, qkv, parts, out, lse, d_out)
}

/// [`backward`]; if `ROUNDED`, weights and their gradients are rounded to bf16 for the products that read them.
pub fn backward_of<const ROUNDED: bool>(
    heads: Heads,
    qkv: &[f32],
    parts: &[Part],
    out: &[f32],
    lse: &[f32],
    d_out: &[f32],
) -> Vec<f32> {
    let mut d_qkv = vec![0.0; qkv.len()];
    let tasks: Vec<(usize, usize)> = (0..parts.len()).flat_map(|p| (0..heads.kv).map(move |h| (p, h))).collect();
    let results: Vec<HeadGradients> = tasks
        .par_iter()
        .map(|&(part, head)| backward_of_head::<ROUNDED>(heads, head, &parts[part], qkv, out, lse, d_out))
        .collect();
    let (dim, padded, group) = (heads.dim, heads.padded(), heads.group());
    for ((part, head), result) in tasks.into_iter().zip(results) {
        let part = &parts[part];
        let rows = part.prompt.clone().chain(part.branches.iter().flat_map(Clone::clone));
        for (local, row) in rows.enumerate() {
            let row = &mut d_qkv[row * heads.qkv_width()..(row + 1) * heads.qkv_width()];
            for g in 0..group {
                let from = (local * group + g) * padded;
                row[(head * group + g) * dim..][..dim].copy_from_slice(&result.queries[from..from + dim]);
            }
            row[heads.key_columns(head)].copy_from_slice(&result.keys[local * padded..][..dim]);
            row[heads.value_columns(head)].copy_from_slice(&result.values[local * padded..][..dim]);
        }
    }
    d_qkv
}

/// Consecutive rows with their own causal span: a prompt or a branch.
struct Sequence {
    part: usize,
    rows: Range<usize>,
}

fn sequences(parts: &[Part]) -> Vec<Sequence> {
    let of_part = |(part, p): (usize, &Part)| -> Vec<Sequence> {
        std::iter::once(&p.prompt).chain(&p.branches).map(|rows| Sequence { part, rows: rows.clone() }).collect()
    };
    parts.iter().enumerate().flat_map(of_part).collect()
}

#[derive(Clone, Copy)]
struct HeadRows<'a> {
    qkv: &'a [f32],
    count: usize,
}

/// How many keys of a span a query sees.
#[derive(Clone, Copy)]
enum Visible {
    All(usize),
    /// Query row i sees keys 0..=i.
    Causal,
}

impl Visible {
    fn keys(self, row: usize) -> usize {
        match self {
            Self::All(len) => len,
            Self::Causal => row + 1,
        }
    }
}

/// The queries (row, head of the group) of one KV head, `N` at a time.
struct Tile<const N: usize> {
    /// Row and head in the group; `None` pads the last tile.
    queries: [Option<(usize, usize)>; N],
}

fn tiles<const N: usize>(rows: usize, group: usize) -> impl Iterator<Item = Tile<N>> {
    (0..(rows * group).div_ceil(N)).map(move |tile| Tile {
        queries: std::array::from_fn(|i| {
            let query = tile * N + i;
            (query < rows * group).then_some((query / group, query % group))
        }),
    })
}

impl<const N: usize> Tile<N> {
    /// Copies the queries' vectors, times `scale`, into `to` (N, padded). `data` has `stride` columns; the group's
    /// first head starts at column `first`.
    fn load(&self, data: &[f32], stride: usize, first: usize, dim: usize, scale: f32, to: &mut [f32]) {
        let padded = to.len() / N;
        to.fill(0.0);
        for (query, to) in self.queries.iter().zip(to.chunks_exact_mut(padded)) {
            if let Some((row, head)) = query {
                let from = &data[row * stride + first + head * dim..][..dim];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
            }
        }
    }

    fn visible(&self, visible: Visible) -> [usize; N] {
        self.queries.map(|query| query.map_or(0, |(row, _)| visible.keys(row)))
    }
}

/// One KV head's queries against its spans, with the online softmax.
fn attend<const N: usize, const ROUNDED: bool>(
    heads: Heads,
    head: usize,
    rows: HeadRows,
    spans: &[(&HeadSpan, Visible)],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let (group, padded, dim) = (heads.group(), heads.padded(), heads.dim);
    let scale = 1.0 / (dim as f32).sqrt();
    let first = head * group * dim;
    let (mut queries, mut sums) = (vec![0.0; N * padded], vec![0.0; N * padded]);
    for tile in tiles::<N>(rows.count, group) {
        tile.load(rows.qkv, heads.qkv_width(), first, dim, scale, &mut queries);
        sums.fill(0.0);
        let mut greatest = [f32::NEG_INFINITY; N];
        let mut total = [0.0f32; N];
        vectorized(
            #[inline(always)]
            || {
                for (span, visible) in spans {
                    let visible = tile.visible(*visible);
                    let longest = visible.into_iter().max().unwrap_or(0);
                    for start in (0..longest).step_by(BLOCK) {
                        let count = visible.map(|keys| keys.saturating_sub(start).min(BLOCK));
                        let block = start * padded;
                        let mut weights = scores::<N>(&queries, &span.keys[block..block + padded * BLOCK], padded);
                        for r in 0..N {
                            let row = &mut weights[r];
                            let before = greatest[r];
                            greatest[r] = before.max(max(&row[..count[r]]));
                            if count[r] == 0 {
                                row.fill(0.0);
                                continue;
                            }
                            for (j, weight) in row.iter_mut().enumerate() {
                                *weight = if j < count[r] { exp(*weight - greatest[r]) } else { 0.0 };
                            }
                            let shrink = exp(before - greatest[r]);
                            total[r] = total[r] * shrink + sum_of(row, |x| x);
                            row.iter_mut().for_each(|weight| *weight = stored::<ROUNDED>(*weight));
                            sums[r * padded..(r + 1) * padded].iter_mut().for_each(|sum| *sum *= shrink);
                        }
                        let keys = (longest - start).min(BLOCK);
                        add_weighted(&weights, &span.values[block..block + keys * padded], padded, &mut sums);
                    }
                }
            },
        );
        for (r, query) in tile.queries.iter().enumerate() {
            let Some((row, g)) = *query else { continue };
            let at = row * heads.out_width() + first + g * dim;
            let sums = &sums[r * padded..][..dim];
            out[at..at + dim].iter_mut().zip(sums).for_each(|(out, sum)| *out = sum / total[r]);
            lse[row * heads.query + head * group + g] = greatest[r] + total[r].ln();
        }
    }
}

/// Gradients of one KV head over the rows of a part, prompt first, then its branches.
struct HeadGradients {
    /// (rows, group, padded)
    queries: Vec<f32>,
    /// (rows, padded)
    keys: Vec<f32>,
    /// (rows, padded)
    values: Vec<f32>,
}

fn backward_of_head<const ROUNDED: bool>(
    heads: Heads,
    head: usize,
    part: &Part,
    qkv: &[f32],
    out: &[f32],
    lse: &[f32],
    d_out: &[f32],
) -> HeadGradients {
    let (group, padded, dim) = (heads.group(), heads.padded(), heads.dim);
    let (width, out_width) = (heads.qkv_width(), heads.out_width());
    let scale = 1.0 / (dim as f32).sqrt();
    let first = head * group * dim;
    let rows = part.rows();
    let mut grads = HeadGradients {
        queries: vec![0.0; rows * group * padded],
        keys: vec![0.0; rows * padded],
        values: vec![0.0; rows * padded],
    };
    // Keys and values by tokens and transposed: `plain` has (Kᵀ, V), `swapped` (Vᵀ, K).
    let spans_of = |rows: &Range<usize>| {
        let (mut plain, mut swapped) = (HeadSpan::default(), HeadSpan::default());
        for (i, row) in qkv[rows.start * width..rows.end * width].chunks_exact(width).enumerate() {
            let (key, value) = (&row[heads.key_columns(head)], &row[heads.value_columns(head)]);
            plain.push(i, key, value, padded);
            swapped.push(i, value, key, padded);
        }
        (plain, swapped)
    };
    let prompt = spans_of(&part.prompt);
    let (mut queries, mut d_rows) = (vec![0.0; TILE * padded], vec![0.0; TILE * padded]);
    let (mut values, mut d_queries) = (vec![0.0; TILE * padded], vec![0.0; TILE * padded]);
    let mut offset = 0;
    for (index, rows) in std::iter::once(&part.prompt).chain(&part.branches).enumerate() {
        let branch = (index > 0).then(|| spans_of(rows));
        // (keys and values, first local row of the span, which rows see which keys)
        let spans = match &branch {
            None => vec![(&prompt, 0, Visible::Causal)],
            Some(own) => vec![(&prompt, 0, Visible::All(part.prompt.len())), (own, offset, Visible::Causal)],
        };
        for tile in tiles::<TILE>(rows.len(), group) {
            tile.load(&qkv[rows.start * width..], width, first, dim, scale, &mut queries);
            tile.load(&d_out[rows.start * out_width..], out_width, first, dim, 1.0, &mut d_rows);
            tile.load(&out[rows.start * out_width..], out_width, first, dim, 1.0, &mut values);
            d_queries.fill(0.0);
            let tile_lse = tile
                .queries
                .map(|query| query.map_or(0.0, |(row, g)| lse[(rows.start + row) * heads.query + head * group + g]));
            vectorized(
                #[inline(always)]
                || {
                    let delta: [f32; TILE] = std::array::from_fn(|r| {
                        dot(&d_rows[r * padded..(r + 1) * padded], &values[r * padded..(r + 1) * padded])
                    });
                    for ((plain, swapped), first_row, visible) in &spans {
                        let visible = tile.visible(*visible);
                        let longest = visible.into_iter().max().unwrap_or(0);
                        for start in (0..longest).step_by(BLOCK) {
                            let block = start * padded..(start + BLOCK) * padded;
                            let mut p = scores::<TILE>(&queries, &plain.keys[block.clone()], padded);
                            let mut ds = scores::<TILE>(&d_rows, &swapped.keys[block.clone()], padded);
                            for r in 0..TILE {
                                let count = visible[r].saturating_sub(start).min(BLOCK);
                                for j in 0..BLOCK {
                                    let weight = if j < count { exp(p[r][j] - tile_lse[r]) } else { 0.0 };
                                    p[r][j] = stored::<ROUNDED>(weight);
                                    ds[r][j] = stored::<ROUNDED>(p[r][j] * (ds[r][j] - delta[r]));
                                }
                            }
                            let keys = (longest - start).min(BLOCK);
                            add_weighted(&ds, &swapped.values[block.start..][..keys * padded], padded, &mut d_queries);
                            let at = (first_row + start) * padded;
                            add_outer(&ds, &queries, padded, &mut grads.keys[at..at + keys * padded]);
                            add_outer(&p, &d_rows, padded, &mut grads.values[at..at + keys * padded]);
                        }
                    }
                },
            );
            for (r, query) in tile.queries.iter().enumerate() {
                let Some((row, g)) = *query else { continue };
                let to = &mut grads.queries[((offset + row) * group + g) * padded..][..padded];
                to.iter_mut().zip(&d_queries[r * padded..]).for_each(|(to, d)| *to = d * scale);
            }
        }
        offset += rows.len();
    }
    grads
}

/// rows (N, padded) · keys (padded, BLOCK).
#[inline(always)]
fn scores<const N: usize>(rows: &[f32], keys: &[f32], padded: usize) -> [[f32; BLOCK]; N] {
    let mut sums = [[0.0f32; BLOCK]; N];
    for (d, keys) in keys.as_chunks::<BLOCK>().0.iter().enumerate() {
        for r in 0..N {
            let x = rows[r * padded + d];
            for j in 0..BLOCK {
                sums[r][j] = x.mul_add(keys[j], sums[r][j]);
            }
        }
    }
    sums
}

/// sums (N, padded) += weights (N, keys) · values (keys, padded).
#[inline(always)]
fn add_weighted<const N: usize>(weights: &[[f32; BLOCK]; N], values: &[f32], padded: usize, sums: &mut [f32]) {
    for d in (0..padded).step_by(WIDTH) {
        let mut lanes = [[0.0f32; WIDTH]; N];
        for r in 0..N {
            lanes[r].copy_from_slice(&sums[r * padded + d..][..WIDTH]);
        }
        for (j, value) in values.chunks_exact(padded).enumerate() {
            let value = &value[d..d + WIDTH];
            for r in 0..N {
                for i in 0..WIDTH {
                    lanes[r][i] = weights[r][j].mul_add(value[i], lanes[r][i]);
                }
            }
        }
        for r in 0..N {
            sums[r * padded + d..][..WIDTH].copy_from_slice(&lanes[r]);
        }
    }
}

/// out (keys, padded) += weightsᵀ (keys, TILE) · rows (TILE, padded).
#[inline(always)]
fn add_outer(weights: &[[f32; BLOCK]; TILE], rows: &[f32], padded: usize, out: &mut [f32]) {
    for (j, out) in out.chunks_exact_mut(padded).enumerate() {
        for d in (0..padded).step_by(WIDTH) {
            let out = &mut out[d..d + WIDTH];
            for r in 0..TILE {
                let row = &rows[r * padded + d..][..WIDTH];
                for i in 0..WIDTH {
                    out[i] = weights[r][j].mul_add(row[i], out[i]);
                }
            }
        }
    }
}
