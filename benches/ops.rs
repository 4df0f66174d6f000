//! A decoder block, forward and backward, compared with the matrix products that it needs.

mod floor;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rft::grpo::learner::Keep;
use rft::model::pack::Pack;
use std::hint::black_box;

const ROWS: usize = 512;

/// One block of a model with 135 M parameters (hidden 576, 9/3 heads, inner 1536) on 512 rows: four groups of a prompt
/// of 64 and four completions of 16.
fn block(criterion: &mut Criterion) {
    let (decoder, adapter) = floor::model(1, 576, (9, 3), 1536, 64);
    let mut pack = Pack::default();
    for group in 0..4 {
        let prompt = floor::tokens(group, 64, 64);
        // A completion of 17 tokens has 16 rows.
        let completion = floor::tokens(10 + group, 17, 64);
        pack.push(&prompt, &[&completion[..]; 4]);
    }
    assert_eq!(pack.tokens.len(), ROWS);
    let d_hidden = vec![1e-3; ROWS * decoder.config.hidden_size];
    let mut grads = vec![0.0; adapter.params.len()];
    let mut pass = || {
        let activations = decoder.forward(Some(&adapter), &pack, Keep::Everything);
        decoder.backward(&adapter, &pack, activations, &d_hidden, &mut grads);
        black_box(&grads);
    };

    // Frozen weights: outputs and input gradients. The adapter: these and its own gradients.
    let (frozen, lora) = floor::block_flops(&decoder, &adapter);
    let flops = ROWS as f64 * (2.0 * frozen + 3.0 * lora);
    let mut group = criterion.benchmark_group("block");
    group.sample_size(20).throughput(Throughput::Elements(flops as u64));
    group.bench_function("forward+backward", |bencher| bencher.iter(&mut pass));
    group.finish();
    floor::report("block, forward and backward, 512 rows", floor::beside_peak(30, pass), flops, ROWS);
}

criterion_group!(benches, block);
criterion_main!(benches);
