//! Linear layers with LoRA on the four groups of a block: forward, backward, and the weights next to the frozen ones.

use super::SelftestCase;
use super::lab::{Lab, Twin, rounded};
use super::model::{POSITIONS, TestWeights, as_stored, shape};
use crate::config::LoraSection;
use crate::device::Extent;
use crate::device::cuda::Shared;
use crate::device::cuda::adapter::DeviceAdapter;
use crate::device::cuda::matrix::Matrix;
use crate::device::cuda::weights::{CudaLinear, WeightOrigin};
use crate::device::memory::layout::StridedRows;
use crate::device::memory::lora::padded_rank;
use crate::model::lora::{Adapter, Target};
use crate::model::weights::Weights;
use crate::ops::lora::LoraGroup;
use crate::ops::matmul::{View, product};
use anyhow::{Context, Result};
use std::ops::Range;

pub fn lora() -> Vec<SelftestCase> {
    let all: &[&str] = &["all-linear"];
    [
        (1, 33, all),
        (8, 70, all),
        (12, 65, &["q_proj", "v_proj", "up_proj"]),
        (16, 333, all),
        (20, 40, all),
        (32, 1, all),
        (32, 700, all),
        (128, 257, all),
    ]
    .map(|(rank, rows, modules)| {
        let name = format!("rank {rank}, {rows} rows, {}", modules.join(" "));
        SelftestCase::new(name, move |lab| one_block(lab, rank, rows, modules))
    })
    .into()
}

fn one_block(lab: &mut Lab, rank: usize, rows: usize, modules: &[&str]) -> Result<()> {
    let config = shape(8, 2, 128, 1_096);
    let target_modules = modules.iter().map(|&module| module.to_owned()).collect();
    let section = LoraSection { target_modules, use_rslora: rank == 12, ..LoraSection::all_linear(rank) };
    let mut adapter = Adapter::new(&config, &section, 3)?;
    adapter.params = lab.normals(adapter.params.len(), 0.2);
    let weights = TestWeights(lab.stream().u64(0));
    let extent = Extent { positions: POSITIONS, max_rows: 1, working_bytes: Some(0), keep: None, taught: false };
    let origin = WeightOrigin::Checkpoint(&weights);
    let shared = Shared::on(lab.gpu.clone(), config.clone(), &origin, Some(&adapter), &extent)?;
    shared.make_current(&adapter)?;
    let device = shared.adapter.as_ref().context("memory for the adapter")?;
    let kept = as_stored(&adapter);
    let (block, groups) = (&shared.decoder.frozen.blocks[0], &adapter.blocks[0]);
    for (name, targets, layer, group) in [
        ("qkv", &[Target::Q, Target::K, Target::V][..], &block.qkv, &groups.qkv),
        ("o", &[Target::O], &block.o, &groups.o),
        ("gate and up", &[Target::Gate, Target::Up], &block.gate_up, &groups.gate_up),
        ("down", &[Target::Down], &block.down, &groups.down),
    ] {
        let mut frozen = Vec::new();
        for target in targets {
            let (inputs, outputs) = target.shape(&config);
            frozen.extend(weights.get(&format!("{}.weight", target.path(0)), &[outputs, inputs])?);
        }
        storage(lab, name, &adapter.params, &frozen, layer, group)?;
        products(lab, name, [&adapter.params, &kept.params], &frozen, device, layer, group, rows)?;
    }
    Ok(())
}

