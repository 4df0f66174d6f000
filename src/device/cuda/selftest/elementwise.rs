//! The operations on rows and values one by one: norms, positions, SwiGLU, rows by index, AdamW, random weights.

use super::lab::{Lab, rounded};
use super::{BF16, EXACT, F32};
use crate::config::LoraSection;
use crate::device::cuda::adapter::DeviceAdapter;
use crate::device::cuda::ops;
use crate::device::memory::layout::{Cache, Rows};
use crate::grpo::adamw::{AdamW, Hyper, clip_scale};
use crate::model::config::known_shape;
use crate::model::lora::Adapter;
use crate::ops::attention::Heads;
use crate::ops::rope::RopeTable;
use crate::ops::{qk_norm as cpu_qk_norm, rms_norm as cpu_norm, swiglu as cpu_swiglu};
use anyhow::{Context, Result};

/// Random weights: those of `RandomWeights`, bit for bit but for the last of f64.
pub fn init(lab: &mut Lab) -> Result<()> {
    let stream = lab.stream();
    let want: Vec<f32> = (0..70_001).map(|i| rounded((0.02 * stream.normal(i)) as f32)).collect();
    let to = lab.poisoned(want.len())?;
    ops::fill_normal(&lab.gpu, Rows::plain(to, want.len()), 1, want.len(), &stream, 0.0, 0.02)?;
    lab.compare_bf16("normal values", to, &want, 1e-6)?;
    // The same in rows that lie apart, as a weight with an adapter beside it.
    let (rows, width) = (700, 100);
    let to = lab.rows(&vec![f32::NAN; rows * width], width, 8)?;
    ops::fill_normal(&lab.gpu, to, rows, width, &stream, 0.0, 0.02)?;
    let got = lab.read_rows(to, width)?;
    lab.compare("in rows that lie apart", &got, &want[..rows * width], 1e-6);
    Ok(())
}

pub fn rms_norm(lab: &mut Lab) -> Result<()> {
    let eps = 1e-6;
    for (rows, width) in [(3, 8), (65, 264), (37, 3_584), (9, 8_192)] {
        lab.arena.clear();
        let (x, weight) = (lab.normals(rows * width, 2.0), lab.normals(width, 1.0));
        let (dy, before) = (lab.normals(rows * width, 1.0), lab.normals(rows * width, 0.5));
        let (want, want_scales) = cpu_norm::forward(&x, &weight, eps);
        // Rows of y and dx have room for an adapter's columns.
        let (x_at, weight_at, dy_at) = (lab.bf16(&x)?, lab.bf16(&weight)?, lab.bf16(&dy)?);
        let (y, dx) = (lab.rows(&vec![f32::NAN; rows * width], width, 24)?, lab.rows(&before, width, 16)?);
        let scales = lab.poisoned(rows)?;
        ops::rms_norm(&lab.gpu, x_at, weight_at, y, scales, rows, width, eps)?;
        ops::rms_norm_backward(&lab.gpu, dy_at, x_at, scales, weight_at, dx, rows, width)?;
        let size = format!("({rows}, {width})");
        let (forward, dx) = (lab.read_rows(y, width)?, lab.read_rows(dx, width)?);
        lab.compare(&format!("{size} forward"), &forward, &want, BF16);
        lab.compare_f32(&format!("{size} scales"), scales, &want_scales, F32)?;
        lab.compare_bf16(&format!("{size} in the place of its gradient"), dy_at, &forward, EXACT)?;
        let mut want = before;
        cpu_norm::backward(&dy, &x, &want_scales, &weight, &mut want);
        lab.compare(&format!("{size} backward"), &dx, &want, BF16);
    }
    Ok(())
}

pub fn qk_norm(lab: &mut Lab) -> Result<()> {
    let eps = 1e-6;
    for (query, kv, dim, rows) in [(4, 2, 32, 53), (7, 1, 64, 19), (32, 8, 128, 5)] {
        lab.arena.clear();
        let heads = Heads { query, kv, dim };
        let (mut qkv, mut d) = (lab.normals(rows * heads.qkv_width(), 2.0), lab.normals(rows * heads.qkv_width(), 1.0));
        let weights = lab.normals(2 * dim, 1.0);
        let width = heads.qkv_width();
        let (at, d_at, weights_at) = (lab.bf16(&qkv)?, lab.rows(&d, width, 8)?, lab.bf16(&weights)?);
        let before = lab.poisoned(rows * (query + kv) * dim)?;
        ops::qk_norm(&lab.gpu, at, weights_at, before, rows, heads, eps)?;
        let saved = cpu_qk_norm::forward(heads, &mut qkv, &weights[..dim], &weights[dim..], eps);
        let what = format!("{query} heads over {kv} of {dim}");
        lab.compare_bf16(&format!("{what}: forward"), at, &qkv, BF16)?;
        ops::qk_norm_backward(&lab.gpu, d_at, weights_at, before, rows, heads, eps)?;
        cpu_qk_norm::backward(heads, &saved, &mut d, &weights[..dim], &weights[dim..]);
        let got = lab.read_rows(d_at, width)?;
        lab.compare(&format!("{what}: backward"), &got, &d, BF16);
    }
    Ok(())
}

