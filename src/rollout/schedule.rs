//! The scheduler of rollouts, the same for every device: which completions are decoded together, where they end, and what
//! a watch is told.
//!
//! Which rows are decoded together changes nothing in their tokens (see [`crate::ops`]), so the schedule follows memory and
//! speed alone: a prompt is computed once for all of its completions, and the row of a completion that has ended is given
//! to the next one that waits.

use super::{Completion, Finish, Prompt, RolloutRequest, RolloutWatch};
use crate::rng::{Purpose, Stream};
use anyhow::{Result, ensure};
use rayon::prelude::*;
use std::collections::VecDeque;

/// What a device does in a rollout.
///
/// A prompt and a row have a slot each for their keys and values. A slot that the scheduler uses again is to be overwritten.
pub trait Decode {
    /// The most rows that are decoded together. Their slots are the numbers below it.
    fn max_rows(&self) -> usize;

    /// The most prompts that are held at once. Their slots are the numbers below it.
    fn max_prompts(&self) -> usize;

    /// The most steps of one call of [`Decode::decode`].
    fn steps(&self) -> usize;

    /// Computes the keys and values of prompts, and what their first tokens are drawn from, each for its slot.
    fn prefill(&mut self, prompts: &[(usize, &Prompt)]) -> Result<()>;

    /// Takes in rows without tokens, whose prompts are in their slots. Draws the first token of each, unless the device
    /// does this at the next [`Decode::decode`].
    fn start(&mut self, rows: &mut [DecodingRow]) -> Result<()>;

    /// Draws tokens of all rows: at least one of each, and no more than [`Decode::steps`] beside a first one. They may go past
    /// a row's end, which the scheduler finds; what comes after it is discarded. Rows without tokens are the last ones.
    fn decode(&mut self, rows: &mut [DecodingRow]) -> Result<()>;
}

/// A completion that is being decoded.
pub struct DecodingRow {
    pub slot: usize,
    pub prompt_slot: usize,
    /// Tokens of its prompt.
    pub prompt_len: usize,
    /// Its random numbers. A token's place in the completion is the position in them.
    pub stream: Stream,
    pub tokens: Vec<u32>,
    /// Of each token.
    pub logprobs: Vec<f32>,
    prompt: usize,
    completion: usize,
    /// How many tokens the watch was told of. None of them but the last can be the completion's end.
    told: usize,
    finish: Option<Finish>,
}

impl DecodingRow {
    /// Appends a token that was drawn.
    pub fn push(&mut self, token: u32, logprob: f32) {
        self.tokens.push(token);
        self.logprobs.push(logprob);
    }

    /// Finds the row's end among its new tokens, and discards what comes after it.
    fn find_end(&mut self, request: &RolloutRequest) {
        for len in self.told + 1..=self.tokens.len() {
            if let Some(finish) = request.finish(&self.tokens[..len]) {
                self.tokens.truncate(len);
                self.logprobs.truncate(len);
                self.finish = Some(finish);
                return;
            }
        }
    }
}

/// Completes the prompts of `request` on `device`; `None` when cancelled.
///
/// # Errors
/// When a prompt is empty, and those of the device.
pub fn generate(
    device: &mut dyn Decode,
    request: &RolloutRequest,
    watch: &mut dyn RolloutWatch,
) -> Result<Option<Vec<Vec<Completion>>>> {
    ensure!(request.prompts.iter().all(|prompt| !prompt.ids.is_empty()), "a prompt rendered to no tokens");
    let (max_rows, max_prompts) = (device.max_rows(), device.max_prompts());
    let mut schedule = Schedule::new(request, max_rows, max_prompts);
    ensure!(
        schedule.waiting.is_empty() || max_rows.min(max_prompts) > 0,
        "{max_rows} rows and {max_prompts} prompts cannot complete anything"
    );
    loop {
        if watch.cancelled() {
            return Ok(None);
        }
        let running = schedule.rows.len();
        device.prefill(&schedule.refill())?;
        device.start(&mut schedule.rows[running..])?;
        schedule.find_ends(running, watch);
        schedule.retire(watch);
        if schedule.rows.is_empty() {
            if schedule.waiting.is_empty() {
                return Ok(Some(schedule.groups));
            }
            continue;
        }
        device.decode(&mut schedule.rows)?;
        schedule.find_ends(0, watch);
        // After many steps the rows that have ended are given away at once. After a single step they are retired one step
        // later, next to those that end with their first token.
        if device.steps() > 1 {
            schedule.retire(watch);
        }
    }
}

