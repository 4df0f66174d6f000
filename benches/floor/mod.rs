//! Shared by the benches of the model: a model with random weights, and the floor that their times are compared with.

use rft::config::LoraSection;
use rft::device::cpu::decoder::CpuDecoder;
use rft::model::config::ModelConfig;
use rft::model::lora::Adapter;
use rft::model::weights::RandomWeights;
use rft::ops::matmul::{Output, View, add_product};
use rft::rng::{Purpose, Stream};
use std::time::Instant;

/// A Qwen2 decoder with a LoRA adapter of rank 16 on every linear layer.
pub fn model(layers: usize, hidden: usize, heads: (usize, usize), inner: usize, vocab: usize) -> (CpuDecoder, Adapter) {
    let config = ModelConfig::qwen2(layers, hidden, heads, inner, vocab);
    let adapter = Adapter::new(&config, &LoraSection::all_linear(16), 1).expect("a valid section");
    let decoder = CpuDecoder::load(config.clone(), &RandomWeights::new(&config, 1), 1024).expect("random weights load");
    (decoder, adapter)
}

pub fn tokens(path: u64, len: usize, vocab: usize) -> Vec<u32> {
    let stream = Stream::new(1, Purpose::Test, &[path]);
    (0..len as u64).map(|i| stream.below(i, vocab as u64) as u32).collect()
}

/// FLOPs of one row through the linear layers of all blocks: of the frozen weights, and of the adapter.
pub fn block_flops(decoder: &CpuDecoder, adapter: &Adapter) -> (f64, f64) {
    let head = decoder.config.hidden_size * decoder.config.vocab_size;
    (2.0 * (decoder.weight_bytes() / 4 - head) as f64, 2.0 * adapter.params.len() as f64)
}

/// Minimum seconds of `work`, and the FLOP/s of a 512x576x576 product measured in turn, under the same conditions.
pub fn beside_peak(rounds: usize, mut work: impl FnMut()) -> (f64, f64) {
    let (x, w, mut y) = (vec![1.0; 512 * 576], vec![1.0; 576 * 576], vec![0.0; 512 * 576]);
    let mut product = || {
        let (x, w) = (View::new(&x, 512, 576), View::new(&w, 576, 576));
        (0..4).for_each(|_| add_product(Output::new(&mut y, 576), 1.0, x, w));
    };
    let (mut least, mut least_product) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        least = least.min(seconds(&mut work));
        least_product = least_product.min(seconds(&mut product));
    }
    (least, 4.0 * 2.0 * 512.0 * 576.0 * 576.0 / least_product)
}

fn seconds(work: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Prints one figure: a time, a rate if there is one, and the ratio of the time to that of its products alone.
pub fn report(what: &str, (seconds, peak): (f64, f64), flops: f64, tokens: usize) {
    println!(
        "{what:44} {:9.2} ms  {:9.0} tokens/s  {:5.2} x floor ({:.0} GFLOP/s)",
        seconds * 1e3,
        tokens as f64 / seconds,
        seconds * peak / flops,
        peak * 1e-9
    );
}
