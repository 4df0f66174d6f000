//! LoRA: shrink, expand, the gradients of x, A and B; with and without a split of the depth.
//!
//! Every kernel is held against sums in f64 of the very values that it reads, and the chain of all against `ops::lora`.

use super::shim::{Arg, Module, Outputs, Shape, bf16, close, f32s, float, int, module, normal, out, rounded};
use rft::ops::lora::{LoraGroup, LoraPart};
use std::ops::Range;
use std::slice::from_ref;
use std::sync::LazyLock;

static SHRINK: LazyLock<Option<Module>> = LazyLock::new(|| {
    let shrinks = ["lora_shrink_n32", "lora_shrink_n64", "lora_shrink_n128"];
    module("lora_shrink", &[&shrinks[..], &["lora_d_low_n64", "lora_d_low_n128", "lora_low"]].concat())
});
static EXPAND: LazyLock<Option<Module>> =
    LazyLock::new(|| module("lora_expand", &["lora_expand", "lora_expand_split"]));
static GRAD: LazyLock<Option<Module>> =
    LazyLock::new(|| module("lora_grad", &["lora_grad_m64", "lora_grad_m128", "lora_grad_sum"]));
static BACK: LazyLock<Option<Module>> = LazyLock::new(|| module("lora_back", &["lora_back_r16", "lora_back_r32"]));

/// What a value has lost by being stored in bf16, in the norm.
const BF16: f64 = 3e-3;
const F32: f64 = 1e-5;

/// A group and its operands, all of them values that bf16 has.
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    group: LoraGroup,
    params: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(rows: usize, inputs: usize, rank: usize, outputs: usize, parts: &[Range<usize>]) -> Self {
        let a = 0..parts.len() * rank * inputs;
        let mut end = a.end;
        let place = |columns: &Range<usize>| {
            end += rank * columns.len();
            LoraPart { b: end - rank * columns.len()..end, columns: columns.clone() }
        };
        let parts = parts.iter().map(place).collect();
        let params = normal(1, end);
        let (x, dy) = (normal(2, rows * inputs), normal(3, rows * outputs));
        Self { rows, inputs, outputs, group: LoraGroup { rank, scale: 0.25, a, parts }, params, x, dy }
    }

    fn padded(&self) -> usize {
        self.group.rank.next_multiple_of(16)
    }

    fn shrunk(&self) -> usize {
        self.group.parts.len() * self.padded()
    }

    fn a(&self) -> &[f32] {
        &self.params[self.group.a.clone()]
    }

    fn b(&self) -> &[f32] {
        &self.params[self.group.a.end..]
    }

    /// Row of A, or of all B, for a column of `low`; `None` for one that pads.
    fn row(&self, column: usize) -> Option<usize> {
        let (part, at) = (column / self.padded(), column % self.padded());
        (at < self.group.rank).then_some(part * self.group.rank + at)
    }

    /// The parts as a kernel takes them, in tiles of 128 columns, and how many tiles they are.
    fn parts(&self) -> (Vec<Arg>, usize) {
        let columns: Vec<_> = self.group.parts.iter().map(|part| part.columns.clone()).collect();
        parts(&columns)
    }

    fn widths(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.group.parts.get(i).map_or(0, |part| part.columns.len()))
    }

    fn tile_rows(&self, rows: usize) -> u32 {
        self.rows.div_ceil(rows) as u32
    }
}

fn parts(columns: &[Range<usize>]) -> (Vec<Arg>, usize) {
    let present = columns.iter().flat_map(|part| [part.start, part.len()]);
    let arguments = present.chain([0; 6]).take(6).map(int).collect();
    (arguments, columns.iter().map(|part| part.len().div_ceil(128)).sum())
}

/// Odd sizes on purpose: rows and columns that end inside a tile, ranks that are padded, parts with a gap between them,
/// more columns of low than a tile has, a depth of more tiles than stages.
fn cases() -> Vec<Case> {
    vec![
        Case::new(1, 24, 3, 24, &[0..8, 16..24]),
        Case::new(5, 328, 8, 200, &[0..136, 136..168, 168..200]),
        Case::new(130, 136, 16, 264, from_ref(&(0..264))),
        Case::new(70, 200, 20, 88, &[0..40, 40..88]),
        Case::new(33, 72, 50, 64, &[8..48, 48..56, 56..64]),
        Case::new(150, 64, 128, 136, from_ref(&(0..136))),
    ]
}

