//! Steps of AdamW with the norm, the clipping and the decision to skip on the device.

use super::shim::{Arg, Module, Outputs, close, double, f32s, float, grid, int, module, out, size, u32s};
use rft::grpo::adamw::{AdamW, Hyper, clip_scale, global_norm};
use rft::rng::{Purpose, Stream};
use std::slice::from_ref;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> =
    LazyLock::new(|| module("adamw", &["adamw_squares", "adamw_prepare", "adamw_update"]));

const CHUNK: usize = 16384;
/// Two chunks and a part of one.
const COUNT: usize = 2 * CHUNK + 5000;
const HYPER: Hyper = Hyper { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
const MAX_NORM: f64 = 1.0;

fn values(path: u64) -> Vec<f32> {
    let stream = Stream::new(1, Purpose::Test, &[path]);
    (0..COUNT as u64).map(|i| stream.normal(i) as f32).collect()
}

/// What lies on the device between steps.
struct State {
    /// Parameters and both moments.
    tensors: [Arg; 3],
    step: Arg,
}

/// One step, as the host launches it; its last two launches' outputs.
fn step(device: &Module, state: &mut State, grads: &[f32]) -> (Outputs, Outputs) {
    let chunks = COUNT.div_ceil(CHUNK);
    let arguments = [f32s(grads), out(8 * chunks), size(COUNT)];
    let squares = device.launch("adamw_squares", grid(chunks, 512), &arguments);
    let numbers = [HYPER.lr, HYPER.beta1, HYPER.beta2, HYPER.weight_decay, MAX_NORM].map(double);
    let buffers = [squares.buffer(1), int(chunks), out(8), state.step.clone(), out(16)];
    let prepared = device.launch("adamw_prepare", grid(1, 1024), &[&buffers[..], &numbers].concat());
    let [params, m, v] = state.tensors.clone();
    let arguments = [
        params,
        f32s(grads),
        m,
        v,
        prepared.buffer(3),
        prepared.buffer(4),
        double(HYPER.beta1),
        double(HYPER.beta2),
        float(HYPER.eps as f32),
        size(COUNT),
    ];
    let updated = device.launch("adamw_update", grid((COUNT / 8).div_ceil(256), 256), &arguments);
    *state = State { tensors: [0, 2, 3].map(|i| updated.buffer(i)), step: prepared.buffer(3) };
    (prepared, updated)
}

#[test]
fn steps_are_those_of_the_cpu() {
    let Some(device) = &*DEVICE else { return };
    let mut params = values(0);
    let mut adamw = AdamW::new(COUNT);
    let zeros = f32s(&vec![0.0; COUNT]);
    let mut state = State { tensors: [f32s(&params), zeros.clone(), zeros], step: u32s(&[0, 0, 0]) };
    // Clipped; with a norm that is not finite, which changes nothing; and below the greatest norm.
    let mut broken = values(2);
    broken[CHUNK + 3] = f32::INFINITY;
    let small: Vec<f32> = values(3).iter().map(|grad| grad * 1e-4).collect();
    for (grads, counters) in [(values(1), [1, 0, 1]), (broken, [1, 1, 0]), (small, [2, 1, 1])] {
        let norm = global_norm(&grads, from_ref(&(0..COUNT)));
        if norm.is_finite() {
            adamw.step(&mut params, &grads, &HYPER, clip_scale(norm, MAX_NORM));
        }
        let (prepared, updated) = step(device, &mut state, &grads);
        assert_eq!(prepared.u32(3), counters);
        let got = prepared.f64(2)[0];
        assert!(
            got == norm || (got / norm - 1.0).abs() < 1e-12 || !norm.is_finite() && !got.is_finite(),
            "{got} {norm}"
        );
        close("adamw: parameters", &updated.f32(0), &params, 1e-6);
        close("adamw: first moments", &updated.f32(2), &adamw.m, 1e-6);
        close("adamw: second moments", &updated.f32(3), &adamw.v, 1e-6);
    }
}
