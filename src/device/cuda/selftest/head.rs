//! The head's statistics and gradient, and the sampler.

use super::lab::Lab;
use super::{BF16, EXACT, F32};
use crate::device::cuda::ops::{self, HeadStats, Logits};
use crate::ops::head::{Head, Pair, TokenGrad, token_stats};
use crate::rng::{Purpose, Stream};
use crate::rollout::Sampling;
use crate::rollout::sampler;
use anyhow::Result;

/// Rows of `vocab` logits in rows of `stride`, NaN between them.
fn spread(logits: &[f32], vocab: usize, stride: usize) -> Vec<f32> {
    let padding = vec![f32::NAN; stride - vocab];
    logits.chunks(vocab).flat_map(|row| row.iter().chain(&padding)).copied().collect()
}

pub fn head(lab: &mut Lab) -> Result<()> {
    for (rows, vocab, temperature) in [(5usize, 3usize, 1.0), (33, 770, 0.7), (17, 152_064, 1.0), (3, 151_937, 1.3)] {
        lab.arena.clear();
        let stride = vocab.next_multiple_of(8);
        let logits = lab.normals(rows * vocab, 4.0);
        let targets = lab.below(rows, vocab);
        let (by_logprob, by_entropy) = (lab.normals(rows, 1.0), lab.normals(rows, 0.3));
        let buffer = lab.put(&spread(&logits, vocab, stride))?;
        let at = Logits { buffer, rows, vocab, stride };
        let targets_at = lab.int(&targets)?;
        let stats = HeadStats { logprob: lab.poisoned(rows)?, entropy: lab.poisoned(rows)?, lse: lab.poisoned(rows)? };
        ops::head_stats(&lab.gpu, at, targets_at, stats, temperature)?;
        let want: Vec<_> =
            logits.chunks(vocab).zip(&targets).map(|(row, &target)| token_stats(row, target, temperature)).collect();
        let size = format!("{rows} rows of {vocab} at T = {temperature}");
        let logprobs: Vec<f32> = want.iter().map(|stats| stats.logprob).collect();
        let entropies: Vec<f32> = want.iter().map(|stats| stats.entropy).collect();
        lab.compare_f32(&format!("{size}: log-probabilities"), stats.logprob, &logprobs, F32)?;
        lab.compare_f32(&format!("{size}: entropies"), stats.entropy, &entropies, F32)?;

        let (by_logprob_at, by_entropy_at) = (lab.put(&by_logprob)?, lab.put(&by_entropy)?);
        ops::head_backward(&lab.gpu, at, targets_at, stats, by_logprob_at, by_entropy_at, temperature)?;
        let got = lab.read(buffer.as_bf16())?;
        // With the identity as the head's weight the gradient of the hidden rows is that of the logits; a few rows will do
        // where that is large, by the formula.
        let mut want_d = vec![0.0; rows * vocab];
        if vocab <= 1_000 {
            let identity: Vec<f32> =
                (0..vocab * vocab).map(|i| if i / vocab == i % vocab { 1.0 } else { 0.0 }).collect();
            let head = Head { weight: &identity, hidden: vocab, vocab };
            let pairs: Vec<Pair> = targets.iter().enumerate().map(|(row, &target)| Pair { row, target }).collect();
            let grad = |i: usize, _| TokenGrad { logprob: by_logprob[i], entropy: by_entropy[i] };
            head.backward(&logits, &pairs, temperature, grad, &mut want_d);
        } else {
            for row in 0..rows {
                let logits = &logits[row * vocab..(row + 1) * vocab];
                let anchor = logits[targets[row] as usize] / temperature - want[row].logprob;
                for (j, d) in want_d[row * vocab..(row + 1) * vocab].iter_mut().enumerate() {
                    let ln_p = logits[j] / temperature - anchor;
                    let (p, is_target) = (ln_p.exp(), f32::from(j == targets[row] as usize));
                    let of_entropy = p * (ln_p + want[row].entropy);
                    *d = (by_logprob[row] * (is_target - p) - by_entropy[row] * of_entropy) / temperature;
                }
            }
        }
        let (mut rows_of_d, mut padding_is_zero) = (Vec::new(), true);
        for row in got.chunks(2 * stride) {
            rows_of_d.extend_from_slice(&row[..vocab]);
            padding_is_zero &= row[vocab..stride].iter().all(|d| *d == 0.0);
        }
        lab.compare(&format!("{size}: gradient"), &rows_of_d, &want_d, BF16);
        lab.holds(&format!("{size}: nothing between the rows"), padding_is_zero);
    }
    Ok(())
}

pub fn sampler(lab: &mut Lab) -> Result<()> {
    let plain = Sampling::plain(1.0);
    for (name, sampling) in [
        ("greedy", Sampling::greedy()),
        ("T = 1", plain.clone()),
        ("T = 0.6", Sampling { temperature: 0.6, ..plain.clone() }),
        ("top-k 20", Sampling { top_k: 20, ..plain.clone() }),
        ("top-p 0.9", Sampling { top_p: 0.9, ..plain.clone() }),
        ("min-p 0.1", Sampling { min_p: 0.1, ..plain.clone() }),
        ("all of them", Sampling { temperature: 0.8, top_k: 50, top_p: 0.95, min_p: 0.02 }),
    ] {
        // Of the last 64 logits there are 17, and one.
        for (rows, vocab) in [(61usize, 785usize), (9, 151_937)] {
            lab.arena.clear();
            let stride = vocab.next_multiple_of(8);
            let logits = lab.normals(rows * vocab, 3.0);
            let places = lab.below(rows, 4_000);
            let seed = lab.stream().u64(0);
            let streams: Vec<Stream> =
                (0..rows as u64).map(|row| Stream::new(seed, Purpose::Sampling, &[row])).collect();
            let keys: Vec<u32> = streams.iter().flat_map(Stream::key).collect();
            let buffer = lab.put(&spread(&logits, vocab, stride))?;
            let (keys_at, places_at) = (lab.put(&keys)?, lab.int(&places)?);
            let (tokens, logprobs) = (lab.poisoned::<u32>(rows)?, lab.poisoned::<f32>(rows)?);
            let at = Logits { buffer, rows, vocab, stride };
            // Rows that are done come first, and nothing is drawn for them.
            let idle = rows / 4;
            let done = lab.int(&(0..rows).map(|row| u32::from(row < idle)).collect::<Vec<_>>())?;
            ops::sample(&lab.gpu, at, keys_at, places_at, done, tokens, logprobs, &sampling)?;
            let want: Vec<(u32, f32)> = (idle..rows)
                .map(|row| {
                    let logits = &logits[row * vocab..(row + 1) * vocab];
                    sampler::sample(logits, &sampling, &streams[row], u64::from(places[row]))
                })
                .collect();
            let (got, drawn) = (tokens.download(&lab.gpu)?, rows - idle);
            let other = got[idle..].iter().zip(&want).filter(|(got, want)| **got != want.0).count();
            let what = format!("{name}, {rows} rows of {vocab}");
            lab.value(&format!("{what}: share of other tokens"), other as f64 / drawn as f64, EXACT);
            let want: Vec<f32> = want.into_iter().map(|(_, logprob)| logprob).collect();
            lab.compare_f32(&format!("{what}: log-probabilities"), logprobs.slice(idle..rows), &want, F32)?;
            let untouched = got[..idle].iter().all(|&token| token == u32::MAX);
            lab.holds(&format!("{what}: nothing is drawn for rows that are done"), untouched);
        }
    }
    Ok(())
}
