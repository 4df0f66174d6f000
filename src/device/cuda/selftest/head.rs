//! The head's statistics and gradient, and the sampler.

use super::SelftestCase;
use super::lab::{Lab, Twin};
use crate::device::cuda::memory::Buffer;
use crate::device::cuda::ops::{self, HeadStats, Logits};
use crate::ops::distill::distill_row;
use crate::ops::head::{Head, Pair, TokenGrad, TokenStats, token_stats};
use crate::rng::{Purpose, Stream};
use crate::rollout::Sampling;
use crate::rollout::sampler;
use anyhow::Result;

/// Rows of `vocab` logits in rows of `stride` values, with NaN between them.
fn spread(logits: &[f32], vocab: usize, stride: usize) -> Vec<f32> {
    let padding = vec![f32::NAN; stride - vocab];
    logits.chunks(vocab).flat_map(|row| row.iter().chain(&padding)).copied().collect()
}

/// Rows, vocabularies and temperatures: the embedded model's vocabulary, one that takes two turns of a block, and those of 7B.
const SHAPES: [(usize, usize, f32); 5] =
    [(5, 3, 1.0), (33, 770, 0.7), (4, 4_200, 0.9), (3, 152_064, 1.0), (2, 151_937, 1.3)];

pub fn head() -> Vec<SelftestCase> {
    SHAPES
        .map(|(rows, vocab, temperature)| {
            let name = format!("{rows} rows of {vocab} at T = {temperature}");
            SelftestCase::new(name, move |lab| one_head(lab, rows, vocab, temperature))
        })
        .into()
}

pub fn distill() -> Vec<SelftestCase> {
    SHAPES
        .map(|(rows, vocab, temperature)| {
            let name = format!("{rows} rows of {vocab} at T = {temperature}");
            SelftestCase::new(name, move |lab| one_distillation(lab, rows, vocab, temperature))
        })
        .into()
}

