//! RMSNorm with a residual, and its backward.

use super::shim::{
    Arg, Module, Shape, bf16, close, f32s, float, grid, in_rows, int, module, normal, out, rows as in_wide,
};
use rft::ops::rms_norm;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> =
    LazyLock::new(|| module("rms_norm", &["rms_norm_forward", "rms_norm_backward"]));

const EPS: f32 = 1e-6;
/// Columns of an adapter behind the rows of y, and behind those of dx.
const COLUMNS: [usize; 2] = [24, 8];

/// The embedded model, Qwen2.5 0.5B, 1.5B and 7B, and a width that leaves lanes idle.
const SHAPES: [(usize, usize); 5] = [(5, 128), (3, 896), (2, 1536), (2, 3584), (3, 136)];

fn shape(rows: usize, width: usize) -> Shape {
    grid(rows, 32 * width.div_ceil(256))
}

#[test]
fn forward_with_and_without_a_residual() {
    let Some(device) = &*DEVICE else { return };
    for (rows, width) in SHAPES {
        let (x, delta, weight) = (normal(1, rows * width), normal(2, rows * width), normal(3, width));
        let y_out = out(2 * rows * (width + COLUMNS[0]));
        let [x_in, weight_in] = [&x, &weight].map(|values| bf16(values));
        let arguments = |delta| {
            let buffers = [x_in.clone(), delta, weight_in.clone(), y_out.clone(), out(4 * rows)];
            [&buffers[..], &[int(width), int(width + COLUMNS[0]), float(EPS)]].concat()
        };

        let got = device.launch("rms_norm_forward", shape(rows, width), &arguments(Arg::Null));
        let (y, scales) = rms_norm::forward(&x, &weight, EPS);
        close(&format!("rms_norm_forward {width}"), &in_rows(&got.bf16(3), width, COLUMNS[0]), &y, 2e-3);
        close("its 1/rms", &got.f32(4), &scales, 1e-6);
        assert_eq!(got.bf16(0), x, "without a residual x stays");

        let got = device.launch("rms_norm_forward", shape(rows, width), &arguments(bf16(&delta)));
        let mut sum = x.clone();
        let (y, _) = rms_norm::forward_residual(&mut sum, &delta, &weight, EPS);
        close("the residual stream", &got.bf16(0), &sum, 2e-3);
        close("the norm of the sum", &in_rows(&got.bf16(3), width, COLUMNS[0]), &y, 3e-3);
    }
}

#[test]
fn backward_adds_to_the_gradient() {
    let Some(device) = &*DEVICE else { return };
    for (rows, width) in SHAPES {
        let [dy, x, before] = [1, 2, 3].map(|path| normal(path, rows * width));
        let weight = normal(4, width);
        let (_, scales) = rms_norm::forward(&x, &weight, EPS);
        let (stride, dx_in) = (width + COLUMNS[1], in_wide(&before, width, COLUMNS[1]));
        let arguments = [bf16(&dy), bf16(&x), f32s(&scales), bf16(&weight), dx_in, int(width), int(stride)];
        let got = device.launch("rms_norm_backward", shape(rows, width), &arguments);
        let mut dx = before;
        rms_norm::backward(&dy, &x, &scales, &weight, &mut dx);
        close(&format!("rms_norm_backward {width}"), &in_rows(&got.bf16(4), width, COLUMNS[1]), &dx, 2e-3);

        // In the place of dy, the bits of the forward.
        let buffers = [bf16(&x), Arg::Null, bf16(&weight), out(2 * rows * width), out(4 * rows)];
        let arguments = [&buffers[..], &[int(width), int(width), float(EPS)]].concat();
        let forward = device.launch("rms_norm_forward", shape(rows, width), &arguments);
        let arguments = [bf16(&dy), bf16(&x), forward.buffer(4), bf16(&weight), got.buffer(4), int(width), int(stride)];
        let backward = device.launch("rms_norm_backward", shape(rows, width), &arguments);
        assert_eq!(backward.bf16(0), forward.bf16(3));
    }
}
