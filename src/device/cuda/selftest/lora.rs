//! LoRA on the four groups of a block, for training and for decoding.

use super::lab::{Lab, rounded};
use super::model::shape;
use super::{BF16, EXACT, GRADIENT};
use crate::config::LoraSection;
use crate::device::cuda::adapter::DeviceAdapter;
use crate::device::cuda::lora::{Group, Scratch};
use crate::model::lora::Adapter;
use crate::ops::lora::LoraGroup;
use anyhow::Result;

pub fn lora(lab: &mut Lab) -> Result<()> {
    for (rank, rows) in [(8, 70), (16, 333), (32, 1), (32, 1_500), (64, 129), (128, 257)] {
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
            let name = format!("rank {rank}, {rows} rows, {name}");
            one_group(lab, &name, &adapter.params, &device, group, at, rows)?;
        }
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
    lab.arena.clear();
    let gpu = lab.gpu.clone();
    let (inputs, outputs) = (at.inputs, at.outputs);
    let (x, dy) = (lab.normals(rows * inputs, 0.1), lab.normals(rows * outputs, 0.1));
    let before = lab.normals(rows * outputs, 0.1);
    let mut want = before.clone();
    let low_want = group.forward(params, &x, inputs, &mut want, outputs);
    let (x_at, dy_at, y) = (lab.bf16(&x)?, lab.bf16(&dy)?, lab.bf16(&before)?);
    let low = lab.poisoned(rows * at.low_width())?;
    lab.arena_poison()?;
    at.forward(&gpu, &mut Scratch::Arena(&mut lab.arena), x_at, rows, y, low, true)?;
    lab.compare_bf16(&format!("{name}: added"), y, &want, BF16)?;
    let y = lab.poisoned(rows * outputs)?;
    at.forward(&gpu, &mut Scratch::Arena(&mut lab.arena), x_at, rows, y, low, false)?;
    let alone: Vec<f32> = want.iter().zip(&before).map(|(sum, before)| sum - before).collect();
    lab.compare_bf16(&format!("{name}: written"), y, &alone, BF16)?;
    let (y, partial) = (lab.bf16(&before)?, lab.poisoned(at.decode_values(rows))?);
    at.forward(&gpu, &mut Scratch::Decode(partial), x_at, rows, y, low, true)?;
    lab.compare_bf16(&format!("{name}: decoding"), y, &want, BF16)?;

    let mut grads = vec![0.0; params.len()];
    let mut dx_want = vec![0.0; rows * inputs];
    // The backward sees the shrunk rows as they were stored.
    let low_rounded: Vec<f32> = low_want.iter().copied().map(rounded).collect();
    group.backward(params, &x, inputs, &low_rounded, &dy, outputs, &mut dx_want, &mut grads);
    let mut bits = Vec::new();
    for round in 0..2 {
        device.grads.zero(&gpu)?;
        let dx = lab.poisoned(rows * inputs)?;
        lab.arena_poison()?;
        at.backward(&gpu, &mut lab.arena, x_at, low, dy_at, rows, dx)?;
        let got = device.grads.download(&gpu)?;
        if round == 0 {
            lab.compare_bf16(&format!("{name}: dx"), dx, &dx_want, BF16)?;
            lab.compare(&format!("{name}: dA"), &got[group.a.clone()], &grads[group.a.clone()], GRADIENT);
            for (i, part) in group.parts.iter().enumerate() {
                let what = format!("{name}: dB of layer {i}");
                lab.compare(&what, &got[part.b.clone()], &grads[part.b.clone()], GRADIENT);
            }
            let elsewhere = got.iter().zip(&grads).filter(|(_, want)| **want == 0.0).any(|(got, _)| *got != 0.0);
            lab.holds(&format!("{name}: no gradient elsewhere"), !elsewhere);
        }
        bits.push(got);
    }
    lab.compare(&format!("{name}: the same bits twice"), &bits[1], &bits[0], EXACT);
    Ok(())
}
