//! Tokens per second of a model of the embedded one's shape, in sampling and training, compared with the products it
//! needs.

mod floor;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rft::device::cpu::decoder::CpuDecoder;
use rft::device::cpu::engine::CpuEngine;
use rft::grpo::learner::Keep;
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::ops::head::TokenGrad;
use rft::rollout::{Engine, Prompt, RolloutRequest, Sampling, Unwatched};
use std::hint::black_box;

const VOCAB: usize = 512;
const PROMPT: usize = 60;

fn tiny() -> (CpuDecoder, Adapter) {
    floor::model(4, 128, (4, 2), 384, VOCAB)
}

/// Completions of 96 tokens, at most eight per prompt.
fn decode(criterion: &mut Criterion) {
    const LENGTH: usize = 96;
    let (decoder, adapter) = tiny();
    let (frozen, lora) = floor::block_flops(&decoder, &adapter);
    let head = 2.0 * (decoder.config.hidden_size * VOCAB) as f64;
    let sampling = Sampling::plain(1.0);
    let mut group = criterion.benchmark_group("decode");
    for rows in [1, 8, 32, 128] {
        let count = usize::div_ceil(rows, 8) as u64;
        let prompts: Vec<Prompt> =
            (0..count).map(|key| Prompt { ids: floor::tokens(key, PROMPT, VOCAB), key }).collect();
        let request = RolloutRequest {
            prompts: &prompts,
            num_generations: rows.min(8),
            sampling: &sampling,
            max_completion_length: LENGTH,
            seed: 1,
            step: 1,
            ends: &|_| false,
            stop_tokens: &[],
        };
        let mut engine = CpuEngine { decoder: &decoder, max_rows: rows };
        let mut generate = || {
            black_box(engine.generate(Some(&adapter), &request, &mut Unwatched).expect("prompts are not empty"));
        };
        let drawn = rows * LENGTH;
        group.sample_size(10).throughput(Throughput::Elements(drawn as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| bencher.iter(&mut generate));
        // The first token of a completion comes from the prefill.
        let through = (drawn - rows + prompts.len() * PROMPT) as f64;
        let flops = through * (frozen + lora) + drawn as f64 * head;
        floor::report(
            &format!("decode, {rows} rows of {LENGTH} tokens"),
            floor::beside_peak(5, generate),
            flops,
            drawn,
        );
    }
    group.finish();
}

/// One gradient pass over 16 groups of a prompt and 8 completions of 60 tokens.
fn train(criterion: &mut Criterion) {
    let (decoder, adapter) = tiny();
    let mut pack = Pack::default();
    for group in 0..16 {
        let completions: Vec<Vec<u32>> = (0..8).map(|b| floor::tokens(100 + 8 * group + b, 60, VOCAB)).collect();
        pack.push(&floor::tokens(group, PROMPT, VOCAB), &completions.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    let mut grads = vec![0.0; adapter.params.len()];
    let mut pass = || {
        let activations = decoder.forward(Some(&adapter), &pack, Keep::Everything);
        let mut d_hidden = vec![0.0; activations.hidden.len()];
        let grad = |_, _| TokenGrad { logprob: 1e-3, entropy: 0.0 };
        decoder.head().backward(&activations.hidden, &pack.pairs, 1.0, grad, &mut d_hidden);
        decoder.backward(&adapter, &pack, activations, &d_hidden, &mut grads);
        black_box(&grads);
    };
    let rows = pack.tokens.len();
    let (frozen, lora) = floor::block_flops(&decoder, &adapter);
    let head = 2.0 * (decoder.config.hidden_size * VOCAB) as f64;
    let flops = rows as f64 * (2.0 * frozen + 3.0 * lora) + pack.pairs.len() as f64 * 2.0 * head;
    let mut group = criterion.benchmark_group("train");
    group.sample_size(10).throughput(Throughput::Elements(rows as u64));
    group.bench_function("pass", |bencher| bencher.iter(&mut pass));
    group.finish();
    floor::report(&format!("gradient pass, {rows} rows"), floor::beside_peak(5, pass), flops, rows);
}

criterion_group!(benches, decode, train);
criterion_main!(benches);