pub fn rope(lab: &mut Lab) -> Result<()> {
    for (query, kv, dim) in [(4, 2, 32), (7, 1, 64), (14, 2, 128)] {
        lab.arena.clear();
        let (rows, heads, positions_len, capacity) = (53, Heads { query, kv, dim }, 80, 20);
        let width = heads.qkv_width();
        let mut config = known_shape("qwen2.5-7b").context("a known shape")?;
        config.head_dim = dim;
        let table = RopeTable::new(&config, positions_len);
        let (mut qkv, bias) = (lab.normals(rows * width, 1.0), lab.normals(width, 0.5));
        let positions = lab.below(rows, positions_len);
        // Every row has a cell of its own; the last has no slot.
        let slots: Vec<i32> = (0..rows as i32).map(|row| if row == rows as i32 - 1 { -1 } else { row % 3 }).collect();
        let cells: Vec<u32> = (0..rows as u32).map(|row| row / 3).collect();
        let at = lab.bf16(&qkv)?;
        let bias_at = lab.bf16(&bias)?;
        let rope = [lab.put(table.cos())?, lab.put(table.sin())?];
        let (positions_at, slots_at, cells_at) = (lab.int(&positions)?, lab.put(&slots)?, lab.int(&cells)?);
        let cached = 3 * kv * capacity * dim;
        let cache = Cache { keys: lab.poisoned(cached)?, values: lab.poisoned(cached)?, capacity };
        ops::qkv_rope(&lab.gpu, at, bias_at, rope, positions_at, cache, slots_at, cells_at, rows, heads)?;

        qkv.chunks_mut(width).for_each(|row| row.iter_mut().zip(&bias).for_each(|(x, bias)| *x += bias));
        table.forward(&mut qkv, width, query + kv, &positions);
        let what = format!("{query} heads over {kv} of {dim}");
        lab.compare_bf16(&format!("{what}: forward"), at, &qkv, BF16)?;
        let (turned, keys, values) = (lab.read(at)?, lab.read(cache.keys)?, lab.read(cache.values)?);
        let mut same = true;
        for row in 0..rows - 1 {
            for head in 0..kv {
                let to = ((slots[row] as usize * kv + head) * capacity + cells[row] as usize) * dim;
                let from = row * width + (query + head) * dim;
                same &= keys[to..to + dim] == turned[from..from + dim];
                same &= values[to..to + dim] == turned[from + kv * dim..from + (kv + 1) * dim];
            }
        }
        lab.holds(&format!("{what}: the cache has the keys and values"), same);
        let written = keys.iter().filter(|value| !value.is_nan()).count();
        lab.holds(&format!("{what}: and nothing else"), written == (rows - 1) * kv * dim);

        let mut d = lab.normals(rows * width, 1.0);
        let at = lab.rows(&d, width, 8)?;
        ops::qkv_rope_backward(&lab.gpu, at, rope, positions_at, rows, heads)?;
        table.backward(&mut d, width, query + kv, &positions);
        let got = lab.read_rows(at, width)?;
        lab.compare(&format!("{what}: backward"), &got, &d, BF16);
    }
    Ok(())
}

pub fn swiglu(lab: &mut Lab) -> Result<()> {
    for (rows, width) in [(1, 8), (67, 376), (33, 4_864)] {
        lab.arena.clear();
        let (mut gate_up, dy) = (lab.normals(2 * rows * width, 2.0), lab.normals(rows * width, 1.0));
        let (at, dy_at) = (lab.rows(&gate_up, 2 * width, 16)?, lab.bf16(&dy)?);
        let y = lab.rows(&vec![f32::NAN; rows * width], width, 8)?;
        ops::swiglu(&lab.gpu, at, y, rows, width)?;
        let forward = lab.read_rows(y, width)?;
        lab.compare(&format!("({rows}, {width}) forward"), &forward, &cpu_swiglu::forward(&gate_up, width), BF16);
        ops::swiglu_backward(&lab.gpu, dy_at, at, rows, width)?;
        cpu_swiglu::backward(&dy, &mut gate_up, width);
        let got = lab.read_rows(at, 2 * width)?;
        lab.compare(&format!("({rows}, {width}) backward"), &got, &gate_up, BF16);
        lab.compare_bf16(&format!("({rows}, {width}) in the place of its gradient"), dy_at, &forward, EXACT)?;
    }
    Ok(())
}

