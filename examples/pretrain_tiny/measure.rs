//! The model's results before reinforcement learning: samples on held-out questions, counted.

use std::collections::BTreeMap;

use crate::reference::Reference;
use anyhow::{Result, anyhow};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use rft::data::arithmetic::{Split, questions};
use rft::prompt::PriorPrompt;
use rft::rng::{Purpose, Stream};
use tokenizers::Tokenizer;

use crate::folder::{END, PAD};
use crate::text;
use crate::train::encode;

const MAX_TOKENS: usize = 96;

/// Shares of completions, 0 to 1.
#[derive(Clone, Copy, Default)]
pub struct Measure {
    pub accuracy: f64,
    pub format: f64,
}

/// One completion for each of `n` held-out questions under `prompt`, at temperature 1 or greedy, and their scores.
pub fn measure(
    model: &Reference,
    tokenizer: &Tokenizer,
    prompt: &PriorPrompt,
    n: usize,
    greedy: bool,
) -> Result<(Measure, Vec<String>)> {
    let questions = questions(Split::HeldOut, 0, &[1, 2, 3], n)?;
    let prefix = encode(tokenizer, &text::prefix(&prompt.text))?;
    let (_, prefix) = model.hidden(&Tensor::new(prefix, &Device::Cpu)?.unsqueeze(0)?, None)?;
    // Questions of one length form a batch without padding.
    let mut by_length: BTreeMap<usize, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
    for (index, question) in questions.iter().enumerate() {
        let ids = encode(tokenizer, &text::question(&question.text))?;
        by_length.entry(ids.len()).or_default().push((index, ids));
    }
    let batches: Vec<_> = by_length.into_values().collect();
    let completions: Vec<Vec<(usize, Vec<u32>)>> = batches
        .par_iter()
        .map(|batch| {
            let ids: Vec<_> = batch.iter().map(|(_, ids)| ids.clone()).collect();
            let (hidden, mut past) = model.hidden(&Tensor::new(ids, &Device::Cpu)?, Some(&prefix))?;
            let mut last = hidden.narrow(1, hidden.dim(1)? - 1, 1)?;
            let mut done: Vec<(usize, Vec<u32>)> = batch.iter().map(|(index, _)| (*index, Vec::new())).collect();
            for position in 0..MAX_TOKENS {
                let logits = model.head(&last.contiguous()?.flatten_to(1)?)?.to_vec2::<f32>()?;
                let mut next = Vec::with_capacity(done.len());
                for ((index, completion), logits) in done.iter_mut().zip(&logits) {
                    let stream = (!greedy).then(|| Stream::new(0, Purpose::Sampling, &[*index as u64]));
                    let token = if ended(completion) { PAD } else { pick(logits, stream, position) };
                    completion.push(token);
                    next.push(token);
                }
                if done.iter().all(|(_, completion)| ended(completion)) {
                    break;
                }
                let next = Tensor::new(next, &Device::Cpu)?.unsqueeze(1)?;
                (last, past) = model.hidden(&next, Some(&past))?;
            }
            Ok(done)
        })
        .collect::<Result<_>>()?;

    let mut texts = vec![String::new(); n];
    for (index, completion) in completions.into_iter().flatten() {
        texts[index] = tokenizer.decode(&completion, true).map_err(|e| anyhow!("decode a completion: {e}"))?;
    }
    let share = |count: usize| count as f64 / n as f64;
    let right = questions.iter().zip(&texts).filter(|(q, text)| boxed(text) == Some(&q.gold)).count();
    let formed = texts.iter().filter(|text| follows(prompt, text)).count();
    Ok((Measure { accuracy: share(right), format: share(formed) }, texts))
}

fn ended(completion: &[u32]) -> bool {
    completion.last().is_some_and(|&token| token == END || token == PAD)
}

/// The most probable token, or, with a stream, one sampled with the Gumbel trick.
fn pick(logits: &[f32], stream: Option<Stream>, position: usize) -> u32 {
    let noise = |token: usize| {
        let uniform = |stream: Stream| stream.f64((position * logits.len() + token) as u64) + f64::EPSILON / 4.0;
        stream.map_or(0.0, |stream| -(-uniform(stream).ln()).ln())
    };
    let scores = logits.iter().enumerate().map(|(token, &logit)| (f64::from(logit) + noise(token), token));
    scores.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(PAD, |(_, token)| token as u32)
}

/// The content of the last box.
fn boxed(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once("\\boxed{")?;
    rest.split_once('}').map(|(inside, _)| inside)
}

/// Exactly one pair of the prompt's tag, then exactly one answer pair.
fn follows(prompt: &PriorPrompt, text: &str) -> bool {
    let (Some(tag), Some(answer)) = (&prompt.tag, &prompt.answer_tag) else { return false };
    let marks = [format!("<{tag}>"), format!("</{tag}>"), format!("<{answer}>"), format!("</{answer}>")];
    marks.iter().all(|mark| text.matches(mark).count() == 1) && marks.iter().map(|mark| text.find(mark)).is_sorted()
}
