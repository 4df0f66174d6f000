//! Every operation of the fast path, compared with an independent implementation in f64: its values, and its gradient
//! with differences of those values.

use rayon::prelude::*;
use rft::model::config::{Architecture, Llama3Scaling, ModelConfig};
use rft::ops::attention::{self, Heads, Part};
use rft::ops::head::{Head, Pair, TokenGrad};
use rft::ops::linear::Linear;
use rft::ops::lora::{LoraGroup, LoraPart};
use rft::ops::rope::RopeTable;
use rft::ops::{qk_norm, rms_norm, swiglu};
use rft::rng::{Purpose, Stream};

/// Maximum error of an f32 value or derivative, as a share of the largest of its kind.
const TOLERANCE: f64 = 1e-5;
/// Step of the differences: in f64 both their truncation and their rounding stay below 1e-8.
const STEP: f64 = 1e-4;
/// Number of elements that are moved one by one; if there are more, they are selected at random.
const ELEMENTS: usize = 100;

/// Standard normal values, different for every `path`.
fn normal(path: u64, len: usize) -> Vec<f32> {
    let stream = Stream::new(21, Purpose::Test, &[path]);
    (0..len as u64).map(|i| stream.normal(i) as f32).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn greatest(x: impl IntoIterator<Item = f64>) -> f64 {
    x.into_iter().map(f64::abs).fold(0.0, f64::max)
}

fn close(what: &str, got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    let error = greatest(wide(got).iter().zip(expected).map(|(got, expected)| got - expected));
    let size = greatest(expected.iter().copied());
    assert!(error <= TOLERANCE * size, "{what}: error {error:.2e} among values up to {size:.2e}");
}

/// Compares the outputs `y` with `exact(x)`, and the gradient `dx` with differences of Σ dyᵢ·exact(x)ᵢ: along single
/// elements, and along directions that move all of them.
fn check(what: &str, exact: impl Fn(&[f64]) -> Vec<f64> + Sync, x: &[f32], y: &[f32], dy: &[f32], dx: &[f32]) {
    let x = wide(x);
    close(&format!("value of {what}"), y, &exact(&x));
    assert_eq!((dx.len(), dy.len()), (x.len(), y.len()), "{what}: sizes of the gradients");

    let stream = Stream::new(22, Purpose::Test, &[]);
    let elements: Vec<usize> = if x.len() <= ELEMENTS {
        (0..x.len()).collect()
    } else {
        (0..ELEMENTS as u64).map(|i| stream.below(i, x.len() as u64) as usize).collect()
    };
    let mut directions: Vec<Vec<(usize, f64)>> = elements.into_iter().map(|i| vec![(i, 1.0)]).collect();
    for path in 0..4 {
        let direction = wide(&normal(1000 + path, x.len()));
        let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        directions.push(direction.into_iter().map(|d| d / length).enumerate().collect());
    }
    let size = greatest(wide(dx));
    directions.par_iter().for_each(|direction| {
        let loss = |step: f64| {
            let mut moved = x.clone();
            direction.iter().for_each(|&(i, d)| moved[i] += step * d);
            exact(&moved).iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum::<f64>()
        };
        let expected = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        let got: f64 = direction.iter().map(|&(i, d)| f64::from(dx[i]) * d).sum();
        let (error, first) = ((got - expected).abs(), direction[0].0);
        assert!(
            error <= TOLERANCE * size,
            "gradient of {what}, {} elements from {first}: {got}, expected from differences {expected}",
            direction.len()
        );
    });
}

/// x (rows, inner) · wᵀ for w (outputs, inner).
fn times_transposed(x: &[f64], w: &[f64], inner: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum();
    x.chunks(inner).flat_map(|x| w.chunks(inner).map(move |w| dot(x, w))).collect()
}

#[test]
fn linear() {
    for (rows, inputs, outputs) in [(1, 24, [8, 16]), (5, 40, [7, 3]), (3, 600, [70, 1])] {
        let parts = outputs.map(|outputs| normal(outputs as u64, outputs * inputs));
        let bias = normal(3, outputs[0]);
        let linear = Linear::join(inputs, &[(&parts[0], Some(&bias)), (&parts[1], None)]);
        let weight = wide(&parts.concat());
        let exact = |x: &[f64]| {
            let mut y = times_transposed(x, &weight, inputs);
            for row in y.chunks_mut(outputs[0] + outputs[1]) {
                row.iter_mut().zip(&bias).for_each(|(y, &bias)| *y += f64::from(bias));
            }
            y
        };
        let (x, dy) = (normal(1, rows * inputs), normal(2, rows * (outputs[0] + outputs[1])));
        check("a linear layer", exact, &x, &linear.forward(&x), &dy, &linear.backward(&dy));
    }
}

/// Two adapted layers around one that is not adapted, on one and on several rows: gradients of the input, of A and of
/// B.
#[test]
fn lora() {
    let (rank, outputs, scale) = (3, 8 + 4 + 6, 1.5);
    for (rows, inputs) in [(1, 20), (4, 33), (70, 12)] {
        let a = 0..2 * rank * inputs;
        let q = a.end..a.end + rank * 8;
        let v = q.end..q.end + rank * 6;
        let group = LoraGroup {
            rank,
            scale: scale as f32,
            a: a.clone(),
            parts: vec![LoraPart { b: q.clone(), columns: 0..8 }, LoraPart { b: v.clone(), columns: 12..18 }],
        };
        let (x, params) = (normal(1, rows * inputs), normal(2, v.end));
        let (base, dy) = (normal(3, rows * outputs), normal(4, rows * outputs));
        let exact = |x: &[f64], params: &[f64]| {
            let shrunk = times_transposed(x, &params[a.clone()], inputs);
            let mut y = wide(&base);
            for (shrunk, y) in shrunk.chunks(2 * rank).zip(y.chunks_mut(outputs)) {
                for r in 0..rank {
                    (0..8).for_each(|o| y[o] += scale * shrunk[r] * params[q.start + r * 8 + o]);
                    (0..6).for_each(|o| y[12 + o] += scale * shrunk[rank + r] * params[v.start + r * 6 + o]);
                }
            }
            y
        };
        let mut y = base.clone();
        let shrunk = group.forward(&params, &x, inputs, &mut y, outputs);
        let (mut dx, mut grads) = (vec![0.0; x.len()], vec![0.0; params.len()]);
        group.backward(&params, &x, inputs, &shrunk, &dy, outputs, &mut dx, &mut grads);
        check("LoRA in its input", |x| exact(x, &wide(&params)), &x, &y, &dy, &dx);
        check("LoRA in its A and B", |params| exact(&wide(&x), params), &params, &y, &dy, &grads);
    }
}

fn rms_norm_exact(x: &[f64], weight: &[f32], eps: f32) -> Vec<f64> {
    let norm = |x: &[f64]| {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter().zip(weight).map(|(x, &weight)| x * scale * f64::from(weight)).collect::<Vec<_>>()
    };
    x.chunks(weight.len()).flat_map(norm).collect()
}

/// The residual stream is used twice: through the norm, and unchanged. So its gradient is the sum of two.
#[test]
fn rms_norm_with_its_residual() {
    for (rows, width) in [(1, 4), (3, 40), (2, 130), (35, 8)] {
        let (eps, weight) = (1e-2, normal(1, width));
        let (x, delta) = (normal(2, rows * width), normal(3, rows * width));
        let (dy, d_stream) = (normal(4, rows * width), normal(5, rows * width));
        let exact = |x: &[f64], delta: &[f64]| {
            let stream: Vec<f64> = x.iter().zip(delta).map(|(x, delta)| x + delta).collect();
            [rms_norm_exact(&stream, &weight, eps), stream].concat()
        };
        let mut stream = x.clone();
        let (y, scales) = rms_norm::forward_residual(&mut stream, &delta, &weight, eps);
        let mut dx = d_stream.clone();
        rms_norm::backward(&dy, &stream, &scales, &weight, &mut dx);
        let (outputs, d_outputs) = ([y.clone(), stream.clone()].concat(), [dy, d_stream].concat());
        check("the norm in x", |x| exact(x, &wide(&delta)), &x, &outputs, &d_outputs, &dx);
        check("the norm in delta", |delta| exact(&wide(&x), delta), &delta, &outputs, &d_outputs, &dx);
        assert_eq!(rms_norm::recompute(&stream, &scales, &weight), y);
        assert_eq!(rms_norm::forward(&stream, &weight, eps), (y, scales));
    }
}

#[test]
fn norms_on_the_heads_of_q_and_k() {
    let heads = Heads { query: 4, kv: 2, dim: 12 };
    let (q_weight, k_weight) = (normal(1, heads.dim), normal(2, heads.dim));
    let (x, dy) = (normal(3, 5 * heads.qkv_width()), normal(4, 5 * heads.qkv_width()));
    let exact = |x: &[f64]| {
        let of_row = |row: &[f64]| {
            let (q, rest) = row.split_at(heads.query * heads.dim);
            let (k, v) = rest.split_at(heads.kv * heads.dim);
            [rms_norm_exact(q, &q_weight, 1e-3), rms_norm_exact(k, &k_weight, 1e-3), v.to_vec()].concat()
        };
        x.chunks(heads.qkv_width()).flat_map(of_row).collect()
    };
    let (mut y, mut dx) = (x.clone(), dy.clone());
    let saved = qk_norm::forward(heads, &mut y, &q_weight, &k_weight, 1e-3);
    qk_norm::backward(heads, &saved, &mut dx, &q_weight, &k_weight);
    check("norms on heads", exact, &x, &y, &dy, &dx);
}

/// The angle in f32, as in the models' training; everything after it in f64.
#[test]
fn rotary_positions() {
    for rope_scaling in [
        None,
        Some(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        }),
    ] {
        let config = ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 1,
            hidden_size: 16,
            intermediate_size: 1,
            num_hidden_layers: 1,
            num_attention_heads: 3,
            num_key_value_heads: 1,
            head_dim: 16,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            rope_scaling,
            qkv_bias: false,
            qk_norm: false,
            tie_word_embeddings: false,
            max_position_embeddings: 4096,
            eos_token_ids: vec![],
        };
        let frequency = |i: usize| {
            let base = 1e4f64.powf(-2.0 * i as f64 / 16.0);
            // A wave of more than 64 / 1 positions is slowed 8 times, one of less than 64 / 4 is unchanged.
            let turns = 64.0 * base / std::f64::consts::TAU;
            let kept = ((turns - 1.0) / (4.0 - 1.0)).clamp(0.0, 1.0);
            if rope_scaling.is_some() { base * (kept + (1.0 - kept) / 8.0) } else { base }
        };
        let (positions, stride, heads) = ([0, 1, 7, 300, 4000, 7], 5 * 16, 4);
        let exact = |x: &[f64]| {
            let mut y = x.to_vec();
            for (row, position) in y.chunks_mut(stride).zip(positions) {
                for head in row[..heads * 16].chunks_mut(16) {
                    for i in 0..8 {
                        let (sin, cos) = f64::from(position as f32 * frequency(i) as f32).sin_cos();
                        let (a, b) = (head[i], head[8 + i]);
                        (head[i], head[8 + i]) = (a * cos - b * sin, a * sin + b * cos);
                    }
                }
            }
            y
        };
        let table = RopeTable::new(&config.rope_frequencies(), 4096);
        let (x, dy) = (normal(1, 6 * stride), normal(2, 6 * stride));
        let (mut y, mut dx) = (x.clone(), dy.clone());
        table.forward(&mut y, stride, heads, &positions);
        table.backward(&mut dx, stride, heads, &positions);
        check("rotary positions", exact, &x, &y, &dy, &dx);
    }
}

