//! LoRA's weights put beside the frozen weight.

use super::shim::{Arg, Module, Outputs, f32s, float, grid, int, module, normal, out, rounded};
use std::ops::Range;
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("lora", &["lora_write"]));

const INPUTS: usize = 40;
const OUTPUTS: usize = 312;

/// Writes layer `place` of those of a group, whose outputs are `columns`, to `storage`.
fn write(
    device: &Module,
    [a, b]: [&[f32]; 2],
    storage: Arg,
    [rank, padded, place, layers]: [usize; 4],
    columns: Range<usize>,
    scale: f32,
) -> Outputs {
    let stride = INPUTS + layers * padded;
    let sizes = [INPUTS, OUTPUTS, stride, rank, padded, place * padded, columns.start, columns.len()].map(int);
    let arguments = [&[f32s(a), f32s(b), storage][..], &sizes, &[float(scale)]].concat();
    device.launch("lora_write", grid((padded * (INPUTS + OUTPUTS) / 8).div_ceil(256), 256), &arguments)
}

/// Ranks that are padded and that are not; layers in the middle of a joined one and at its ends.
#[test]
fn a_and_b_are_beside_the_weight() {
    let Some(device) = &*DEVICE else { return };
    // No power of two, so that the product is rounded.
    let scale = 0.3;
    for (rank, padded) in [(1, 8), (8, 8), (12, 16), (32, 32)] {
        let layers = [0..104, 104..112, 200..OUTPUTS];
        let stride = INPUTS + layers.len() * padded;
        let mut storage = out(2 * (OUTPUTS + layers.len() * padded) * stride);
        let mut expected = vec![f32::NAN; (OUTPUTS + layers.len() * padded) * stride];
        for (place, columns) in layers.iter().enumerate() {
            let (a, b) = (normal(place as u64, rank * INPUTS), normal(9 + place as u64, rank * columns.len()));
            storage =
                write(device, [&a, &b], storage, [rank, padded, place, layers.len()], columns.clone(), scale).buffer(2);
            for r in 0..padded {
                let row = &mut expected[(OUTPUTS + place * padded + r) * stride..][..INPUTS];
                for (column, to) in row.iter_mut().enumerate() {
                    *to = if r < rank { rounded(a[r * INPUTS + column]) } else { 0.0 };
                }
                for output in 0..OUTPUTS {
                    let is_own = r < rank && columns.contains(&output);
                    expected[output * stride + INPUTS + place * padded + r] =
                        if is_own { rounded(scale * b[r * columns.len() + output - columns.start]) } else { 0.0 };
                }
            }
        }
        let Arg::Buffer(got) = storage else { unreachable!() };
        let got =
            got.as_chunks::<2>().0.iter().map(|bytes| f32::from_bits(u32::from(u16::from_ne_bytes(*bytes)) << 16));
        for (i, (got, expected)) in got.zip(&expected).enumerate() {
            let (row, column) = (i / stride, i % stride);
            let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
            assert!(same, "rank {rank}: row {row}, column {column} is {got}, not {expected}");
        }
    }
}
