//! The group engine: a prompt is prefilled once, its keys and values are shared by its branches, and a freed row is
//! refilled at once from the queue.
//!
//! Which rows are decoded together changes nothing in what they say (see [`crate::ops`]), so the schedule is free to
//! follow memory and speed alone.

use crate::device::cpu::decoder::Decoder;
use crate::model::lora::Adapter;
use crate::ops::attention::{self, KvSpan, Part};
use crate::rng::{Purpose, Stream};
use crate::rollout::sampler::sample;
use crate::rollout::{Branch, Engine, Finish, Prompt, Request, Watch};
use anyhow::{Result, ensure};
use rayon::prelude::*;
use std::collections::VecDeque;

/// Decodes with a model in this process, with the adapter applied unmerged.
pub struct CpuEngine<'a> {
    pub decoder: &'a Decoder,
    /// Branches decoded at the same time.
    pub max_rows: usize,
}

/// Most prompt tokens of one prefill.
const PREFILL_TOKENS: usize = 4096;

/// Weights up to this size stay in the caches, and then threads share the rows of a step; larger ones are read from
/// memory once for all rows, and threads share the columns.
const CACHED_WEIGHT_BYTES: usize = 16 << 20;
/// Most rows that a thread takes at a time: enough for full tiles of the products, few enough to share out evenly.
const ROWS_PER_TASK: usize = 32;

/// A prefilled prompt, alive until its last branch has ended.
struct Prefix {
    /// Keys and values, a span for each block.
    cache: Vec<KvSpan>,
    /// Logits of the first token of every branch: (vocabulary)
    logits: Vec<f32>,
}

/// A branch that is being decoded.
struct Row {
    prompt: usize,
    branch: usize,
    stream: Stream,
    cache: Vec<KvSpan>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

impl Engine for CpuEngine<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &Request,
        watch: &mut dyn Watch,
    ) -> Result<Option<Vec<Vec<Branch>>>> {
        let prompts = request.prompts;
        for prompt in prompts {
            ensure!(!prompt.ids.is_empty(), "a prompt rendered to no tokens");
        }
        let mut results: Vec<Vec<Option<Branch>>> =
            prompts.iter().map(|_| (0..request.num_generations).map(|_| None).collect()).collect();
        let mut waiting: VecDeque<(usize, usize)> =
            (0..prompts.len()).flat_map(|p| (0..request.num_generations).map(move |b| (p, b))).collect();
        let mut unfinished = vec![request.num_generations; prompts.len()];
        let mut groups: Vec<Vec<Branch>> = prompts.iter().map(|_| Vec::new()).collect();
        let mut prefixes: Vec<Option<Prefix>> = prompts.iter().map(|_| None).collect();
        let mut rows: Vec<Row> = Vec::new();
        let mut spare: Vec<Vec<KvSpan>> = Vec::new();

        loop {
            if watch.cancelled() {
                return Ok(None);
            }
            // Refill: the branches that start now, and the prompts that none has needed before.
            let starting: Vec<_> = waiting.drain(..waiting.len().min(self.max_rows - rows.len())).collect();
            let missing = starting.iter().map(|&(prompt, _)| prompt).filter(|&prompt| prefixes[prompt].is_none());
            let mut missing: Vec<usize> = missing.collect();
            missing.dedup();
            for (prompt, prefix) in self.prefill(adapter, prompts, &missing) {
                prefixes[prompt] = Some(prefix);
            }
            for (prompt, branch) in starting {
                let cache = spare.pop().unwrap_or_else(|| self.empty_cache(request.max_completion_length));
                let path = [request.step, prompts[prompt].key, branch as u64];
                let stream = Stream::new(request.seed, Purpose::Sampling, &path);
                let mut row = Row { prompt, branch, stream, cache, tokens: Vec::new(), logprobs: Vec::new() };
                row.draw(&prefixes[prompt].as_ref().expect("prefilled above").logits, request);
                watch.token(prompt, branch, row.tokens[0]);
                rows.push(row);
            }

            // Retire what has ended, and decode one token of everything else.
            for i in (0..rows.len()).rev() {
                let Some(finish) = rows[i].finished(request) else { continue };
                let mut row = rows.swap_remove(i);
                row.cache.iter_mut().for_each(KvSpan::clear);
                spare.push(row.cache);
                let prompt = row.prompt;
                results[prompt][row.branch] = Some(Branch { tokens: row.tokens, logprobs: row.logprobs, finish });
                unfinished[prompt] -= 1;
                if unfinished[prompt] == 0 {
                    prefixes[prompt] = None;
                    groups[prompt] = results[prompt].drain(..).map(|branch| branch.expect("all have ended")).collect();
                    watch.group(prompt, &groups[prompt]);
                }
            }
            if rows.is_empty() && waiting.is_empty() {
                break;
            }
            let chunk = if self.decoder.weight_bytes() <= CACHED_WEIGHT_BYTES {
                rows.len().div_ceil(rayon::current_num_threads()).clamp(1, ROWS_PER_TASK)
            } else {
                self.max_rows
            };
            rows.par_chunks_mut(chunk).for_each(|rows| self.decode(adapter, rows, &prefixes, request));
            for row in &rows {
                watch.token(row.prompt, row.branch, row.tokens[row.tokens.len() - 1]);
            }
        }
        Ok(Some(groups))
    }
}

