//! Tokens are those of the CPU's sampler, one for one.

use super::shim::{Arg, Module, close, f32s, float, grid, i32s, int, module, normal, out, rounded, size, u32s};
use rft::rng::{Purpose, Stream};
use rft::rollout::sampler::{Sampling, sample};
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("sampler", &["sampler_f32"]));

const ROWS: usize = 5;
/// Not a multiple of 8. Of the last 64 logits there are 17: those of the first word of 16 of the generator's blocks, and of
/// the second word of one.
const VOCAB: usize = 785;
const STRIDE: usize = 792;

const ALL: Sampling = Sampling::plain(1.0);

/// The two words that a stream's blocks depend on.
fn key(stream: &Stream) -> [u32; 2] {
    let shown = format!("{stream:?}");
    let mut words = shown.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    [words.next().unwrap(), words.next().unwrap()]
}

/// Compares a draw of every row, and of some of the rows; the rows are branches, at positions of their own.
fn check(device: &Module, logits: &[f32], sampling: &Sampling) {
    let streams: Vec<Stream> = (0..ROWS as u64).map(|row| Stream::new(8, Purpose::Sampling, &[3, row])).collect();
    let positions: Vec<i32> = (0..ROWS as i32).map(|row| 17 * row).collect();
    let expected = logits.chunks(STRIDE).zip(streams.iter().zip(&positions));
    let expected = expected.map(|(row, (stream, &position))| sample(&row[..VOCAB], sampling, stream, position as u64));
    let (tokens, logprobs): (Vec<u32>, Vec<f32>) = expected.unzip();

    let keys: Vec<u32> = streams.iter().flat_map(key).collect();
    let input = f32s(logits);
    let launch = |done: Arg| {
        let rows = [input.clone(), u32s(&keys), i32s(&positions), done, out(4 * ROWS), out(4 * ROWS)];
        let how = [int(VOCAB), size(STRIDE), float(sampling.temperature), int(sampling.top_k), float(sampling.top_p)];
        let arguments = [&rows[..], &how, &[float(sampling.min_p)]].concat();
        device.launch("sampler_f32", grid(ROWS, 512), &arguments)
    };
    let got = launch(Arg::Null);
    assert_eq!(got.u32(4), tokens, "{sampling:?}");
    close(&format!("log-probabilities, {sampling:?}"), &got.f32(5), &logprobs, 1e-6);

    let done = [0, 1, 0, 1, 1];
    let some = launch(i32s(&done));
    let kept = |all: Vec<u32>| (0..ROWS).map(|i| if done[i] == 1 { u32::MAX } else { all[i] }).collect::<Vec<_>>();
    assert_eq!((some.u32(4), some.u32(5)), (kept(got.u32(4)), kept(got.u32(5))), "{sampling:?}: some are done");
}

fn logits(spread: f32) -> Vec<f32> {
    let values = normal(1, ROWS * VOCAB);
    let mut rows = vec![f32::NAN; ROWS * STRIDE];
    for (row, values) in rows.chunks_mut(STRIDE).zip(values.chunks(VOCAB)) {
        // Times 1.001: values that bf16 does not have.
        row.iter_mut().zip(values).for_each(|(to, x)| *to = spread * x * 1.001);
        row[40] = f32::NEG_INFINITY;
    }
    // The most probable token of one row is the last but one, and of another the last.
    rows[STRIDE + VOCAB - 2] = rounded(4.0 * spread);
    rows[3 * STRIDE + VOCAB - 1] = rounded(4.0 * spread);
    rows
}

#[test]
fn tokens_are_those_of_the_cpu() {
    let Some(device) = &*DEVICE else { return };
    for (spread, sampling) in [
        (2.0, ALL),
        (3.0, Sampling { temperature: 0.7, ..ALL }),
        (2.0, Sampling::greedy()),
        (2.0, Sampling { top_k: 1, ..ALL }),
        (2.0, Sampling { top_k: 20, temperature: 1.3, ..ALL }),
        (2.0, Sampling { top_p: 0.9, ..ALL }),
        (2.0, Sampling { top_p: 1e-6, ..ALL }),
        (2.0, Sampling { min_p: 0.1, ..ALL }),
        (3.0, Sampling { temperature: 0.8, top_k: 50, top_p: 0.8, min_p: 0.02 }),
    ] {
        check(device, &logits(spread), &sampling);
    }
}

/// Equal logits are kept together, and the first of equal scores wins, whatever their number.
#[test]
fn ties_are_broken_as_on_the_cpu() {
    let Some(device) = &*DEVICE else { return };
    // Eight values, and signs of zero.
    let few: Vec<f32> = logits(1.0).iter().map(|x| if x.is_nan() { *x } else { (x * 2.0).round() / 2.0 }).collect();
    for sampling in [
        Sampling { top_k: 10, ..ALL },
        Sampling { top_k: 300, top_p: 0.5, ..ALL },
        Sampling { top_p: 0.3, min_p: 0.05, ..ALL },
        Sampling::greedy(),
    ] {
        check(device, &few, &sampling);
    }
    check(device, &vec![0.0; ROWS * STRIDE], &Sampling::greedy());
    check(device, &vec![-1.5; ROWS * STRIDE], &Sampling { top_k: 3, ..ALL });
}
