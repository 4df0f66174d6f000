//! LoRA on the four groups of a block, for training and for decoding.

use super::Case;
use super::lab::{Lab, Twin, rounded};
use super::model::shape;
use crate::config::LoraSection;
use crate::device::cuda::adapter::DeviceAdapter;
use crate::device::cuda::lora::Group;
use crate::model::lora::Adapter;
use crate::ops::lora::LoraGroup;
use anyhow::Result;

pub fn lora() -> Vec<Case> {
    [(8, 70), (16, 333), (32, 1), (32, 700), (64, 129), (128, 257)]
        .map(|(rank, rows)| Case::new(format!("rank {rank}, {rows} rows"), move |lab| one_block(lab, rank, rows)))
        .into()
}

fn one_block(lab: &mut Lab, rank: usize, rows: usize) -> Result<()> {
    // Wider than a strip of 512 columns, and no multiple of a tile.
    let config = shape(8, 2, 128, 1_096);
    let mut adapter = Adapter::new(&config, &LoraSection::all_linear(rank), 3)?;
    adapter.params = lab.normals(adapter.params.len(), 0.2);
    let device = DeviceAdapter::new(&lab.gpu, &config, &adapter)?;
    device.make_current(&lab.gpu, &adapter)?;
    let (block, at) = (&adapter.blocks[0], device.block(0));
    for (name, group, at) in [
        ("qkv", &block.qkv, at.qkv),
        ("o", &block.o, at.o),
        ("gate and up", &block.gate_up, at.gate_up),
        ("down", &block.down, at.down),
    ] {
        one_group(lab, name, &adapter.params, &device, group, at, rows)?;
    }
    Ok(())
}

fn one_group(
    lab: &mut Lab,
    name: &str,
    params: &[f32],
    device: &DeviceAdapter,
    group: &LoraGroup,
    at: Group,
    rows: usize,
) -> Result<()> {
    let gpu = lab.gpu.clone();
    let (inputs, outputs) = (at.inputs, at.outputs);
    let (x, dy) = (lab.normals(rows * inputs, 0.1), lab.normals(rows * outputs, 0.1));
    let before = lab.normals(rows * outputs, 0.1);
    let mut want = before.clone();
    let low_want = group.forward(params, &x, inputs, &mut want, outputs);
    let (x_at, dy_at, y) = (lab.bf16(&x)?, lab.bf16(&dy)?, lab.bf16(&before)?);
    let low = lab.poisoned(rows * at.low_width())?;
    lab.poison_scratch()?;
    at.forward(&gpu, &mut lab.arena, x_at, rows, y, low, true)?;
    lab.stored(&format!("{name}: added"), y, &want)?;
    let y = lab.poisoned(rows * outputs)?;
    at.forward(&gpu, &mut lab.arena, x_at, rows, y, low, false)?;
    let alone: Vec<f32> = want.iter().zip(&before).map(|(sum, before)| sum - before).collect();
    lab.stored(&format!("{name}: written"), y, &alone)?;
    let (y, partial) = (lab.bf16(&before)?, lab.poisoned(at.decode_values(rows))?);
    at.decode(&gpu, x_at, rows, y, partial, true)?;
    lab.stored(&format!("{name}: decoding"), y, &want)?;

    let mut grads = vec![0.0; params.len()];
    let mut dx_want = vec![0.0; rows * inputs];
    // The backward sees the shrunk rows as they were stored.
    let low_rounded: Vec<f32> = low_want.iter().copied().map(rounded).collect();
    group.backward(params, &x, inputs, &low_rounded, &dy, outputs, &mut dx_want, &mut grads);
    let mut bits = Vec::new();
    for round in 0..2 {
        device.grads.zero(&gpu)?;
        let dx = lab.poisoned(rows * inputs)?;
        lab.poison_scratch()?;
        at.backward(&gpu, &mut lab.arena, x_at, low, dy_at, rows, dx)?;
        let got = device.grads.download(&gpu)?;
        if round == 0 {
            lab.stored(&format!("{name}: dx"), dx, &dx_want)?;
            lab.near(&format!("{name}: dA"), &got[group.a.clone()], &Twin::stored(&grads[group.a.clone()]));
            for (i, part) in group.parts.iter().enumerate() {
                let what = format!("{name}: dB of layer {i}");
                lab.near(&what, &got[part.b.clone()], &Twin::stored(&grads[part.b.clone()]));
            }
            let elsewhere = got.iter().zip(&grads).filter(|(_, want)| **want == 0.0).any(|(got, _)| *got != 0.0);
            lab.holds(&format!("{name}: no gradient elsewhere"), !elsewhere);
        }
        bits.push(got);
    }
    lab.same(&format!("{name}: the same bits twice"), &bits[1], &bits[0]);
    Ok(())
}
