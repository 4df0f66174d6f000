//! One AdamW step, compared with the minimum time of its memory accesses.
//!
//! A step reads parameter, gradient and two moments and writes all of them except the gradient: 28 bytes per parameter.
//! `floor` moves the same bytes with almost no arithmetic, so the difference between the two is the cost of the
//! arithmetic. The smaller size is the embedded model's adapter and stays in cache; the larger one does not.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use rft::grpo::adamw::{AdamW, Hyper, global_norm};

const BYTES: u64 = 28;
const CHUNK: usize = 16 * 1024;

fn adamw(criterion: &mut Criterion) {
    let hyper = Hyper { lr: 1e-5, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 };
    let mut group = criterion.benchmark_group("adamw");
    group.sample_size(20);
    for count in [100_000, 20_000_000] {
        let grads: Vec<f32> = (0..count).map(|i| (i % 13) as f32 - 6.0).collect();
        let mut params = vec![0.0_f32; count];
        let mut adamw = AdamW::new(count);
        group.throughput(Throughput::Bytes(BYTES * count as u64));
        group.bench_function(BenchmarkId::new("step", count), |bencher| {
            bencher.iter(|| adamw.step(&mut params, &grads, &hyper, 0.5));
        });
        group.bench_function(BenchmarkId::new("floor", count), |bencher| {
            bencher.iter(|| touch(&mut params, &grads, &mut adamw));
        });
        group.throughput(Throughput::Bytes(4 * count as u64));
        group.bench_function(BenchmarkId::new("global_norm", count), |bencher| {
            bencher.iter(|| black_box(global_norm(&grads, &[0..count / 2, count / 2..count])));
        });
    }
    group.finish();
}

/// The memory accesses of a step without its arithmetic.
fn touch(params: &mut [f32], grads: &[f32], adamw: &mut AdamW) {
    let moments = adamw.m.par_chunks_mut(CHUNK).zip(adamw.v.par_chunks_mut(CHUNK));
    params.par_chunks_mut(CHUNK).zip(grads.par_chunks(CHUNK)).zip(moments).for_each(|((params, grads), (m, v))| {
        for (((param, grad), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
            (*param, *m, *v) = (*param + *m, *m + *grad, *v + *grad);
        }
    });
}

criterion_group!(benches, adamw);
criterion_main!(benches);