#[test]
fn swiglu_also_far_from_zero() {
    for (rows, width) in [(1, 5), (40, 3), (2, 50)] {
        let mut x = normal(1, rows * 2 * width);
        x[..4].copy_from_slice(&[-30.0, 30.0, -1e-3, 0.0]);
        let exact = |x: &[f64]| {
            let of_row =
                |row: &[f64]| (0..width).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[width + i]).collect::<Vec<_>>();
            x.chunks(2 * width).flat_map(of_row).collect()
        };
        let dy = normal(2, rows * width);
        let mut dx = x.clone();
        swiglu::backward(&dy, &mut dx, width);
        check("swiglu", exact, &x, &swiglu::forward(&x, width), &dy, &dx);
    }
    // Where the exponential would overflow, the result is the limit to within f32.
    let mut extreme = [-200.0, 200.0, -1e30, 1e30, 1.0, 1.0, 1.0, 1.0];
    let is = |got: &[f32], limit: [f32; 4]| got.iter().zip(limit).all(|(got, limit)| (got - limit).abs() < 1e-7);
    assert!(is(&swiglu::forward(&extreme, 4), [0.0, 200.0, 0.0, 1e30]));
    swiglu::backward(&[1.0; 4], &mut extreme, 4);
    assert!(is(&extreme[..4], [0.0, 1.0, 0.0, 1.0]) && is(&extreme[4..], [0.0, 200.0, 0.0, 1e30]), "{extreme:?}");
}

