//! Rows by index, their gradient back, and random weights.

use super::shim::{Arg, Module, bf16, close, double, grid, in_rows, int, module, normal, out, rounded, size, u32s};
use rft::rng::{Purpose, Stream, name_hash};
use std::sync::LazyLock;

static ROWS: LazyLock<Option<Module>> =
    LazyLock::new(|| module("rows", &["gather_rows", "scatter_rows", "copy_columns"]));
static INIT: LazyLock<Option<Module>> = LazyLock::new(|| module("init", &["fill_normal_bf16"]));

/// Of `gather_rows` and `scatter_rows`.
fn threads(width: usize) -> usize {
    (32 * width.div_ceil(256)).min(256)
}

#[test]
fn gather_copies_rows() {
    let Some(device) = &*ROWS else { return };
    for width in [8, 136, 2600] {
        let table = normal(1, 11 * width);
        let index = [10u32, 0, 3, 3, 7];
        let arguments = [bf16(&table), u32s(&index), out(2 * index.len() * width), int(width)];
        let got = device.launch("gather_rows", grid(index.len(), threads(width)), &arguments).bf16(2);
        for (row, &i) in got.chunks(width).zip(&index) {
            assert_eq!(row, &table[i as usize * width..][..width]);
        }
    }
}

#[test]
fn columns_are_copied() {
    let Some(device) = &*ROWS else { return };
    for (rows, stride, width) in [(1, 8, 8), (37, 136, 24), (300, 72, 64)] {
        let from = normal(3, rows * stride);
        let arguments = [bf16(&from), out(2 * rows * width), int(stride), int(rows), int(width)];
        let got = device.launch("copy_columns", grid((rows * width / 8).div_ceil(256), 256), &arguments).bf16(1);
        let expected: Vec<f32> = from.chunks(stride).flat_map(|row| &row[..width]).copied().collect();
        assert_eq!(got, expected);
    }
}

/// A prompt's last row has the pairs of all its branches, its other rows none.
#[test]
fn scatter_adds_in_the_order_of_pairs() {
    let Some(device) = &*ROWS else { return };
    for width in [8, 136, 2600] {
        let from = normal(2, 9 * width);
        let pairs = [[0u32, 3, 4, 6, 8].as_slice(), &[], &[1], &[2, 5, 7], &[]];
        let mut starts = vec![0];
        pairs.iter().for_each(|row| starts.push(starts.last().unwrap() + row.len() as u32));
        let list = u32s(&pairs.concat());
        let arguments = [bf16(&from), u32s(&starts), list, out(2 * pairs.len() * width), int(width)];
        let got = device.launch("scatter_rows", grid(pairs.len(), threads(width)), &arguments).bf16(3);
        for (row, pairs) in got.chunks(width).zip(pairs) {
            for (column, value) in row.iter().enumerate() {
                let sum = pairs.iter().map(|&pair| from[pair as usize * width + column]).fold(0.0, |sum, x| sum + x);
                assert_eq!(*value, rounded(sum));
            }
        }
    }
}

#[test]
fn random_weights_are_those_of_the_stream() {
    let Some(device) = &*INIT else { return };
    let (count, mean, std) = (3000usize, 0.5, 0.02);
    let path = [name_hash("model.layers.3.mlp.down_proj.weight")];
    let stream = Stream::new(17, Purpose::ModelInit, &path);
    let exact: Vec<f32> = (0..count as u64).map(|i| rounded((mean + std * stream.normal(i)) as f32)).collect();

    let [low, high] = stream.key().map(|word| Arg::Scalar(word.to_ne_bytes().into()));
    // A weight with an adapter's columns beside it.
    let (width, columns) = (40, 8);
    let to = out(2 * count / width * (width + columns));
    let arguments = [to, size(count), int(width), int(width + columns), low, high, double(mean), double(std)];
    let got = device.launch("fill_normal_bf16", grid(count.div_ceil(256), 256), &arguments).bf16(0);
    let got = in_rows(&got, width, columns);
    close("random weights", &got, &exact, 1e-6);
    let other = (0..count).filter(|&i| got[i] != exact[i]).count();
    assert_eq!(other, 0, "{other} of {count} values have other bits");
}