pub fn rows(lab: &mut Lab) -> Result<()> {
    for (rows, width) in [(40, 8), (129, 3_584)] {
        lab.arena.clear();
        let from = lab.normals(rows * width, 1.0);
        let index = lab.below(3 * rows, rows);
        let from_at = lab.bf16(&from)?;
        let (index_at, to) = (lab.int(&index)?, lab.poisoned(3 * rows * width)?);
        ops::gather_rows(&lab.gpu, from_at, index_at, to, width)?;
        let columns = lab.poisoned(rows * 8)?;
        ops::copy_columns(&lab.gpu, Rows::plain(from_at, width), width - 8, columns, rows, 8)?;
        let last: Vec<f32> = from.chunks(width).flat_map(|row| &row[width - 8..]).copied().collect();
        lab.compare_bf16(&format!("columns of ({rows}, {width}) copied"), columns, &last, EXACT)?;
        let want: Vec<f32> = index.iter().flat_map(|&row| &from[row as usize * width..][..width]).copied().collect();
        lab.compare_bf16(&format!("{} of ({rows}, {width}) gathered", 3 * rows), to, &want, EXACT)?;

        // Back again: row `index[i]` of the sum gets row i.
        let mut pairs: Vec<u32> = (0..3 * rows as u32).collect();
        pairs.sort_by_key(|&pair| index[pair as usize]);
        let starts: Vec<u32> =
            (0..=rows as u32).map(|row| index.iter().filter(|&&it| it < row).count() as u32).collect();
        let d = lab.normals(3 * rows * width, 1.0);
        let mut want = vec![0.0; rows * width];
        for &pair in &pairs {
            let to = &mut want[index[pair as usize] as usize * width..][..width];
            to.iter_mut().zip(&d[pair as usize * width..]).for_each(|(to, d)| *to += d);
        }
        let (d_at, starts_at, pairs_at) = (lab.bf16(&d)?, lab.int(&starts)?, lab.int(&pairs)?);
        let to = lab.poisoned(rows * width)?;
        ops::scatter_rows(&lab.gpu, d_at, starts_at, pairs_at, to, width)?;
        lab.compare_bf16(&format!("and added up to ({rows}, {width})"), to, &want, BF16)?;
    }
    Ok(())
}

/// Five steps with clipping and decay, from moments that are not zero, then one whose gradient is not finite.
pub fn adamw(lab: &mut Lab) -> Result<()> {
    let config = known_shape("qwen2.5-0.5b").context("a known shape")?;
    let mut adapter = Adapter::new(&config, &LoraSection::all_linear(8), 1)?;
    let len = adapter.params.len();
    let device = DeviceAdapter::new(&lab.gpu, &adapter)?;
    let mut host = AdamW::new(len);
    host.m = lab.normals(len, 1e-3);
    host.v = host.m.iter().map(|m| m * m).collect();
    host.step = 7;
    device.upload(&lab.gpu, &adapter)?;
    device.load_moments(&lab.gpu, &host)?;
    let hyper = Hyper { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    for step in 0..5 {
        let grads = lab.normals(len, 1e-3);
        let norm = grads.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
        device.grads.upload(&lab.gpu, &grads)?;
        let found = device.gradient_norm(&lab.gpu)?;
        let max_norm = if step == 3 { 0.0 } else { 0.5 };
        device.optimizer_step(&lab.gpu, &hyper, max_norm)?;
        host.step(&mut adapter.params, &grads, &hyper, clip_scale(norm, max_norm));
        if step == 4 {
            lab.value("norm of the gradient", (found / norm - 1.0).abs(), 1e-9);
        }
    }
    lab.compare_f32("weights after 5 steps", device.params, &adapter.params, F32)?;
    let mut moments = AdamW::new(len);
    device.moments(&lab.gpu, &mut moments)?;
    lab.compare("first moments", &moments.m, &host.m, F32);
    lab.compare("second moments", &moments.v, &host.v, F32);

    let before = device.params.download(&lab.gpu)?;
    let mut grads = lab.normals(len, 1e-3);
    grads[len / 2] = f32::INFINITY;
    device.grads.upload(&lab.gpu, &grads)?;
    let norm = device.gradient_norm(&lab.gpu)?;
    device.optimizer_step(&lab.gpu, &hyper, 1.0)?;
    lab.holds("a gradient that is not finite is seen", !norm.is_finite());
    lab.compare_f32("and moves nothing", device.params, &before, EXACT)
}
