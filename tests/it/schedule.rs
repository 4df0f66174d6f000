//! The rollout scheduler, with a device that samples scripted tokens.

use anyhow::Result;
use rft::rng::{Purpose, Stream};
use rft::rollout::schedule::{self, Decode, DecodingRow};
use rft::rollout::{Completion, Finish, Prompt, RolloutRequest, RolloutWatch, Sampling};
use std::collections::HashMap;

/// The end-of-sequence token.
const EOS: u32 = 9;
const SAMPLING: Sampling = Sampling::plain(1.0);
const SEED: u64 = 5;
const STEP: u64 = 2;

/// A device without a model. It records its calls.
struct Scripted {
    rows: usize,
    prompts: usize,
    /// Number of tokens of a row that it samples at once.
    steps: usize,
    /// The tokens of each completion, by the key of its random numbers. After them it samples zeros.
    script: HashMap<[u32; 2], Vec<u32>>,
    /// Keys of the prompts by slot.
    held: HashMap<usize, u64>,
    calls: Vec<String>,
}

/// The tokens of completion `completion` of prompt `prompt`.
type Tokens = fn(prompt: usize, completion: usize) -> Vec<u32>;

impl Scripted {
    fn new([rows, prompts, steps]: [usize; 3], request: &RolloutRequest, tokens: Tokens) -> Self {
        let all = (0..request.prompts.len()).flat_map(|p| (0..request.num_generations).map(move |b| (p, b)));
        let line = |(p, b): (usize, usize)| {
            let path = [request.step, request.prompts[p].key, b as u64];
            (Stream::new(request.seed, Purpose::Sampling, &path).key(), tokens(p, b))
        };
        let script = all.map(line).collect();
        Self { rows, prompts, steps, script, held: HashMap::new(), calls: Vec::new() }
    }

    fn draw(&self, row: &mut DecodingRow) {
        let line = &self.script[&row.stream.key()];
        let token = line.get(row.tokens.len()).copied().unwrap_or(0);
        row.push(token, -(row.tokens.len() as f32));
    }

    /// The prompt slots and slots of rows, with their numbers of tokens.
    fn show(rows: &[DecodingRow]) -> String {
        rows.iter().map(|row| format!(" {}/{}:{}", row.prompt_slot, row.slot, row.tokens.len())).collect()
    }
}

impl Decode for Scripted {
    fn max_rows(&self) -> usize {
        self.rows
    }

    fn max_prompts(&self) -> usize {
        self.prompts
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn prefill(&mut self, prompts: &[(usize, &Prompt)]) -> Result<()> {
        for (slot, prompt) in prompts {
            assert!(*slot < self.prompts);
            self.held.insert(*slot, prompt.key);
            self.calls.push(format!("prefill {} in {slot}", prompt.key));
        }
        Ok(())
    }

    fn start(&mut self, rows: &mut [DecodingRow]) -> Result<()> {
        for row in &mut *rows {
            assert!(row.slot < self.rows && row.tokens.is_empty());
            assert!(self.held.contains_key(&row.prompt_slot), "its prompt is missing");
        }
        // A device that decodes one step at a time samples the first tokens here, others with the next steps.
        if self.steps == 1 {
            rows.iter_mut().for_each(|row| self.draw(row));
        }
        Ok(())
    }

    fn decode(&mut self, rows: &mut [DecodingRow]) -> Result<()> {
        self.calls.push(format!("decode{}", Self::show(rows)));
        let mut slots: Vec<usize> = rows.iter().map(|row| row.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), rows.len(), "two rows have the same slot");
        let first_new = rows.iter().position(|row| row.tokens.is_empty()).unwrap_or(rows.len());
        assert!(rows[first_new..].iter().all(|row| row.tokens.is_empty()), "new rows are the last ones");
        for row in rows {
            let draws = self.steps + usize::from(row.tokens.is_empty());
            (0..draws).for_each(|_| self.draw(row));
        }
        Ok(())
    }
}

/// Records its events, and cancels when `cancelled` is called for the `patience`th time.
#[derive(Default)]
struct Told {
    events: Vec<String>,
    asked: usize,
    patience: Option<usize>,
}

impl RolloutWatch for Told {
    fn token(&mut self, prompt: usize, completion: usize, token: u32) {
        self.events.push(format!("{prompt}.{completion}={token}"));
    }

    fn group(&mut self, prompt: usize, completions: &[Completion]) {
        let lengths: Vec<usize> = completions.iter().map(|completion| completion.tokens.len()).collect();
        self.events.push(format!("group {prompt} {lengths:?}"));
    }

    fn cancelled(&mut self) -> bool {
        self.asked += 1;
        self.patience == Some(self.asked)
    }
}

fn prompts(count: usize) -> Vec<Prompt> {
    (0..count).map(|i| Prompt { ids: vec![1; i + 1], key: 100 + i as u64 }).collect()
}