/// Outputs of all rows, then the log-sum-exp of every query.
fn attention_exact(heads: Heads, qkv: &[f64], parts: &[Part]) -> Vec<f64> {
    let Heads { query, kv, dim } = heads;
    let rows = qkv.len() / heads.qkv_width();
    let (mut out, mut lse) = (vec![0.0; rows * query * dim], vec![0.0; rows * query]);
    let of = |row: usize, head: usize| &qkv[row * heads.qkv_width() + head * dim..][..dim];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for part in parts {
        for (i, sequence) in std::iter::once(&part.prompt).chain(&part.branches).enumerate() {
            let context = if i == 0 { 0..0 } else { part.prompt.clone() };
            for row in sequence.clone() {
                let seen: Vec<usize> = context.clone().chain(sequence.start..=row).collect();
                for head in 0..query {
                    let shared = head / (query / kv);
                    let scores = seen.iter().map(|&key| dot(of(row, head), of(key, query + shared)));
                    let scores: Vec<f64> = scores.map(|score| score / (dim as f64).sqrt()).collect();
                    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
                    lse[row * query + head] = highest + total.ln();
                    let out = &mut out[(row * query + head) * dim..][..dim];
                    for (score, &key) in scores.iter().zip(&seen) {
                        let share = (score - highest).exp() / total;
                        out.iter_mut().zip(of(key, query + kv + shared)).for_each(|(out, v)| *out += share * v);
                    }
                }
            }
        }
    }
    [out, lse].concat()
}