struct Schedule<'a> {
    request: &'a RolloutRequest<'a>,
    /// Prompt and completion of the completions that have not started, in order.
    waiting: VecDeque<(usize, usize)>,
    rows: Vec<DecodingRow>,
    /// Slots that are not in use. The last is taken first, so that a device fills as few as it can.
    free_rows: Vec<usize>,
    free_prompts: Vec<usize>,
    /// Of each prompt that is held.
    prompt_slots: Vec<Option<usize>>,
    /// Completions that have ended, of prompts that have others.
    ended: Vec<Vec<Option<Completion>>>,
    /// All completions of a prompt, once they have ended.
    groups: Vec<Vec<Completion>>,
}

impl<'a> Schedule<'a> {
    fn new(request: &'a RolloutRequest<'a>, max_rows: usize, max_prompts: usize) -> Self {
        let (prompts, group) = (request.prompts.len(), request.num_generations);
        Self {
            request,
            waiting: (0..prompts).flat_map(|prompt| (0..group).map(move |completion| (prompt, completion))).collect(),
            rows: Vec::new(),
            free_rows: (0..max_rows).rev().collect(),
            free_prompts: (0..max_prompts).rev().collect(),
            prompt_slots: vec![None; prompts],
            ended: vec![vec![None; group]; prompts],
            groups: vec![Vec::new(); prompts],
        }
    }

    /// Starts completions as long as there are slots. Returns the prompts that no earlier one has needed, with their slots.
    fn refill(&mut self) -> Vec<(usize, &'a Prompt)> {
        let request = self.request;
        let mut missing = Vec::new();
        while let (Some(&(prompt, completion)), Some(&slot)) = (self.waiting.front(), self.free_rows.last()) {
            let Prompt { ids, key } = &request.prompts[prompt];
            let prompt_slot = match self.prompt_slots[prompt] {
                Some(slot) => slot,
                None => {
                    let Some(slot) = self.free_prompts.pop() else { break };
                    self.prompt_slots[prompt] = Some(slot);
                    missing.push((slot, &request.prompts[prompt]));
                    slot
                }
            };
            self.waiting.pop_front();
            self.free_rows.pop();
            self.rows.push(DecodingRow {
                slot,
                prompt_slot,
                prompt_len: ids.len(),
                stream: Stream::new(request.seed, Purpose::Sampling, &[request.step, *key, completion as u64]),
                tokens: Vec::new(),
                logprobs: Vec::new(),
                prompt,
                completion,
                told: 0,
                finish: None,
            });
        }
        missing
    }

    /// Finds the ends of the rows from number `first` on, and tells of their new tokens.
    fn find_ends(&mut self, first: usize, watch: &mut dyn RolloutWatch) {
        let (request, rows) = (self.request, &mut self.rows[first..]);
        // A stop string is found by decoding text, which takes a while, and the device may be idle until it is done.
        rows.par_iter_mut().for_each(|row| row.find_end(request));
        for row in rows {
            row.tokens[row.told..].iter().for_each(|&token| watch.token(row.prompt, row.completion, token));
            row.told = row.tokens.len();
        }
    }

    /// Takes the rows that have ended out of the batch, and tells of the groups that are complete with them.
    fn retire(&mut self, watch: &mut dyn RolloutWatch) {
        for i in (0..self.rows.len()).rev() {
            let Some(finish) = self.rows[i].finish else { continue };
            let DecodingRow { prompt, completion, slot, tokens, logprobs, .. } = self.rows.swap_remove(i);
            self.free_rows.push(slot);
            self.ended[prompt][completion] = Some(Completion { tokens, logprobs, finish });
            if self.ended[prompt].iter().all(Option::is_some) {
                self.free_prompts.extend(self.prompt_slots[prompt].take());
                self.groups[prompt] = self.ended[prompt].drain(..).flatten().collect();
                watch.group(prompt, &self.groups[prompt]);
            }
        }
    }
}
