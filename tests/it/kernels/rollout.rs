//! The bookkeeping between two steps of decoding.

use super::shim::{Arg, Module, Outputs, f32s, grid, i32s, int, module, u32s};
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("rollout", &["rollout_advance"]));

const CAPACITY: usize = 6;
/// Tokens that a report holds: fewer than a row may have.
const RING: usize = 4;
const REPORT: usize = 1 + 2 * RING;
/// More than a block of threads, and no multiple of one.
const ROWS: usize = 131;
const STOPS: [u32; 2] = [7, 30];
/// What stands where nothing has been written.
const OLD: u32 = 0xffff_ffff;

/// A row as the host would keep it, with the tokens that it draws from now on.
#[derive(Clone)]
struct Row {
    count: usize,
    done: bool,
    draws: Vec<u32>,
}

fn rows() -> Vec<Row> {
    let row = |i: usize| Row {
        count: i % CAPACITY,
        done: false,
        // A stop token at the first step, at the second or never.
        draws: [0, 1, 2].map(|step| if i % 5 == step { STOPS[i % 2] } else { 100 + (3 * i + step) as u32 }).into(),
    };
    let mut rows: Vec<Row> = (0..ROWS).map(row).collect();
    // The last are idle: nothing drawn, done.
    for row in &mut rows[ROWS - 3..] {
        *row = Row { count: 0, done: true, draws: vec![5; 3] };
    }
    rows
}

/// State on the device: counts, done, positions, cells, the report.
type State = [Arg; 5];

/// The words of the report's row `row` that a token of number `count` is at, and its log-probability.
fn places(row: usize, count: usize) -> [usize; 2] {
    [1, 1 + RING].map(|start| row * REPORT + start + count % RING)
}

fn step(device: &Module, rows: &[Row], state: &State, at: usize) -> Outputs {
    let tokens: Vec<u32> = rows.iter().map(|row| row.draws[at]).collect();
    let logprobs: Vec<f32> = tokens.iter().map(|&token| -(token as f32) / 64.0).collect();
    let [counts, done, positions, cells, report] = state.clone();
    let lists = [u32s(&tokens), f32s(&logprobs), counts, done, positions, cells, report];
    let rest = [int(RING), u32s(&STOPS), int(STOPS.len()), int(CAPACITY), int(ROWS)];
    device.launch("rollout_advance", grid(ROWS.div_ceil(128), 128), &[&lists[..], &rest].concat())
}

#[test]
fn rows_advance_until_they_end() {
    let Some(device) = &*DEVICE else { return };
    let mut rows = rows();
    let start = |value: fn(&Row) -> i32| i32s(&rows.iter().map(value).collect::<Vec<_>>());
    let mut report = vec![OLD; ROWS * REPORT];
    let mut state: State = [
        start(|row| row.count as i32),
        start(|row| i32::from(row.done)),
        // A prompt of 40 tokens: the next input is the token before the one that is drawn.
        start(|row| 39 + row.count as i32),
        start(|row| row.count as i32 - 1),
        u32s(&report),
    ];
    let (mut by_stop, mut by_length) = (0, 0);
    for at in 0..3 {
        let got = step(device, &rows, &state, at);
        for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| !row.done) {
            let (token, [at_token, at_logprob]) = (row.draws[at], places(i, row.count));
            (report[at_token], report[at_logprob]) = (token, (-(token as f32) / 64.0).to_bits());
            row.count += 1;
            report[i * REPORT] = row.count as u32;
            let stopped = STOPS.contains(&token);
            row.done = stopped || row.count == CAPACITY;
            by_stop += usize::from(stopped);
            by_length += usize::from(!stopped && row.done);
        }
        let counts: Vec<u32> = rows.iter().map(|row| row.count as u32).collect();
        let from = |start: i32| -> Vec<u32> { rows.iter().map(|row| (start + row.count as i32) as u32).collect() };
        assert_eq!(got.u32(2), counts, "step {at}: counts");
        assert_eq!(got.u32(3), rows.iter().map(|row| u32::from(row.done)).collect::<Vec<_>>(), "step {at}: done");
        assert_eq!(got.u32(4), from(39), "step {at}: positions");
        assert_eq!(got.u32(5), from(-1), "step {at}: cells");
        assert_eq!(got.u32(6), report, "step {at}: the report");
        state = [2, 3, 4, 5, 6].map(|argument| got.buffer(argument));
    }
    assert!(by_stop > 20 && by_length > 20 && rows.iter().any(|row| !row.done), "all kinds of ends, and none");
}

/// Without stop tokens only the length ends a row.
#[test]
fn no_stop_tokens() {
    let Some(device) = &*DEVICE else { return };
    let lists = [u32s(&[7, 8]), f32s(&[-1.0, -2.0]), i32s(&[0, 1]), i32s(&[0, 0]), i32s(&[4, 5]), i32s(&[-1, 0])];
    let rest = [u32s(&[OLD; 10]), int(2), Arg::Null, int(0), int(2), int(2)];
    let got = device.launch("rollout_advance", grid(1, 128), &[&lists[..], &rest].concat());
    let bits = |logprob: f32| logprob.to_bits();
    assert_eq!(got.u32(6), [1, 7, OLD, bits(-1.0), OLD, 2, OLD, 8, OLD, bits(-2.0)]);
    assert_eq!(got.u32(3), [0, 1]);
    assert_eq!((got.u32(4), got.u32(5), got.u32(2)), (vec![5, 6], vec![0, 1], vec![1, 2]));
}
