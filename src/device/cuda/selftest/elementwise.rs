//! The operations on rows and single values: norms, positions, SwiGLU, rows by index, AdamW, random weights.

use super::case::{SelftestCase, name};
use super::lab::{F32, Lab, Twin, distance, rounded};
use super::model::shape;
use crate::config::LoraSection;
use crate::device::cuda::adapter::DeviceAdapter;
use crate::device::cuda::memory::Buffer;
use crate::device::cuda::ops;
use crate::device::memory::layout::{Cache, StridedRows};
use crate::grpo::adamw::{AdamW, Hyper, clip_scale, global_norm};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::ops::attention::Heads;
use crate::ops::rope::RopeTable;
use crate::ops::{qk_norm as cpu_qk_norm, rms_norm as cpu_norm, swiglu as cpu_swiglu};
use anyhow::Result;
use std::slice::from_ref;

/// Epsilon of the norms.
const EPS: f32 = 1e-6;

/// Random weights: equal to those of `RandomWeights`, except for the last bits of f64.
pub fn init() -> Vec<SelftestCase> {
    let normal = SelftestCase::new("normal values", |lab| {
        let stream = lab.stream();
        let want: Vec<f32> = (0..70_001).map(|i| rounded((0.02 * stream.normal(i)) as f32)).collect();
        let to = lab.poisoned(want.len())?;
        ops::fill_normal(&lab.gpu, StridedRows::plain(to, want.len()), 1, want.len(), &stream, 0.0, 0.02)?;
        let got = lab.read(to)?;
        lab.value("difference from the CPU", distance(&got, &want), 1e-6);
        // The same in rows with a stride, like a weight with an adapter next to it.
        let (rows, width) = (700, 100);
        let to = lab.rows(&vec![f32::NAN; rows * width], width, 8)?;
        ops::fill_normal(&lab.gpu, to, rows, width, &stream, 0.0, 0.02)?;
        let got = lab.read_rows(to, width)?;
        lab.value("in rows with a stride", distance(&got, &want[..rows * width]), 1e-6);
        Ok(())
    });
    let constant = SelftestCase::new("ones", |lab| {
        let to = lab.poisoned(3_000)?;
        let stream = lab.stream();
        ops::fill_normal(&lab.gpu, StridedRows::plain(to, to.len()), 1, to.len(), &stream, 1.0, 0.0)?;
        let got = lab.read(to)?;
        lab.same("without a deviation", &got, &vec![1.0; got.len()]);
        Ok(())
    });
    vec![normal, constant]
}

pub fn rms_norm() -> Vec<SelftestCase> {
    // The embedded model, Qwen2.5 0.5B, 1.5B and 7B, the maximum width, and widths that leave lanes idle.
    [(5, 128), (3, 896), (2, 1_536), (37, 3_584), (2, 8_192), (3, 8), (65, 264)]
        .map(|(rows, width)| SelftestCase::new(format!("({rows}, {width})"), move |lab| one_rms_norm(lab, rows, width)))
        .into()
}

fn one_rms_norm(lab: &mut Lab, rows: usize, width: usize) -> Result<()> {
    let (x, weight) = (lab.normals(rows * width, 2.0), lab.normals(width, 1.0));
    let (x_at, weight_at) = (lab.bf16(&x)?, lab.bf16(&weight)?);
    // Rows of y and dx have room for an adapter's columns.
    let (y, scales) = (lab.rows(&vec![f32::NAN; rows * width], width, 24)?, lab.poisoned(rows)?);
    ops::rms_norm(&lab.gpu, x_at, weight_at, y, scales, rows, width, EPS)?;
    let (want, want_scales) = cpu_norm::forward(&x, &weight, EPS);
    let forward = lab.read_rows(y, width)?;
    lab.near("forward", &forward, &Twin::stored(&want));
    lab.close("1/rms", scales, &want_scales)?;

    // Decoding does not keep 1/rms.
    let y = lab.poisoned(rows * width)?;
    ops::rms_norm(&lab.gpu, x_at, weight_at, StridedRows::plain(y, width), Buffer::NULL, rows, width, EPS)?;
    let got = lab.read(y)?;
    lab.same("without 1/rms", &got, &forward);

    let (dy, before) = (lab.normals(rows * width, 1.0), lab.normals(rows * width, 0.5));
    let (dy_at, dx) = (lab.bf16(&dy)?, lab.rows(&before, width, 16)?);
    ops::rms_norm_backward(&lab.gpu, dy_at, x_at, scales, weight_at, dx, rows, width)?;
    let mut want = before;
    cpu_norm::backward(&dy, &x, &want_scales, &weight, &mut want);
    let (got, again) = (lab.read_rows(dx, width)?, lab.read(dy_at)?);
    lab.near("backward, added", &got, &Twin::stored(&want));
    lab.same("y replaces its gradient", &again, &forward);
    Ok(())
}

