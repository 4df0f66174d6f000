//! The emulator itself: it has to object to every kind of mistake, and its tensor cores have to multiply.

use super::shim::{Arg, Module, Outputs, Shape, bf16, close, f32s, grid, int, module_of, normal, out};
use std::path::Path;
use std::sync::LazyLock;

const KERNELS: &[&str] = &[
    "sum_without_a_barrier",
    "shared_memory_written_again_too_early",
    "sum_with_barriers",
    "barrier_for_some",
    "barriers_in_two_branches",
    "shuffle_for_some",
    "shuffle_from_outside",
    "different_warp_functions",
    "reads_what_nobody_wrote",
    "writes_past_the_end",
    "reads_past_the_end",
    "writes_to_a_constant",
    "writes_past_shared_memory",
    "misaligned",
    "copy_without_a_wait",
    "copy_read_too_early",
    "copy_without_a_barrier",
    "copy_as_it_should_be",
    "blocks_that_depend_on_each_other",
    "product",
];

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/mistakes.cu");
    module_of(&file, KERNELS)
});

/// 64 floats in, 64 floats out, a block of 64 threads.
fn run(device: &Module, kernel: &str) -> Result<Outputs, String> {
    let shape = Shape { shared: 256, ..grid(1, 64) };
    device.try_launch(kernel, shape, &[f32s(&normal(1, 64)), out(4 * 64)])
}

#[test]
fn mistakes_are_found() {
    let Some(device) = &*DEVICE else { return };
    for (kernel, objection) in [
        ("sum_without_a_barrier", "a barrier is missing"),
        ("shared_memory_written_again_too_early", "a barrier is missing"),
        ("barrier_for_some", "deadlock"),
        ("barriers_in_two_branches", "threads meet at different barriers"),
        ("shuffle_for_some", "deadlock"),
        ("shuffle_from_outside", "which the mask leaves out"),
        ("different_warp_functions", "is at __"),
        ("writes_past_the_end", "argument 1"),
        ("reads_past_the_end", "an access to byte 256 of argument 0, which has 256"),
        ("writes_to_a_constant", "argument 0 is const"),
        ("writes_past_shared_memory", "dynamic shared memory"),
        ("misaligned", "align"),
        ("copy_without_a_wait", "never waited for"),
        ("copy_without_a_barrier", "a barrier is missing"),
        ("no_such_kernel", "there is no such kernel"),
    ] {
        let error = run(device, kernel).err().unwrap_or_else(|| panic!("{kernel}: nothing was objected to"));
        assert!(error.contains(objection), "{kernel}: {error}");
    }
    let blocks = device.try_launch("blocks_that_depend_on_each_other", grid(4, 32), &[out(4 * 4)]);
    assert!(blocks.err().expect("blocks that depend on each other").contains("a barrier is missing"));
    let half_a_warp = device.try_launch("sum_with_barriers", grid(1, 48), &[f32s(&normal(1, 64)), out(4 * 64)]);
    assert!(half_a_warp.err().expect("half a warp").contains("whole warps"));
    let too_few = device.try_launch("sum_with_barriers", grid(1, 64), &[f32s(&normal(1, 64))]);
    assert!(too_few.err().expect("an argument too few").contains("takes 2 arguments, not 1"));
}

#[test]
fn what_is_right_passes() {
    let Some(device) = &*DEVICE else { return };
    let x = normal(1, 64);
    let sum: f32 = x.iter().sum();
    close("a sum over the block", &run(device, "sum_with_barriers").unwrap().f32(1), &[sum; 64], 1e-6);
    let reversed: Vec<f32> = x.iter().rev().copied().collect();
    assert_eq!(run(device, "copy_as_it_should_be").unwrap().f32(1), reversed);
}

#[test]
fn what_nobody_wrote_is_nan() {
    let Some(device) = &*DEVICE else { return };
    for kernel in ["reads_what_nobody_wrote", "copy_read_too_early"] {
        let got = run(device, kernel).unwrap().f32(1);
        assert!(got.iter().all(|x| x.is_nan()), "{kernel}: {got:?}");
    }
}

/// A product of tiles through cp.async, both kinds of ldmatrix, and mma.
#[test]
fn tensor_cores_multiply() {
    let Some(device) = &*DEVICE else { return };
    let (a, b) = (normal(1, 16 * 64), normal(2, 64 * 16));
    let mut expected = vec![0.0; 16 * 16];
    for (i, sum) in expected.iter_mut().enumerate() {
        *sum = (0..64).map(|k| a[i / 16 * 64 + k] * b[k * 16 + i % 16]).sum();
    }
    let transposed: Vec<f32> = (0..16 * 64).map(|i| b[i % 64 * 16 + i / 64]).collect();
    for (b, is_transposed) in [(&b, 0), (&transposed, 1)] {
        let arguments = [bf16(&a), bf16(b), out(4 * 16 * 16), int(is_transposed)];
        let shape = Shape { shared: 2 * 2 * 16 * 64, ..grid(1, 32) };
        close("a product of tiles", &device.launch("product", shape, &arguments).f32(2), &expected, 1e-6);
    }
    // The last argument has to be a number.
    let arguments = [bf16(&a), bf16(&b), out(4 * 16 * 16), Arg::Null];
    assert!(device.try_launch("product", grid(1, 32), &arguments).is_err());
}
