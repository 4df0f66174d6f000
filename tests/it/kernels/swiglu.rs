//! SwiGLU, to rows of its own and in place, and its backward.

use super::shim::{Arg, Module, Shape, bf16, close, grid, int, module, normal, out};
use rft::ops::swiglu;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("swiglu", &["swiglu_forward", "swiglu_backward"]));

/// The embedded model, Qwen2.5 0.5B, 1.5B and 7B.
const SHAPES: [(usize, usize); 4] = [(5, 384), (2, 4864), (1, 8960), (1, 18944)];

fn shape(rows: usize, width: usize) -> Shape {
    grid((rows * width / 8).div_ceil(256), 256)
}

/// Normal values, some of which are so large that a sigmoid of them is 0 or 1.
fn gate_up(rows: usize, width: usize) -> Vec<f32> {
    let mut values = normal(1, rows * 2 * width);
    values.iter_mut().step_by(7).for_each(|x| *x *= 64.0);
    values
}

#[test]
fn forward_beside_and_in_place() {
    let Some(device) = &*DEVICE else { return };
    for (rows, width) in SHAPES {
        let gate_up = gate_up(rows, width);
        let expected = swiglu::forward(&gate_up, width);
        let run = |y, stride| {
            let arguments = [bf16(&gate_up), y, int(stride), int(rows), int(width)];
            device.launch("swiglu_forward", shape(rows, width), &arguments)
        };
        let beside = run(out(2 * rows * width), width).bf16(1);
        close(&format!("swiglu_forward {width}"), &beside, &expected, 2e-3);

        let in_place = run(Arg::Alias { of: 0, offset: 0 }, 2 * width).bf16(0);
        for (row, (before, y)) in in_place.chunks(2 * width).zip(gate_up.chunks(2 * width).zip(beside.chunks(width))) {
            assert_eq!(row[..width], *y);
            assert_eq!(row[width..], before[width..]);
        }
    }
}

#[test]
fn backward_takes_the_place_of_gate_and_up() {
    let Some(device) = &*DEVICE else { return };
    for (rows, width) in SHAPES {
        let mut gate_up = gate_up(rows, width);
        let dy = normal(2, rows * width);
        let arguments = [bf16(&dy), bf16(&gate_up), int(rows), int(width)];
        let got = device.launch("swiglu_backward", shape(rows, width), &arguments);
        swiglu::backward(&dy, &mut gate_up, width);
        close(&format!("swiglu_backward {width}"), &got.bf16(1), &gate_up, 2e-3);
    }
}