pub fn qk_norm() -> Vec<SelftestCase> {
    // Qwen3's heads and smaller ones; numbers of threads that do not fill a block or a warp.
    [(4, 1, 32, 9), (4, 2, 32, 53), (3, 3, 32, 1), (7, 1, 64, 19), (16, 8, 128, 3), (32, 8, 128, 5)]
        .map(|(query, kv, dim, rows)| {
            let heads = Heads { query, kv, dim };
            SelftestCase::new(format!("{rows} rows, {}", name(heads)), move |lab| one_qk_norm(lab, heads, rows))
        })
        .into()
}

fn one_qk_norm(lab: &mut Lab, heads: Heads, rows: usize) -> Result<()> {
    let Heads { query, kv, dim } = heads;
    let width = heads.qkv_width();
    let qkv = lab.normals(rows * width, 2.0);
    let weights = lab.normals(2 * dim, 1.0);
    let (at, weights_at) = (lab.bf16(&qkv)?, lab.bf16(&weights)?);
    let before = lab.poisoned(rows * (query + kv) * dim)?;
    ops::qk_norm(&lab.gpu, at, weights_at, before, rows, heads, EPS)?;
    let mut want = qkv.clone();
    let saved = cpu_qk_norm::forward(heads, &mut want, &weights[..dim], &weights[dim..], EPS);
    lab.stored("forward", at, &want)?;
    let (got, kept) = (lab.read(at)?, lab.read(before)?);
    let columns = |values: &[f32], from: usize, to: usize| -> Vec<f32> {
        values.chunks(width).flat_map(|row| &row[from..to]).copied().collect()
    };
    lab.same("the previous values", &kept, &columns(&qkv, 0, (query + kv) * dim));
    let v = (query + kv) * dim;
    lab.same("v is unchanged", &columns(&got, v, width), &columns(&qkv, v, width));
    let alone = lab.bf16(&qkv)?;
    ops::qk_norm(&lab.gpu, alone, weights_at, Buffer::NULL, rows, heads, EPS)?;
    let alone = lab.read(alone)?;
    lab.same("without previous values, as in decoding", &alone, &got);

    let mut d = lab.normals(rows * width, 1.0);
    let d_at = lab.rows(&d, width, 8)?;
    ops::qk_norm_backward(&lab.gpu, d_at, weights_at, before, rows, heads, EPS)?;
    cpu_qk_norm::backward(heads, &saved, &mut d, &weights[..dim], &weights[dim..]);
    let got = lab.read_rows(d_at, width)?;
    lab.near("backward", &got, &Twin::stored(&d));
    Ok(())
}

pub fn rope() -> Vec<SelftestCase> {
    // The embedded model, Qwen2.5 0.5B, and the heads of two groups of 7B.
    [(4, 2, 32), (7, 1, 64), (14, 2, 64), (14, 2, 128)]
        .map(|(query, kv, dim)| {
            let heads = Heads { query, kv, dim };
            SelftestCase::new(name(heads), move |lab| one_rope(lab, heads))
        })
        .into()
}