fn request(prompts: &[Prompt], num_generations: usize) -> RolloutRequest<'_> {
    RolloutRequest {
        prompts,
        num_generations,
        sampling: &SAMPLING,
        max_completion_length: 6,
        seed: SEED,
        step: STEP,
        ends: &|_| false,
        stop_tokens: &[EOS],
    }
}

fn run(device: &mut Scripted, request: &RolloutRequest) -> (Vec<Vec<Completion>>, Told) {
    let mut told = Told::default();
    let groups = schedule::generate(device, request, &mut told).unwrap().expect("the request was canceled");
    (groups, told)
}

/// Completion b of prompt p has p + b + 1 tokens, and ends with the last of them.
fn growing(prompt: usize, completion: usize) -> Vec<u32> {
    let mut tokens = vec![1; prompt + completion];
    tokens.push(EOS);
    tokens
}

fn lengths(groups: &[Vec<Completion>]) -> Vec<Vec<usize>> {
    groups.iter().map(|group| group.iter().map(|completion| completion.tokens.len()).collect()).collect()
}

#[test]
fn a_freed_row_is_reused_at_once_after_several_steps() {
    let prompts = prompts(2);
    let request = request(&prompts, 3);
    let mut device = Scripted::new([2, 2, 2], &request, growing);
    let (groups, told) = run(&mut device, &request);
    assert_eq!(lengths(&groups), [[1, 2, 3], [2, 3, 4]]);
    let calls = [
        "prefill 100 in 0",
        "decode 0/0:0 0/1:0",
        "prefill 101 in 1",
        "decode 0/0:0 1/1:0",
        "decode 1/0:0 1/1:0",
        "decode 1/1:3",
    ];
    assert_eq!(device.calls, calls);
    let first = ["0.0=9", "0.1=1", "0.1=9"];
    let second = ["0.2=1", "0.2=1", "0.2=9", "1.0=1", "1.0=9", "group 0 [1, 2, 3]"];
    let third = ["1.1=1", "1.1=1", "1.1=9", "1.2=1", "1.2=1", "1.2=1"];
    let fourth = ["1.2=9", "group 1 [2, 3, 4]"];
    assert_eq!(told.events, [&first[..], &second, &third, &fourth].concat());
    assert_eq!(told.asked, 5);
}

/// With a single step, a row that has ended is retired after the next refill. On the CPU, a watch receives events in
/// this order.
#[test]
fn a_freed_row_is_reused_a_step_later_after_a_single_step() {
    let prompts = prompts(2);
    let request = request(&prompts, 3);
    let mut device = Scripted::new([2, 2, 1], &request, growing);
    let (groups, told) = run(&mut device, &request);
    assert_eq!(lengths(&groups), [[1, 2, 3], [2, 3, 4]]);
    let calls = [
        "prefill 100 in 0",
        "decode 0/1:1",
        "decode 0/0:1",
        "prefill 101 in 1",
        "decode 0/0:2 1/1:1",
        "decode 1/0:1 1/1:1",
        "decode 1/0:2 1/1:2",
        "decode 1/1:3",
    ];
    assert_eq!(device.calls, calls);
    let of_0 = ["0.0=9", "0.1=1", "0.1=9", "0.2=1", "0.2=1", "1.0=1", "0.2=9", "1.0=9", "group 0 [1, 2, 3]"];
    let of_1 = ["1.1=1", "1.2=1", "1.1=1", "1.2=1", "1.1=9", "1.2=1", "1.2=9", "group 1 [2, 3, 4]"];
    assert_eq!(told.events, [&of_0[..], &of_1].concat());
    assert_eq!(told.asked, 8);
}

#[test]
fn a_prompt_waits_for_a_slot_though_rows_are_free() {
    let prompts = prompts(3);
    let request = request(&prompts, 2);
    let mut device = Scripted::new([4, 1, 2], &request, growing);
    let (groups, _) = run(&mut device, &request);
    assert_eq!(lengths(&groups), [[1, 2], [2, 3], [3, 4]]);
    let both = "decode 0/0:0 0/1:0";
    let calls = ["prefill 100 in 0", both, "prefill 101 in 0", both, "prefill 102 in 0", both, "decode 0/1:3"];
    assert_eq!(device.calls, calls);
}