fn one_distillation(lab: &mut Lab, rows: usize, vocab: usize, temperature: f32) -> Result<()> {
    let stride = vocab.next_multiple_of(8);
    let (mut logits, mut teacher) = (lab.normals(rows * vocab, 4.0), lab.normals(rows * vocab, 4.0));
    let (targets, weights) = (lab.below(rows, vocab), lab.normals(rows, 1.0));
    // A token that neither has, and in the last row one that the student does not have.
    (logits[1], teacher[1]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    logits[(rows - 1) * vocab + 2] = f32::NEG_INFINITY;
    let buffer = lab.put(&spread(&logits, vocab, stride))?;
    let teacher_at = lab.put(&spread(&teacher, vocab, stride))?;
    let (targets_at, weights_at) = (lab.int(&targets)?, lab.put(&weights)?);
    let mut stats = || -> Result<HeadStats> {
        Ok(HeadStats { logprob: lab.poisoned(rows)?, entropy: lab.poisoned(rows)?, lse: lab.poisoned(rows)? })
    };
    let (own, other) = (stats()?, stats()?);
    let at = Logits { buffer, rows, vocab, stride };
    ops::head_stats(&lab.gpu, at, targets_at, own, temperature)?;
    ops::head_stats(&lab.gpu, Logits { buffer: teacher_at, ..at }, targets_at, other, temperature)?;
    let kl: Buffer<f32> = lab.poisoned(rows)?;
    ops::head_distill(&lab.gpu, at, teacher_at, [own.lse, other.lse], weights_at, kl, temperature)?;

    let rows_of_both = logits.chunks_mut(vocab).zip(teacher.chunks(vocab));
    let row = |((row, teacher), (&target, &weight))| distill_row(row, teacher, target, temperature, weight).kl;
    let want: Vec<f32> = rows_of_both.zip(targets.iter().zip(&weights)).map(row).collect();
    lab.close("divergences", kl, &want)?;
    let got = lab.read(buffer.as_bf16())?;
    let rows_of_d: Vec<f32> = got.chunks(2 * stride).flat_map(|row| &row[..vocab]).copied().collect();
    lab.near("gradient", &rows_of_d, &Twin::stored(&logits));
    let is_zero = got.chunks(2 * stride).all(|row| row[vocab..stride].iter().all(|d| *d == 0.0));
    lab.holds("zeros between the rows", is_zero);
    Ok(())
}

fn one_head(lab: &mut Lab, rows: usize, vocab: usize, temperature: f32) -> Result<()> {
    let stride = vocab.next_multiple_of(8);
    let mut logits = lab.normals(rows * vocab, 4.0);
    let mut targets = lab.below(rows, vocab);
    // The last row has a token with a logit of -∞.
    targets[rows - 1] = 1;
    logits[(rows - 1) * vocab + 2] = f32::NEG_INFINITY;
    let (by_logprob, by_entropy) = (lab.normals(rows, 1.0), lab.normals(rows, 0.3));
    let buffer = lab.put(&spread(&logits, vocab, stride))?;
    let at = Logits { buffer, rows, vocab, stride };
    let targets_at = lab.int(&targets)?;
    let stats = HeadStats { logprob: lab.poisoned(rows)?, entropy: lab.poisoned(rows)?, lse: lab.poisoned(rows)? };
    ops::head_stats(&lab.gpu, at, targets_at, stats, temperature)?;
    let want: Vec<_> =
        logits.chunks(vocab).zip(&targets).map(|(row, &target)| token_stats(row, target, temperature)).collect();
    lab.close("log-probabilities", stats.logprob, &want.iter().map(|stats| stats.logprob).collect::<Vec<_>>())?;
    lab.close("entropies", stats.entropy, &want.iter().map(|stats| stats.entropy).collect::<Vec<_>>())?;

    let (by_logprob_at, by_entropy_at) = (lab.put(&by_logprob)?, lab.put(&by_entropy)?);
    ops::head_backward(&lab.gpu, at, targets_at, stats, by_logprob_at, by_entropy_at, temperature)?;
    let got = lab.read(buffer.as_bf16())?;
    let grads: Vec<TokenGrad> =
        by_logprob.iter().zip(&by_entropy).map(|(&logprob, &entropy)| TokenGrad { logprob, entropy }).collect();
    let want = if vocab <= 1_000 {
        gradient_of_head(&logits, &targets, vocab, temperature, &grads)
    } else {
        gradient_by_formula(&logits, &targets, vocab, temperature, &grads, &want)
    };
    let (mut rows_of_d, mut padding_is_zero) = (Vec::new(), true);
    for row in got.chunks(2 * stride) {
        rows_of_d.extend_from_slice(&row[..vocab]);
        padding_is_zero &= row[vocab..stride].iter().all(|d| *d == 0.0);
    }
    lab.near("gradient", &rows_of_d, &Twin::stored(&want));
    lab.holds("zeros between the rows", padding_is_zero);
    Ok(())
}

/// With the identity as the head's weight, the gradient of the hidden rows is that of the logits.
fn gradient_of_head(logits: &[f32], targets: &[u32], vocab: usize, temperature: f32, grads: &[TokenGrad]) -> Vec<f32> {
    let identity: Vec<f32> = (0..vocab * vocab).map(|i| if i / vocab == i % vocab { 1.0 } else { 0.0 }).collect();
    let head = Head { weight: &identity, hidden: vocab, vocab };
    let pairs: Vec<Pair> = targets.iter().enumerate().map(|(row, &target)| Pair { row, target }).collect();
    // A product with -∞ would be NaN: its neighbors are 0.
    let logits: Vec<f32> = logits.iter().map(|logit| logit.max(-1e30)).collect();
    let mut d = vec![0.0; logits.len()];
    head.backward(&logits, &pairs, temperature, |i, _| grads[i], &mut d);
    d
}

/// The same for a vocabulary for which the identity would be too large.
fn gradient_by_formula(
    logits: &[f32],
    targets: &[u32],
    vocab: usize,
    temperature: f32,
    grads: &[TokenGrad],
    stats: &[TokenStats],
) -> Vec<f32> {
    let mut d = Vec::with_capacity(logits.len());
    for (row, logits) in logits.chunks(vocab).enumerate() {
        let (target, stats, grad) = (targets[row] as usize, &stats[row], &grads[row]);
        let anchor = logits[target] / temperature - stats.logprob;
        d.extend(logits.iter().enumerate().map(|(j, logit)| {
            let ln_p = logit / temperature - anchor;
            let (p, is_target) = (ln_p.exp(), f32::from(j == target));
            let of_entropy = if p == 0.0 { 0.0 } else { p * (ln_p + stats.entropy) };
            (grad.logprob * (is_target - p) - grad.entropy * of_entropy) / temperature
        }));
    }
    d
}

/// Rows and vocabularies of the sampler's cases: one close to the embedded model's, and 7B's. The last 64 logits
/// include 17, and one.
const VOCABULARIES: [(usize, usize); 2] = [(61, 785), (4, 151_937)];

pub fn sampler() -> Vec<SelftestCase> {
    let plain = Sampling::plain(1.0);
    let methods = [
        ("greedy", Sampling::greedy()),
        ("T = 1", plain.clone()),
        ("T = 0.6", Sampling { temperature: 0.6, ..plain.clone() }),
        ("top-k 1", Sampling { top_k: 1, ..plain.clone() }),
        ("top-k 20, T = 1.3", Sampling { top_k: 20, temperature: 1.3, ..plain.clone() }),
        ("top-p 0.9", Sampling { top_p: 0.9, ..plain.clone() }),
        ("top-p 1e-6", Sampling { top_p: 1e-6, ..plain.clone() }),
        ("min-p 0.1", Sampling { min_p: 0.1, ..plain.clone() }),
        ("all of them", Sampling { temperature: 0.8, top_k: 50, top_p: 0.95, min_p: 0.02 }),
    ];
    let mut cases = Vec::new();
    for (rows, vocab) in VOCABULARIES {
        for (name, sampling) in methods.clone() {
            cases.push(SelftestCase::new(format!("{name}, {rows} rows of {vocab}"), move |lab| {
                let mut logits = lab.normals(rows * vocab, 3.0);
                // Values that bf16 does not have, and a token with a logit of -∞.
                logits.iter_mut().for_each(|logit| *logit *= 1.001);
                logits.chunks_mut(vocab).for_each(|row| row[40] = f32::NEG_INFINITY);
                draw(lab, &logits, rows, vocab, &sampling)
            }));
        }
    }
    // Equal logits are kept together, and the first of equal scores wins, whatever their number.
    for (name, sampling) in [
        ("top-k 10", Sampling { top_k: 10, ..plain.clone() }),
        ("top-k 300, top-p 0.5", Sampling { top_k: 300, top_p: 0.5, ..plain.clone() }),
        ("top-p 0.3, min-p 0.05", Sampling { top_p: 0.3, min_p: 0.05, ..plain.clone() }),
        ("greedy", Sampling::greedy()),
    ] {
        let (few, one) = (sampling.clone(), sampling);
        cases.push(SelftestCase::new(format!("{name}, among equal logits"), move |lab| {
            // A few distinct values, and both signs of zero.
            let logits: Vec<f32> = lab.normals(61 * 770, 1.0).iter().map(|x| (x * 2.0).round() / 2.0).collect();
            draw(lab, &logits, 61, 770, &few)
        }));
        cases.push(SelftestCase::new(format!("{name}, all logits equal"), move |lab| {
            draw(lab, &[-1.5; 5 * 770], 5, 770, &one)
        }));
    }
    cases
}

/// Samples a token for each row, at separate positions.
fn draw(lab: &mut Lab, logits: &[f32], rows: usize, vocab: usize, sampling: &Sampling) -> Result<()> {
    let stride = vocab.next_multiple_of(8);
    let places = lab.below(rows, 4_000);
    let seed = lab.stream().u64(0);
    let streams: Vec<Stream> = (0..rows as u64).map(|row| Stream::new(seed, Purpose::Sampling, &[row])).collect();
    let keys: Vec<u32> = streams.iter().flat_map(Stream::key).collect();
    let buffer = lab.put(&spread(logits, vocab, stride))?;
    let (keys_at, places_at) = (lab.put(&keys)?, lab.int(&places)?);
    let (tokens, logprobs) = (lab.poisoned::<u32>(rows)?, lab.poisoned::<f32>(rows)?);
    // Finished rows come first, and nothing is sampled for them.
    let idle = rows / 4;
    let done = lab.int(&(0..rows).map(|row| u32::from(row < idle)).collect::<Vec<_>>())?;
    let at = Logits { buffer, rows, vocab, stride };
    ops::sample(&lab.gpu, at, keys_at, places_at, done, tokens, logprobs, sampling)?;
    let draws = logits.chunks(vocab).zip(streams.iter().zip(&places)).skip(idle);
    let (want_tokens, want): (Vec<u32>, Vec<f32>) =
        draws.map(|(row, (stream, &place))| sampler::sample(row, sampling, stream, u64::from(place))).unzip();
    let got = tokens.download(&lab.gpu)?;
    let other = got[idle..].iter().zip(&want_tokens).filter(|(got, want)| got != want).count();
    lab.value("share of tokens that differ", other as f64 / want.len() as f64, 0.0);
    lab.close("log-probabilities", logprobs.slice(idle..rows), &want)?;
    lab.holds("nothing is sampled for finished rows", got[..idle].iter().all(|&token| token == u32::MAX));
    Ok(())
}