fn one_rope(lab: &mut Lab, heads: Heads) -> Result<()> {
    let Heads { query, kv, dim } = heads;
    let (rows, positions_len, capacity, width) = (53, 80, 20, heads.qkv_width());
    let config = ModelConfig { rope_theta: 1e6, ..ModelConfig::qwen2(1, dim, (1, 1), 1, 1) };
    let table = RopeTable::new(&config.rope_frequencies(), positions_len);
    let (qkv, bias) = (lab.normals(rows * width, 1.0), lab.normals(width, 0.5));
    let mut positions = lab.below(rows, positions_len);
    positions[0] = positions_len as u32 - 1;
    // Every row has a separate cell; the last has no slot.
    let slots: Vec<i32> = (0..rows as i32).map(|row| if row == rows as i32 - 1 { -1 } else { row % 3 }).collect();
    let cells: Vec<u32> = (0..rows as u32).map(|row| row / 3).collect();
    let at = lab.bf16(&qkv)?;
    let bias_at = lab.bf16(&bias)?;
    let rope = [lab.put(table.cos())?, lab.put(table.sin())?];
    let (positions_at, slots_at, cells_at) = (lab.int(&positions)?, lab.put(&slots)?, lab.int(&cells)?);
    let cached = 3 * kv * capacity * dim;
    let cache = Cache { keys: lab.poisoned(cached)?, values: lab.poisoned(cached)?, capacity };
    ops::qkv_rope(&lab.gpu, at, bias_at, rope, positions_at, cache, slots_at, cells_at, rows, heads)?;
    let turned = |bias: &[f32]| -> Vec<f32> {
        let mut want: Vec<f32> = qkv.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
        table.forward(&mut want, width, query + kv, &positions);
        want
    };
    lab.stored("forward", at, &turned(&bias))?;
    let (got, keys, values) = (lab.read(at)?, lab.read(cache.keys)?, lab.read(cache.values)?);
    let mut same = true;
    for row in 0..rows - 1 {
        for head in 0..kv {
            let to = ((slots[row] as usize * kv + head) * capacity + cells[row] as usize) * dim;
            let from = row * width + (query + head) * dim;
            same &= keys[to..to + dim] == got[from..from + dim];
            same &= values[to..to + dim] == got[from + kv * dim..from + (kv + 1) * dim];
        }
    }
    lab.holds("the cache contains the keys and values", same);
    let written = |cells: &[f32]| cells.iter().filter(|value| !value.is_nan()).count();
    let expected = (rows - 1) * kv * dim;
    lab.holds("no other cell is written", written(&keys) == expected && written(&values) == expected);

    // In training there is no cache, and other model families have no bias.
    let (at, nowhere) = (lab.bf16(&qkv)?, Cache { keys: Buffer::NULL, values: Buffer::NULL, capacity: 0 });
    ops::qkv_rope(&lab.gpu, at, Buffer::NULL, rope, positions_at, nowhere, Buffer::NULL, Buffer::NULL, rows, heads)?;
    lab.stored("without bias and cache", at, &turned(&[0.0]))?;

    let mut d = lab.normals(rows * width, 1.0);
    let at = lab.rows(&d, width, 8)?;
    ops::qkv_rope_backward(&lab.gpu, at, rope, positions_at, rows, heads)?;
    table.backward(&mut d, width, query + kv, &positions);
    let got = lab.read_rows(at, width)?;
    lab.near("backward", &got, &Twin::stored(&d));
    Ok(())
}

pub fn swiglu() -> Vec<SelftestCase> {
    [(1, 8), (67, 376), (5, 384), (33, 4_864), (1, 8_960), (1, 18_944)]
        .map(|(rows, width)| SelftestCase::new(format!("({rows}, {width})"), move |lab| one_swiglu(lab, rows, width)))
        .into()
}

fn one_swiglu(lab: &mut Lab, rows: usize, width: usize) -> Result<()> {
    let (mut gate_up, dy) = (lab.normals(2 * rows * width, 2.0), lab.normals(rows * width, 1.0));
    // Some are so large that their sigmoid is 0 or 1.
    gate_up.iter_mut().step_by(7).for_each(|x| *x *= 64.0);
    let (at, dy_at) = (lab.rows(&gate_up, 2 * width, 16)?, lab.bf16(&dy)?);
    let y = lab.rows(&vec![f32::NAN; rows * width], width, 8)?;
    ops::swiglu(&lab.gpu, at, y, rows, width)?;
    let forward = lab.read_rows(y, width)?;
    lab.near("forward", &forward, &Twin::stored(&cpu_swiglu::forward(&gate_up, width)));
    ops::swiglu_backward(&lab.gpu, dy_at, at, rows, width)?;
    cpu_swiglu::backward(&dy, &mut gate_up, width);
    let (got, again) = (lab.read_rows(at, 2 * width)?, lab.read(dy_at)?);
    lab.near("backward", &got, &Twin::stored(&gate_up));
    lab.same("y replaces its gradient", &again, &forward);
    Ok(())
}

pub fn rows() -> Vec<SelftestCase> {
    [(40, 8), (11, 136), (129, 1_032), (9, 2_600)]
        .map(|(rows, width)| SelftestCase::new(format!("({rows}, {width})"), move |lab| one_rows(lab, rows, width)))
        .into()
}

