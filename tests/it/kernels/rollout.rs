//! The bookkeeping between two steps of decoding.

use super::shim::{Arg, Module, Outputs, f32s, grid, i32s, int, module, u32s};
use std::sync::LazyLock;

static DEVICE: LazyLock<Option<Module>> = LazyLock::new(|| module("rollout", &["rollout_advance"]));

const CAPACITY: usize = 6;
const SLOTS: usize = 150;
/// More than a block of threads, and no multiple of one.
const ROWS: usize = 131;
const STOPS: [u32; 2] = [7, 30];
/// What stands where nothing has been written.
const OLD: u32 = 0xffff_ffff;

/// A row as the host would keep it, with the tokens that it draws from now on.
#[derive(Clone)]
struct Row {
    slot: i32,
    count: usize,
    done: bool,
    draws: Vec<u32>,
}

fn rows() -> Vec<Row> {
    let row = |i: usize| Row {
        // Every slot once, in an order that is not that of the rows.
        slot: (i * 7 % SLOTS) as i32,
        count: i % CAPACITY,
        done: false,
        // A stop token at the first step, at the second or never.
        draws: [0, 1, 2].map(|step| if i % 5 == step { STOPS[i % 2] } else { 100 + (3 * i + step) as u32 }).into(),
    };
    let mut rows: Vec<Row> = (0..ROWS).map(row).collect();
    // The last are idle: no slot, nothing drawn, done.
    for row in &mut rows[ROWS - 3..] {
        *row = Row { slot: -1, count: 0, done: true, draws: vec![5; 3] };
    }
    rows
}

/// State on the device: counts, done, positions, cells, draws, the tokens and the log-probabilities that were drawn.
type State = [Arg; 7];

fn step(device: &Module, rows: &[Row], state: &State, at: usize) -> Outputs {
    let tokens: Vec<u32> = rows.iter().map(|row| row.draws[at]).collect();
    let logprobs: Vec<f32> = tokens.iter().map(|&token| -(token as f32) / 64.0).collect();
    let slots: Vec<i32> = rows.iter().map(|row| row.slot).collect();
    let [counts, done, positions, cells, draws, out_tokens, out_logprobs] = state.clone();
    let lists = [u32s(&tokens), f32s(&logprobs), i32s(&slots), counts, done, positions, cells, draws];
    let rest = [out_tokens, out_logprobs, u32s(&STOPS), int(STOPS.len()), int(CAPACITY), int(ROWS)];
    device.launch("rollout_advance", grid(ROWS.div_ceil(128), 128), &[&lists[..], &rest].concat())
}

#[test]
fn rows_advance_until_they_end() {
    let Some(device) = &*DEVICE else { return };
    let mut rows = rows();
    let start = |value: fn(&Row) -> i32| i32s(&rows.iter().map(value).collect::<Vec<_>>());
    let empty = || u32s(&vec![OLD; SLOTS * CAPACITY]);
    let mut state: State = [
        start(|row| row.count as i32),
        start(|row| i32::from(row.done)),
        // A prompt of 40 tokens: the next input is the token before the one that is drawn.
        start(|row| 39 + row.count as i32),
        start(|row| row.count as i32 - 1),
        start(|row| row.count as i32),
        empty(),
        empty(),
    ];
    let (mut tokens, mut logprobs) = (vec![OLD; SLOTS * CAPACITY], vec![OLD; SLOTS * CAPACITY]);
    let (mut by_stop, mut by_length) = (0, 0);
    for at in 0..3 {
        let got = step(device, &rows, &state, at);
        for row in rows.iter_mut().filter(|row| !row.done) {
            let (token, place) = (row.draws[at], row.slot as usize * CAPACITY + row.count);
            (tokens[place], logprobs[place]) = (token, (-(token as f32) / 64.0).to_bits());
            row.count += 1;
            let stopped = STOPS.contains(&token);
            row.done = stopped || row.count == CAPACITY;
            by_stop += usize::from(stopped);
            by_length += usize::from(!stopped && row.done);
        }
        let counts: Vec<u32> = rows.iter().map(|row| row.count as u32).collect();
        let from = |start: i32| -> Vec<u32> { rows.iter().map(|row| (start + row.count as i32) as u32).collect() };
        assert_eq!(got.u32(3), counts, "step {at}: counts");
        assert_eq!(got.u32(4), rows.iter().map(|row| u32::from(row.done)).collect::<Vec<_>>(), "step {at}: done");
        assert_eq!(got.u32(5), from(39), "step {at}: positions");
        assert_eq!(got.u32(6), from(-1), "step {at}: cells");
        assert_eq!(got.u32(7), counts, "step {at}: draws");
        assert_eq!(got.u32(8), tokens, "step {at}: what was written down");
        assert_eq!(got.u32(9), logprobs, "step {at}: log-probabilities");
        state = [3, 4, 5, 6, 7, 8, 9].map(|argument| got.buffer(argument));
    }
    assert!(by_stop > 20 && by_length > 20 && rows.iter().any(|row| !row.done), "all kinds of ends, and none");
}

/// Without stop tokens only the length ends a row.
#[test]
fn no_stop_tokens() {
    let Some(device) = &*DEVICE else { return };
    let lists = [u32s(&[7, 8]), f32s(&[-1.0, -2.0]), i32s(&[1, 0]), i32s(&[0, 1]), i32s(&[0, 0])];
    let places = [i32s(&[4, 5]), i32s(&[-1, 0]), i32s(&[0, 1])];
    let rest = [u32s(&[OLD; 4]), u32s(&[OLD; 4]), Arg::Null, int(0), int(2), int(2)];
    let got = device.launch("rollout_advance", grid(1, 128), &[&lists[..], &places, &rest].concat());
    assert_eq!(got.u32(8), [OLD, 8, 7, OLD]);
    assert_eq!(got.u32(4), [0, 1]);
    assert_eq!((got.u32(5), got.u32(6), got.u32(7)), (vec![5, 6], vec![0, 1], vec![1, 2]));
}
