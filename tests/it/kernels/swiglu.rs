//! SwiGLU and its backward.

use super::shim::{Module, Shape, bf16, close, grid, in_rows, int, module, normal, out, rows as in_wide};
use rft::ops::swiglu;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("swiglu", &["swiglu_forward", "swiglu_backward"]));

/// The embedded model, Qwen2.5 0.5B, 1.5B and 7B.
const SHAPES: [(usize, usize); 4] = [(5, 384), (2, 4864), (1, 8960), (1, 18944)];

/// Columns of an adapter behind gate and up, and behind y.
const COLUMNS: [usize; 2] = [16, 8];

fn shape(rows: usize, width: usize) -> Shape {
    grid((rows * width / 8).div_ceil(256), 256)
}

/// Normal values, some of which are so large that a sigmoid of them is 0 or 1.
fn gate_up(rows: usize, width: usize) -> Vec<f32> {
    let mut values = normal(1, rows * 2 * width);
    values.iter_mut().step_by(7).for_each(|x| *x *= 64.0);
    values
}

fn forward(device: &Module, gate_up: &[f32], rows: usize, width: usize) -> Vec<f32> {
    let [of_gate_up, of_y] = [2 * width + COLUMNS[0], width + COLUMNS[1]];
    let buffers = [in_wide(gate_up, 2 * width, COLUMNS[0]), out(2 * rows * of_y)];
    let arguments = [&buffers[..], &[of_gate_up, of_y, rows, width].map(int)].concat();
    let got = device.launch("swiglu_forward", shape(rows, width), &arguments);
    in_rows(&got.bf16(1), width, COLUMNS[1])
}

#[test]
fn forward_of_rows() {
    let Some(device) = &*DEVICE else { return };
    for (rows, width) in SHAPES {
        let gate_up = gate_up(rows, width);
        let expected = swiglu::forward(&gate_up, width);
        close(&format!("swiglu_forward {width}"), &forward(device, &gate_up, rows, width), &expected, 2e-3);
    }
}

#[test]
fn backward_takes_the_place_of_gate_and_up() {
    let Some(device) = &*DEVICE else { return };
    for (rows, width) in SHAPES {
        let mut gate_up = gate_up(rows, width);
        let dy = normal(2, rows * width);
        let stride = 2 * width + COLUMNS[0];
        let arguments = [bf16(&dy), in_wide(&gate_up, 2 * width, COLUMNS[0]), int(stride), int(rows), int(width)];
        let got = device.launch("swiglu_backward", shape(rows, width), &arguments);
        assert_eq!(got.bf16(0), forward(device, &gate_up, rows, width), "y takes the place of dy");
        swiglu::backward(&dy, &mut gate_up, width);
        let gradient = in_rows(&got.bf16(1), 2 * width, COLUMNS[0]);
        close(&format!("swiglu_backward {width}"), &gradient, &gate_up, 2e-3);
    }
}