/// A prompt and completions of these lengths, starting at row `first`.
fn part(first: usize, prompt: usize, completions: &[usize]) -> Part {
    let mut end = first + prompt;
    let mut next = |len: &usize| {
        end += len;
        end - len..end
    };
    Part { prompt: first..first + prompt, branches: completions.iter().map(&mut next).collect() }
}

fn check_attention(heads: Heads, parts: &[Part], spread: f32) {
    let rows = parts.iter().flat_map(|part| part.branches.iter().chain([&part.prompt])).map(|span| span.end);
    let rows = rows.max().unwrap();
    let mut qkv = normal(1, rows * heads.qkv_width());
    qkv.iter_mut().for_each(|x| *x *= spread);
    let d_out = normal(2, rows * heads.out_width());
    let (out, lse) = attention::forward(heads, &qkv, parts);
    let dx = attention::backward(heads, &qkv, parts, &out, &lse, &d_out);
    let d_both = [d_out, vec![0.0; lse.len()]].concat();
    let exact = |qkv: &[f64]| attention_exact(heads, qkv, parts);
    check(&format!("attention with {heads:?}"), exact, &qkv, &[out, lse].concat(), &d_both, &dx);
}

#[test]
fn attention_of_small_groups() {
    let parts = [part(0, 5, &[3, 0, 1]), part(9, 1, &[1, 1]), part(12, 2, &[])];
    for (query, kv) in [(1, 1), (3, 3), (4, 2), (7, 1), (14, 2)] {
        for dim in [4, 16, 20] {
            check_attention(Heads { query, kv, dim }, &parts, 1.0);
        }
    }
}