fn one_rows(lab: &mut Lab, rows: usize, width: usize) -> Result<()> {
    let from = lab.normals(rows * width, 1.0);
    // Many uses of one row, like a prompt's last one, and none of some.
    let mut index = lab.below(3 * rows, rows);
    index.iter_mut().step_by(4).for_each(|row| *row = 2);
    let from_at = lab.bf16(&from)?;
    let (index_at, to) = (lab.int(&index)?, lab.poisoned(3 * rows * width)?);
    ops::gather_rows(&lab.gpu, from_at, index_at, to, width)?;
    let want: Vec<f32> = index.iter().flat_map(|&row| &from[row as usize * width..][..width]).copied().collect();
    let got = lab.read(to)?;
    lab.same("gathered", &got, &want);
    let columns = lab.poisoned(rows * 8)?;
    ops::copy_columns(&lab.gpu, StridedRows::plain(from_at, width), width - 8, columns, rows, 8)?;
    let last: Vec<f32> = from.chunks(width).flat_map(|row| &row[width - 8..]).copied().collect();
    let got = lab.read(columns)?;
    lab.same("columns copied", &got, &last);

    // In reverse: row `index[i]` of the sum gets row i.
    let mut pairs: Vec<u32> = (0..3 * rows as u32).collect();
    pairs.sort_by_key(|&pair| index[pair as usize]);
    let starts: Vec<u32> = (0..=rows as u32).map(|row| index.iter().filter(|&&it| it < row).count() as u32).collect();
    let d = lab.normals(3 * rows * width, 1.0);
    let mut want = vec![0.0; rows * width];
    for &pair in &pairs {
        let to = &mut want[index[pair as usize] as usize * width..][..width];
        to.iter_mut().zip(&d[pair as usize * width..]).for_each(|(to, d)| *to += d);
    }
    let (d_at, starts_at, pairs_at) = (lab.bf16(&d)?, lab.int(&starts)?, lab.int(&pairs)?);
    let to = lab.poisoned(rows * width)?;
    ops::scatter_rows(&lab.gpu, d_at, starts_at, pairs_at, to, width)?;
    // The sums are in the order of the pairs, so rounding them gives the same bits.
    let (got, want) = (lab.read(to)?, want.into_iter().map(rounded).collect::<Vec<_>>());
    lab.same("rows added", &got, &want);
    Ok(())
}

pub fn adamw() -> Vec<SelftestCase> {
    [("from nothing", 0), ("from a checkpoint", 7)]
        .map(|(name, step)| SelftestCase::new(name, move |lab| one_adamw(lab, step)))
        .into()
}

/// Steps with weight decay: clipped, with a gradient that is not finite, below the maximum norm, and not clipped.
fn one_adamw(lab: &mut Lab, step: u64) -> Result<()> {
    // Two chunks of sums of squares and a part of one.
    let config = shape(4, 2, 32, 200);
    let mut adapter = Adapter::new(&config, &LoraSection::all_linear(8), 1)?;
    let len = adapter.params.len();
    adapter.params = lab.normals(len, 0.1);
    let device = DeviceAdapter::new(&lab.gpu, &adapter)?;
    let mut host = AdamW::new(len);
    if step > 0 {
        host.m = lab.normals(len, 1e-3);
        host.v = host.m.iter().map(|m| m * m).collect();
        host.step = step;
    }
    device.upload(&lab.gpu, &adapter)?;
    device.load_moments(&lab.gpu, &host)?;
    let hyper = Hyper { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    for (what, deviation, max_norm) in
        [("clipped", 1e-3, 0.05), ("not finite", 1e-3, 0.05), ("small", 1e-5, 0.05), ("not clipped", 1e-3, 0.0)]
    {
        let mut grads = lab.normals(len, deviation);
        if what == "not finite" {
            grads[len / 2] = f32::INFINITY;
        }
        device.grads.upload(&lab.gpu, &grads)?;
        let (norm, found) = (global_norm(&grads, from_ref(&(0..len))), device.gradient_norm(&lab.gpu)?);
        device.optimizer_step(&lab.gpu, &hyper, max_norm)?;
        if norm.is_finite() {
            lab.value(&format!("{what}: the norm"), (found / norm - 1.0).abs(), 1e-9);
            host.step(&mut adapter.params, &grads, &hyper, clip_scale(norm, max_norm));
        } else {
            lab.holds(&format!("{what}: the norm is not finite"), !found.is_finite());
        }
        let mut moments = AdamW::new(len);
        device.moments(&lab.gpu, &mut moments)?;
        // A gradient that is not finite changes nothing, and is not counted in the next step's corrections.
        lab.close(&format!("{what}: weights"), device.params, &adapter.params)?;
        lab.value(&format!("{what}: first moments"), distance(&moments.m, &host.m), F32);
        lab.value(&format!("{what}: second moments"), distance(&moments.v, &host.v), F32);
    }
    Ok(())
}