/// (rows, inner) · (inner, columns) in f64.
fn product(
    rows: usize,
    inner: usize,
    columns: usize,
    left: impl Fn(usize, usize) -> f32,
    right: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let at = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        (0..inner).map(|k| f64::from(left(row, k)) * f64::from(right(k, column))).sum::<f64>() as f32
    };
    (0..rows * columns).map(at).collect()
}

fn shape(blocks: [u32; 3], shared: u32) -> Shape {
    Shape { blocks, threads: 256, shared }
}

/// The smallest tile of low that holds `columns`, or the largest there is.
fn tile(columns: usize, sizes: &[usize]) -> usize {
    sizes.iter().copied().find(|size| columns <= *size).unwrap_or(sizes[sizes.len() - 1])
}

/// Launches the shrink of `x`; with a `span` into partial sums (argument 3), without into low (argument 2).
fn shrink(case: &Case, x: &[f32], span: Option<usize>) -> Outputs {
    let rows = x.len() / case.inputs;
    let (n, splits) = (tile(case.shrunk(), &[32, 64, 128]), span.map_or(1, |span| case.inputs.div_ceil(span)));
    let blocks = [case.shrunk().div_ceil(n), rows.div_ceil(128), splits].map(|n| n as u32);
    let count = rows * case.shrunk();
    let partial = if span.is_some() { out(4 * splits * count) } else { Arg::Null };
    let ints = [rows, case.inputs, case.group.rank, case.group.parts.len(), span.unwrap_or(case.inputs)].map(int);
    let arguments = [vec![bf16(x), bf16(case.a()), out(2 * count), partial], ints.into()].concat();
    let shape = shape(blocks, 384 * (128 + n as u32));
    SHRINK.as_ref().unwrap().launch(&format!("lora_shrink_n{n}"), shape, &arguments)
}

/// Launches scale·dy·Bᵀ.
fn d_low(case: &Case, span: Option<usize>) -> Outputs {
    let n = tile(case.padded(), &[64, 128]);
    let widest = case.group.parts.iter().map(|part| part.columns.len()).max().unwrap();
    let splits = span.map_or(1, |span| widest.div_ceil(span));
    let blocks = [case.group.parts.len() as u32, case.tile_rows(128), splits as u32];
    let count = case.rows * case.shrunk();
    let partial = if span.is_some() { out(4 * splits * count) } else { Arg::Null };
    let mut arguments = vec![bf16(&case.dy), bf16(case.b()), out(2 * count), partial];
    arguments.extend([case.rows, case.outputs, case.group.rank].map(int));
    arguments.extend([float(case.group.scale), int(span.unwrap_or(widest))]);
    arguments.extend(case.parts().0);
    let shape = shape(blocks, 384 * (128 + n as u32));
    SHRINK.as_ref().unwrap().launch(&format!("lora_d_low_n{n}"), shape, &arguments)
}

/// Adds up the partial sums of a shrink over `depths`, one for each part.
fn low_of(case: &Case, partial: Arg, span: usize, depths: [usize; 3]) -> Vec<f32> {
    let count = case.rows * case.shrunk();
    let ints = [case.rows, case.padded(), case.group.parts.len(), span, depths[0], depths[1], depths[2]].map(int);
    let arguments = [vec![partial, out(2 * count)], ints.into()].concat();
    let shape = shape([count.div_ceil(2048) as u32, 1, 1], 0);
    SHRINK.as_ref().unwrap().launch("lora_low", shape, &arguments).bf16(1)
}

/// Launches y (+)= scale · low · B, or dx (+)= d_low · A.
fn expand(case: &Case, low: &[f32], y: &[f32], backward: bool, add: bool) -> Vec<f32> {
    let (weights, stride, depth, scale, (columns, tiles)) = if backward {
        (case.a(), case.inputs, case.shrunk(), 1.0, parts(from_ref(&(0..case.inputs))))
    } else {
        (case.b(), case.outputs, case.padded(), case.group.scale, case.parts())
    };
    let before = if add { bf16(y) } else { out(2 * y.len()) };
    let mut arguments = vec![bf16(low), bf16(weights), before];
    arguments.extend([case.rows, stride, case.shrunk(), depth, case.group.rank].map(int));
    arguments.extend([float(scale), int(add.into())]);
    arguments.extend(columns);
    let shape = shape([tiles as u32, case.tile_rows(128), 1], 32768);
    EXPAND.as_ref().unwrap().launch("lora_expand", shape, &arguments).bf16(2)
}