/// Tokens that a device samples after the end are neither returned nor reported.
#[test]
fn a_completion_is_cut_at_the_first_reason_to_end() {
    let prompts = prompts(1);
    let ends = |tokens: &[u32]| tokens.ends_with(&[7, 7]);
    let request = RolloutRequest { ends: &ends, ..request(&prompts, 6) };
    let tokens: Tokens = |_, completion| {
        let lines: [&[u32]; 6] = [
            &[1, 7, 7, 7, EOS],
            &[1, EOS, 7, 7, 1],
            &[1, 2, 3, 4, 5, 6, EOS],
            &[1, 2, 3, 4, 5, EOS],
            &[EOS, EOS],
            // The second part of the stop string is sampled in other steps than the first.
            &[1, 2, 3, 4, 7, 7],
        ];
        lines[completion].to_vec()
    };
    let expected: [(&[u32], Finish); 6] = [
        (&[1, 7, 7], Finish::String),
        (&[1, EOS], Finish::Token(EOS)),
        (&[1, 2, 3, 4, 5, 6], Finish::Length),
        (&[1, 2, 3, 4, 5, EOS], Finish::Token(EOS)),
        (&[EOS], Finish::Token(EOS)),
        (&[1, 2, 3, 4, 7, 7], Finish::String),
    ];
    for steps in [1, 2, 4, 16] {
        let mut device = Scripted::new([3, 1, steps], &request, tokens);
        let (groups, told) = run(&mut device, &request);
        for (i, (completion, (tokens, finish))) in groups[0].iter().zip(expected).enumerate() {
            assert_eq!((&completion.tokens[..], completion.finish), (tokens, finish), "completion {i}, {steps} steps");
            let logprobs: Vec<f32> = (0..tokens.len()).map(|place| -(place as f32)).collect();
            assert_eq!(completion.logprobs, logprobs, "completion {i}, {steps} steps");
            let start = format!("0.{i}=");
            let heard = told.events.iter().filter_map(|event| event.strip_prefix(&start)?.parse::<u32>().ok());
            assert_eq!(heard.collect::<Vec<_>>(), tokens, "completion {i}, {steps} steps");
        }
        assert_eq!(told.events.last().unwrap(), "group 0 [3, 2, 6, 6, 1, 6]");
        assert_eq!(told.events.len(), 3 + 2 + 6 + 6 + 1 + 6 + 1, "{steps} steps");
    }
}

#[test]
fn a_completion_that_ends_at_its_first_token_is_not_decoded() {
    let prompts = prompts(3);
    let whole = request(&prompts, 2);
    for (request, tokens) in [
        (RolloutRequest { ..whole }, (|_, _| vec![EOS]) as Tokens),
        (RolloutRequest { max_completion_length: 1, ..whole }, |_, _| vec![3, 4]),
        (RolloutRequest { ends: &|tokens| tokens == [3], ..whole }, |_, _| vec![3, 3]),
    ] {
        let mut device = Scripted::new([2, 3, 1], &request, tokens);
        let (groups, _) = run(&mut device, &request);
        assert_eq!(lengths(&groups), [[1, 1]; 3]);
        // A prompt uses the slot of the previous one.
        assert_eq!(device.calls, ["prefill 100 in 0", "prefill 101 in 0", "prefill 102 in 0"]);

        // If first tokens are sampled with the following steps, those steps are wasted.
        let mut device = Scripted::new([2, 3, 4], &request, tokens);
        let (again, told) = run(&mut device, &request);
        assert_eq!(again, groups);
        assert_eq!(told.events.len(), 6 + 3);
    }
}

#[test]
fn nothing_is_done_after_canceling() {
    let prompts = prompts(2);
    let request = request(&prompts, 3);
    for (patience, calls, events) in [(1, 0, 0), (2, 2, 3), (3, 4, 9), (4, 5, 15), (5, 6, 17)] {
        let mut device = Scripted::new([2, 2, 2], &request, growing);
        let mut told = Told { patience: Some(patience), ..Told::default() };
        assert_eq!(schedule::generate(&mut device, &request, &mut told).unwrap(), None);
        assert_eq!((told.asked, device.calls.len(), told.events.len()), (patience, calls, events));
    }
}

#[test]
fn requests_without_completions_and_devices_without_room() {
    let prompts = prompts(2);
    let mut device = Scripted::new([2, 2, 2], &request(&prompts, 1), growing);
    assert_eq!(run(&mut device, &request(&prompts, 0)).0, [[], []]);
    assert!(run(&mut device, &request(&[], 3)).0.is_empty());
    assert!(device.calls.is_empty());

    let refused = |rows, slots, prompts: &[Prompt]| {
        let request = request(prompts, 1);
        let mut device = Scripted::new([rows, slots, 1], &request, growing);
        schedule::generate(&mut device, &request, &mut Told::default()).unwrap_err().to_string()
    };
    assert_eq!(refused(0, 2, &prompts), "0 rows and 2 prompts cannot complete anything");
    assert_eq!(refused(2, 0, &prompts), "2 rows and 0 prompts cannot complete anything");
    let empty = [prompts[0].clone(), Prompt { ids: vec![], key: 1 }];
    assert_eq!(refused(2, 2, &empty), "a prompt rendered to no tokens");
}