impl CpuEngine<'_> {
    fn empty_cache(&self, tokens: usize) -> Vec<KvSpan> {
        // A branch seldom needs the whole of a large bound, and a span grows when it does.
        let capacity = tokens.min(256);
        (0..self.decoder.config.num_hidden_layers).map(|_| KvSpan::new(self.decoder.heads(), capacity)).collect()
    }

    /// Runs `which` prompts, packed, and keeps their keys, values and last logits.
    fn prefill(&self, adapter: Option<&Adapter>, prompts: &[Prompt], which: &[usize]) -> Vec<(usize, Prefix)> {
        let mut prefilled = Vec::with_capacity(which.len());
        let mut rest = which;
        while !rest.is_empty() {
            let mut total = 0;
            let mut fits = |&prompt: &usize| {
                total += prompts[prompt].ids.len();
                total <= PREFILL_TOKENS
            };
            let count = rest.iter().take_while(|prompt| fits(prompt)).count().max(1);
            let (batch, later) = rest.split_at(count);
            prefilled.extend(self.prefill_batch(adapter, prompts, batch));
            rest = later;
        }
        prefilled
    }

    fn prefill_batch(&self, adapter: Option<&Adapter>, prompts: &[Prompt], which: &[usize]) -> Vec<(usize, Prefix)> {
        let (mut tokens, mut positions, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for &prompt in which {
            let ids = &prompts[prompt].ids;
            let start = tokens.len();
            tokens.extend_from_slice(ids);
            positions.extend(0..ids.len() as u32);
            parts.push(Part { prompt: start..tokens.len(), branches: Vec::new() });
        }
        let heads = self.decoder.heads();
        let mut caches: Vec<Vec<KvSpan>> = which.iter().map(|_| Vec::new()).collect();
        let hidden = self.decoder.infer(adapter, &tokens, &positions, |_, qkv| {
            for (cache, part) in caches.iter_mut().zip(&parts) {
                let mut span = KvSpan::new(heads, part.prompt.len());
                span.extend(&qkv[part.prompt.start * heads.qkv_width()..part.prompt.end * heads.qkv_width()]);
                cache.push(span);
            }
            attention::forward(heads, qkv, &parts).0
        });
        let (head, width) = (self.decoder.head(), self.decoder.config.hidden_size);
        let last_rows: Vec<f32> = parts
            .iter()
            .flat_map(|part| &hidden[(part.prompt.end - 1) * width..part.prompt.end * width])
            .copied()
            .collect();
        let logits = head.logits(&last_rows);
        let logits = logits.chunks_exact(head.vocab).map(<[f32]>::to_vec);
        which
            .iter()
            .zip(caches)
            .zip(logits)
            .map(|((&prompt, cache), logits)| (prompt, Prefix { cache, logits }))
            .collect()
    }

    /// Draws the next token of every row.
    fn decode(&self, adapter: Option<&Adapter>, rows: &mut [Row], prefixes: &[Option<Prefix>], request: &Request) {
        let prefix = |row: &Row| prefixes[row.prompt].as_ref().expect("a row keeps its prompt alive");
        let tokens: Vec<u32> = rows.iter().map(|row| row.tokens[row.tokens.len() - 1]).collect();
        let positions: Vec<u32> =
            rows.iter().map(|row| (prefix(row).cache[0].len() + row.tokens.len() - 1) as u32).collect();
        let hidden = self.decoder.infer(adapter, &tokens, &positions, |block, qkv| {
            let prompts: Vec<&KvSpan> = rows.iter().map(|row| &prefix(row).cache[block]).collect();
            let mut own: Vec<&mut KvSpan> = rows.iter_mut().map(|row| &mut row.cache[block]).collect();
            attention::decode(self.decoder.heads(), qkv, &prompts, &mut own)
        });
        let head = self.decoder.head();
        let logits = head.logits(&hidden);
        rows.par_iter_mut().zip(logits.par_chunks(head.vocab)).for_each(|(row, logits)| row.draw(logits, request));
    }
}

impl Row {
    fn draw(&mut self, logits: &[f32], request: &Request) {
        let (token, logprob) = sample(logits, request.sampling, &self.stream, self.tokens.len() as u64);
        self.tokens.push(token);
        self.logprobs.push(logprob);
    }

    fn finished(&self, request: &Request) -> Option<Finish> {
        let last = self.tokens[self.tokens.len() - 1];
        if request.stop_tokens.contains(&last) {
            Some(Finish::Token(last))
        } else if (request.ends)(&self.tokens) {
            Some(Finish::String)
        } else if self.tokens.len() >= request.max_completion_length {
            Some(Finish::Length)
        } else {
            None
        }
    }
}