/// Launches the gradient of B, or that of A, added to `grads`.
fn grad(case: &Case, left: &[f32], backward_of_a: bool, span: usize, grads: &[f32]) -> Vec<f32> {
    let (right, stride, depth, scale, (columns, tiles)) = if backward_of_a {
        (&case.x, case.inputs, case.shrunk(), 1.0, parts(from_ref(&(0..case.inputs))))
    } else {
        (&case.dy, case.outputs, case.padded(), case.group.scale, case.parts())
    };
    let m = tile(depth, &[64, 128]);
    let (splits, size) = (case.rows.div_ceil(span), grads.len());
    let mut arguments = vec![bf16(left), bf16(right), out(4 * splits * size)];
    arguments.extend([case.rows, stride, case.shrunk(), depth, case.group.rank, span, size].map(int));
    arguments.extend(columns);
    let blocks = [tiles, splits, depth.div_ceil(m)].map(|n| n as u32);
    let device = GRAD.as_ref().unwrap();
    let sums = device.launch(&format!("lora_grad_m{m}"), shape(blocks, 384 * (128 + m as u32)), &arguments);
    grad_sum(sums.buffer(2), splits, scale, grads)
}

/// Adds scale times the sum of `partial` over its splits to `grads`.
fn grad_sum(partial: Arg, splits: usize, scale: f32, grads: &[f32]) -> Vec<f32> {
    let arguments = [partial, f32s(grads), int(grads.len()), int(splits), float(scale)];
    let shape = shape([grads.len().div_ceil(1024) as u32, 1, 1], 0);
    GRAD.as_ref().unwrap().launch("lora_grad_sum", shape, &arguments).f32(1)
}

/// low in f64, with its padding.
fn exact_low(case: &Case) -> Vec<f32> {
    let a = |k: usize, column: usize| case.row(column).map_or(0.0, |row| case.a()[row * case.inputs + k]);
    product(case.rows, case.inputs, case.shrunk(), |row, k| case.x[row * case.inputs + k], a)
}

/// d_low in f64, with its padding.
fn exact_d_low(case: &Case) -> Vec<f32> {
    let (padded, mut d_low) = (case.padded(), vec![0.0; case.rows * case.shrunk()]);
    for (i, part) in case.group.parts.iter().enumerate() {
        let (b, width) = (&case.params[part.b.clone()], part.columns.len());
        let dy = |row: usize, k: usize| case.dy[row * case.outputs + part.columns.start + k];
        let of_part = product(case.rows, width, case.group.rank, dy, |k, r| case.group.scale * b[r * width + k]);
        for (j, value) in of_part.iter().enumerate() {
            let (row, r) = (j / case.group.rank, j % case.group.rank);
            d_low[row * case.shrunk() + i * padded + r] = *value;
        }
    }
    d_low
}

/// base + scale · low · B in f64 for `low` with its padding.
fn exact_expand(case: &Case, low: &[f32], base: &[f32]) -> Vec<f32> {
    let mut y = base.to_vec();
    for (i, part) in case.group.parts.iter().enumerate() {
        let (b, width) = (&case.params[part.b.clone()], part.columns.len());
        let low = |row: usize, r: usize| case.group.scale * low[row * case.shrunk() + i * case.padded() + r];
        let of_part = product(case.rows, case.group.rank, width, low, |r, k| b[r * width + k]);
        for (j, value) in of_part.iter().enumerate() {
            y[j / width * case.outputs + part.columns.start + j % width] += value;
        }
    }
    y
}

/// The gradient of all B in f64, of `low` with its padding.
fn exact_grad_b(case: &Case, low: &[f32]) -> Vec<f32> {
    let of_part = |(i, part): (usize, &LoraPart)| {
        let left = |r: usize, row: usize| case.group.scale * low[row * case.shrunk() + i * case.padded() + r];
        let dy = |row: usize, k: usize| case.dy[row * case.outputs + part.columns.start + k];
        product(case.group.rank, case.rows, part.columns.len(), left, dy)
    };
    case.group.parts.iter().enumerate().flat_map(of_part).collect()
}

/// The gradient of all A in f64, of `d_low` with its padding.
fn exact_grad_a(case: &Case, d_low: &[f32]) -> Vec<f32> {
    let rank = case.group.rank;
    let column = |row: usize| row / rank * case.padded() + row % rank;
    let left = |row: usize, t: usize| d_low[t * case.shrunk() + column(row)];
    product(case.group.parts.len() * rank, case.rows, case.inputs, left, |t, k| case.x[t * case.inputs + k])
}