/// The weights that products read: W, and the adapter next to it, rounded.
fn storage(
    lab: &mut Lab,
    name: &str,
    params: &[f32],
    frozen: &[f32],
    layer: &CudaLinear,
    group: &LoraGroup,
) -> Result<()> {
    let (inputs, outputs, padded) = (layer.inputs, layer.outputs, padded_rank(group.rank));
    let stride = layer.stride();
    let mut want = vec![0.0; layer.storage.len()];
    for (to, from) in want.chunks_mut(stride).zip(frozen.chunks(inputs)) {
        to[..inputs].copy_from_slice(from);
    }
    for (i, part) in group.parts.iter().enumerate() {
        for r in 0..group.rank {
            let a = &params[group.a.start + (i * group.rank + r) * inputs..][..inputs];
            let to = &mut want[(outputs + i * padded + r) * stride..][..inputs];
            to.iter_mut().zip(a).for_each(|(to, a)| *to = rounded(*a));
            for (column, &b) in part.columns.clone().zip(&params[part.b.start + r * part.columns.len()..]) {
                want[column * stride + inputs + i * padded + r] = rounded(group.scale * b);
            }
        }
    }
    let mut got = lab.read(layer.storage)?;
    // The values below B are not used.
    got.chunks_mut(stride).skip(outputs).for_each(|row| row[inputs..].fill(0.0));
    lab.same(&format!("{name}: the weights"), &got, &want);
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "a layer and its adapter on both devices")]
fn products(
    lab: &mut Lab,
    name: &str,
    [params, kept]: [&[f32]; 2],
    frozen: &[f32],
    device: &DeviceAdapter,
    layer: &CudaLinear,
    group: &LoraGroup,
    rows: usize,
) -> Result<()> {
    let gpu = lab.gpu.clone();
    let (inputs, outputs, columns) = (layer.inputs, layer.outputs, layer.lora);
    let (x, dy) = (lab.normals(rows * inputs, 0.1), lab.normals(rows * outputs, 0.1));
    let residual = lab.normals(rows * outputs, 0.1);
    let weight = View::new(frozen, outputs, inputs);
    let plain = product(View::new(&x, rows, inputs), weight.t());
    let mut twin = Twin { exact: plain.clone(), rounded: plain.clone() };
    let shrunk = group.forward(params, &x, inputs, &mut twin.exact, outputs);
    let shrunk_rounded = group.forward_of::<true>(kept, &x, inputs, &mut twin.rounded, outputs);
    let mut sum = twin.clone();
    for y in [&mut sum.exact, &mut sum.rounded] {
        y.iter_mut().zip(&residual).for_each(|(y, residual)| *y += residual);
    }
    let (twin, sum) = (twin.when_stored(), sum.when_stored());

    let (x_at, y) = (lab.rows(&x, inputs, columns)?, lab.rows(&vec![f32::NAN; rows * outputs], outputs, 8)?);
    layer.forward(&gpu, false, x_at, rows, None, y)?;
    let got = lab.read_rows(y, outputs)?;
    lab.near(&format!("{name}: without its adapter"), &got, &Twin::stored(&plain));
    layer.forward(&gpu, true, x_at, rows, None, y)?;
    let got = lab.read_rows(y, outputs)?;
    lab.near(&format!("{name}: with its adapter"), &got, &twin);
    let behind = lab.read(y.buffer)?.chunks(y.stride).all(|row| row[outputs..].iter().all(|v| v.is_nan()));
    lab.holds(&format!("{name}: nothing after the rows of y"), behind);
    let (residual_at, y) = (lab.bf16(&residual)?, StridedRows::plain(lab.poisoned(rows * outputs)?, outputs));
    layer.forward(&gpu, true, x_at, rows, Some(residual_at), y)?;
    let got = lab.read(y.buffer)?;
    lab.near(&format!("{name}: added to the residual stream"), &got, &sum);

    let (mut grads, mut grads_rounded) = (vec![0.0; params.len()], vec![0.0; params.len()]);
    let plain = product(View::new(&dy, rows, outputs), weight);
    let mut dx_twin = Twin { exact: plain.clone(), rounded: plain };
    group.backward(params, &x, inputs, &shrunk, &dy, outputs, &mut dx_twin.exact, &mut grads);
    let dx = &mut dx_twin.rounded;
    group.backward_of::<true>(kept, &x, inputs, &shrunk_rounded, &dy, outputs, dx, &mut grads_rounded);
    let dx_twin = dx_twin.when_stored();
    let of =
        |range: Range<usize>| Twin { exact: grads[range.clone()].to_vec(), rounded: grads_rounded[range].to_vec() };
    let mut bits = Vec::new();
    for round in 0..2 {
        device.grads.zero(&gpu)?;
        let (dy_at, dx) = (lab.rows(&dy, outputs, columns)?, lab.poisoned(rows * inputs)?);
        layer.input_gradient(&gpu, dy_at, rows, dx)?;
        let shrunk = Matrix::behind(x_at, rows, inputs, columns);
        layer.lora_gradient(&gpu, group, device.grads, x_at, shrunk, dy_at, rows)?;
        let got = device.grads.download(&gpu)?;
        if round == 0 {
            let dx = lab.read(dx)?;
            lab.near(&format!("{name}: dx"), &dx, &dx_twin);
            lab.near(&format!("{name}: dA"), &got[group.a.clone()], &of(group.a.clone()));
            for (i, part) in group.parts.iter().enumerate() {
                let what = format!("{name}: dB of layer {i}");
                lab.near(&what, &got[part.b.clone()], &of(part.b.clone()));
            }
            let elsewhere = got.iter().zip(&grads).filter(|(_, want)| **want == 0.0).any(|(got, _)| *got != 0.0);
            lab.holds(&format!("{name}: no gradient elsewhere"), !elsewhere);
        }
        bits.push(got);
    }
    lab.same(&format!("{name}: equal bits when repeated"), &bits[1], &bits[0]);
    Ok(())
}