/// Prompts and completions of one key less than a block, a block, and one more.
#[test]
fn attention_across_blocks_of_keys() {
    let parts = [part(0, 65, &[63, 64, 65]), part(257, 64, &[1, 0, 2])];
    check_attention(Heads { query: 4, kv: 2, dim: 4 }, &parts, 1.0);
    check_attention(Heads { query: 2, kv: 2, dim: 16 }, &parts, 1.0);
    check_attention(Heads { query: 7, kv: 1, dim: 64 }, &[part(0, 66, &[65, 1, 0])], 1.0);
    check_attention(Heads { query: 2, kv: 1, dim: 4 }, &[part(0, 130, &[140])], 1.0);
}

/// Scores of several tens: the running maximum changes from block to block.
#[test]
fn attention_to_few_keys() {
    check_attention(Heads { query: 2, kv: 1, dim: 16 }, &[part(0, 70, &[90, 2])], 3.0);
}

/// Log-probability and entropy of every pair, with pairs that share a row as the completions of a group do.
#[test]
fn head() {
    for (vocab, hidden, count, temperature) in [(61, 12, 9, 1.0), (61, 12, 9, 0.7), (333, 7, 300, 1.3)] {
        let rows = 6;
        let (weight, x) = (normal(1, hidden * vocab), normal(2, rows * hidden));
        let stream = Stream::new(23, Purpose::Test, &[]);
        let pair = |i: u64| Pair {
            row: if i < 3 { 2 } else { stream.below(2 * i, rows as u64) as usize },
            target: stream.below(2 * i + 1, vocab as u64) as u32,
        };
        let pairs: Vec<Pair> = (0..count).map(pair).collect();
        let exact = |x: &[f64]| {
            let of_pair = |pair: &Pair| {
                let row = &x[pair.row * hidden..][..hidden];
                let logit = |token: usize| {
                    let sum: f64 = (0..hidden).map(|i| row[i] * f64::from(weight[i * vocab + token])).sum();
                    sum / f64::from(temperature)
                };
                let logits: Vec<f64> = (0..vocab).map(logit).collect();
                let total = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
                let entropy = -logits.iter().map(|z| (z - total).exp() * (z - total)).sum::<f64>();
                [logits[pair.target as usize] - total, entropy]
            };
            pairs.iter().flat_map(of_pair).collect()
        };
        let head = Head { weight: &weight, hidden, vocab };
        let dy = normal(3, 2 * pairs.len());
        let mut dx = vec![0.0; x.len()];
        let grad = |i: usize, _| TokenGrad { logprob: dy[2 * i], entropy: dy[2 * i + 1] };
        let stats = head.backward(&x, &pairs, temperature, grad, &mut dx);
        let y: Vec<f32> = stats.iter().flat_map(|stats| [stats.logprob, stats.entropy]).collect();
        check("the head", exact, &x, &y, &dy, &dx);
        assert_eq!(stats, head.forward(&x, &pairs, temperature), "both passes see the same logits");
    }
}