fn plus(a: Vec<f32>, b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn compiled() -> bool {
    BACK.is_some() && SHRINK.is_some() && EXPAND.is_some() && GRAD.is_some()
}

#[test]
fn shrink_reads_x_once_for_all_parts() {
    if !compiled() {
        return;
    }
    for case in cases() {
        let what = format!("rank {}, {} parts", case.group.rank, case.group.parts.len());
        let exact = exact_low(&case);
        let low = shrink(&case, &case.x, None).bf16(2);
        close(&format!("low, {what}"), &low, &exact, BF16);
        let padding = low.iter().enumerate().filter(|(i, _)| case.row(i % case.shrunk()).is_none());
        assert!(padding.into_iter().all(|(_, value)| value.to_bits() == 0), "the padding of low is zero");

        let exact = exact_d_low(&case);
        close(&format!("d_low, {what}"), &d_low(&case, None).bf16(2), &exact, BF16);
    }
}

#[test]
fn a_split_shrink_is_the_same_for_every_batch() {
    if !compiled() {
        return;
    }
    for case in cases() {
        let span = 64;
        let split = shrink(&case, &case.x, Some(span));
        let low = low_of(&case, split.buffer(3), span, [case.inputs; 3]);
        close(&format!("low of {} splits", case.inputs.div_ceil(span)), &low, &exact_low(&case), BF16);

        // The last row alone, and among others.
        let (count, last) = (case.shrunk(), case.rows - 1);
        let alone = shrink(&case, &case.x[last * case.inputs..], Some(span)).f32(3);
        let among = split.f32(3);
        for (i, sums) in alone.chunks(count).enumerate() {
            let at = (i * case.rows + last) * count;
            assert_eq!(sums, &among[at..at + count], "split {i}");
        }

        // Adding up in the expand is adding up before it.
        let y = normal(4, case.rows * case.outputs);
        let (columns, tiles) = case.parts();
        let mut arguments = vec![split.buffer(3), bf16(case.b()), bf16(&y)];
        let splits = case.inputs.div_ceil(span);
        let ints = [case.rows, case.outputs, count, case.padded(), case.group.rank, splits];
        arguments.extend(ints.map(int));
        arguments.extend([float(case.group.scale), int(1)]);
        arguments.extend(columns);
        let shape = shape([tiles as u32, case.tile_rows(32), 1], 20480);
        let got = EXPAND.as_ref().unwrap().launch("lora_expand_split", shape, &arguments).bf16(2);
        assert_eq!(got, expand(&case, &low, &y, false, true));

        let split = d_low(&case, Some(span)).buffer(3);
        let low = low_of(&case, split, span, case.widths());
        close("d_low of splits", &low, &exact_d_low(&case), BF16);
    }
}

#[test]
fn expand_adds_or_writes() {
    if !compiled() {
        return;
    }
    for case in cases() {
        let what = format!("rank {}, {} parts", case.group.rank, case.group.parts.len());
        let low: Vec<f32> = exact_low(&case).into_iter().map(rounded).collect();
        let y = normal(4, case.rows * case.outputs);
        let got = expand(&case, &low, &y, false, true);
        close(&format!("y, {what}"), &got, &exact_expand(&case, &low, &y), BF16);
        let adapted = |i: usize| case.group.parts.iter().any(|part| part.columns.contains(&(i % case.outputs)));
        assert!((0..y.len()).all(|i| adapted(i) || got[i] == y[i]), "columns of other layers stay");

        let got = expand(&case, &low, &y, false, false);
        let exact = exact_expand(&case, &low, &vec![0.0; y.len()]);
        let of_parts = |values: &[f32]| (0..y.len()).filter(|i| adapted(*i)).map(|i| values[i]).collect::<Vec<_>>();
        close("its product alone", &of_parts(&got), &of_parts(&exact), BF16);

        let d_low: Vec<f32> = exact_d_low(&case).into_iter().map(rounded).collect();
        let dx = normal(5, case.rows * case.inputs);
        let a = |column: usize, k: usize| case.row(column).map_or(0.0, |row| case.a()[row * case.inputs + k]);
        let mut exact = product(case.rows, case.shrunk(), case.inputs, |row, k| d_low[row * case.shrunk() + k], a);
        exact.iter_mut().zip(&dx).for_each(|(exact, dx)| *exact += dx);
        close("dx", &expand(&case, &d_low, &dx, true, true), &exact, BF16);
    }
}

#[test]
fn gradients_of_a_and_b() {
    if !compiled() {
        return;
    }
    for case in cases() {
        let what = format!("rank {}, {} rows", case.group.rank, case.rows);
        let stored = |low: Vec<f32>| low.into_iter().map(rounded).collect::<Vec<_>>();
        let (low, d_low) = (stored(exact_low(&case)), stored(exact_d_low(&case)));
        for span in [64, 192] {
            let before = normal(6, case.b().len());
            let exact = plus(exact_grad_b(&case, &low), &before);
            close(&format!("dB, {what}, {span} to a split"), &grad(&case, &low, false, span, &before), &exact, F32);

            let before = normal(7, case.a().len());
            let exact = plus(exact_grad_a(&case, &d_low), &before);
            close(&format!("dA, {what}, {span} to a split"), &grad(&case, &d_low, true, span, &before), &exact, F32);
        }
    }
}

/// d_low and dB of one pass over dy, with a part that is wider than a strip.
#[test]
fn one_pass_over_dy() {
    if !compiled() {
        return;
    }
    let device = BACK.as_ref().unwrap();
    let wide = Case::new(40, 24, 24, 616, &[0..560, 568..616]);
    for case in cases().into_iter().chain([wide]).filter(|case| case.padded() <= 32) {
        let low: Vec<f32> = exact_low(&case).into_iter().map(rounded).collect();
        let columns: Vec<_> = case.group.parts.iter().map(|part| part.columns.clone()).collect();
        let strips = columns.iter().map(|part| part.len().div_ceil(512));
        let (widest, strips) = (strips.clone().max().unwrap(), strips.sum());
        let (r, span, size, parts) = (case.padded(), 32, case.b().len(), columns.len());
        let splits = case.rows.div_ceil(span);

        let d_low_out = out(4 * widest * case.rows * case.shrunk());
        let mut arguments = vec![bf16(&case.dy), bf16(&low), bf16(case.b()), d_low_out, out(4 * splits * size)];
        arguments.extend([case.rows, case.outputs, case.group.rank, parts, span, size].map(int));
        arguments.push(float(case.group.scale));
        arguments.extend(case.parts().0);
        let shape = shape([strips, splits, 1].map(|n| n as u32), 74752 + 1152 * r as u32);
        let got = device.launch(&format!("lora_back_r{r}"), shape, &arguments);

        let what = format!("rank {}, {} rows, in one pass", case.group.rank, case.rows);
        let d_low = low_of(&case, got.buffer(3), 512, case.widths());
        close(&format!("d_low, {what}"), &d_low, &exact_d_low(&case), BF16);
        let db = grad_sum(got.buffer(4), splits, case.group.scale, &vec![0.0; size]);
        close(&format!("dB, {what}"), &db, &exact_grad_b(&case, &low), F32);
    }
}

/// All of it in the order of a step, against the operation that trains on the CPU.
#[test]
fn the_chain_is_the_operation() {
    if !compiled() {
        return;
    }
    for case in cases().into_iter().skip(1).step_by(2) {
        let (group, rank) = (&case.group, case.group.rank);
        let mut y = normal(8, case.rows * case.outputs);
        let low = shrink(&case, &case.x, None).bf16(2);
        let got = expand(&case, &low, &y, false, true);
        let cpu_low = group.forward(&case.params, &case.x, case.inputs, &mut y, case.outputs);
        close(&format!("rank {rank}: y"), &got, &y, 1e-2);

        let mut dx = normal(9, case.rows * case.inputs);
        let mut grads = normal(10, case.params.len());
        let d_low = d_low(&case, None).bf16(2);
        let got_dx = expand(&case, &d_low, &dx, true, true);
        let got_b = grad(&case, &low, false, 64, &grads[group.a.end..]);
        let got_a = grad(&case, &d_low, true, 64, &grads[group.a.clone()]);
        let (x, dy) = (&case.x, &case.dy);
        group.backward(&case.params, x, case.inputs, &cpu_low, dy, case.outputs, &mut dx, &mut grads);
        close("dx", &got_dx, &dx, 1e-2);
        close("dA", &got_a, &grads[group.a.clone()], 1e-2);
        close("dB", &got_b, &grads[group.a.end..], 1e-2);
    }
}
