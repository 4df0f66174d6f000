//! The calculated cost of a step: launches, bytes and operations by kernel and product, and an estimate of their time.
//!
//! The functions that decode and train run on a GPU that records the work, so the counts are those of real steps. Each [`Rule`]
//! estimates a time from them, on an H200; none of the rules was measured. The floor is the time of an ideal implementation
//! at the copy bandwidth and the rate of a large product.

use crate::config::{DistillKl, RunConfig};
use crate::device::Extent;
use crate::device::cuda::learner::CudaLearner;
use crate::device::cuda::record::{Copy, CopyKind, Issued, Launch, Product, Recorder};
use crate::device::cuda::steps::{DecodeSetup, micro_batch, sequences};
use crate::device::cuda::weights::WeightOrigin;
use crate::device::cuda::{Gpu, Shared};
use crate::device::memory::DECODE_STEPS;
use crate::device::memory::lora::LoraColumns;
use crate::device::memory::plan::cache_bytes_per_token;
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::model::lora::{Adapter, Target};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes per second of a large copy (read and written), and operations per second of a large bf16 product.
pub const BANDWIDTH: f64 = 4.3e12;
pub const FLOPS: f64 = 790e12;
/// Multiprocessors, and blocks of the sampler and of attention that each of them runs at the same time.
const MULTIPROCESSORS: f64 = 132.0;
const SAMPLER_BLOCKS: f64 = 2.0;
const SPAN_BLOCKS: f64 = 3.0;

/// Rows of a decode step, and the keys that each of them sees.
const DECODE_ROWS: [usize; 3] = [8, 64, 256];
const CONTEXT: usize = 1_024;
/// Rows of a micro-batch, and of each of its sequences.
const TRAIN_ROWS: usize = 16_384;
const TRAIN_LENGTHS: [usize; 2] = [1_024, 4_096];

/// A rule that estimates a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    DecodeWeights,
    DecodeHead,
    DecodeAdapter,
    DecodeSpans,
    DecodeSum,
    DecodeKernel,
    Sampler,
    LaunchGap,
    HostReport,
    TrainWeights,
    TrainHead,
    TrainAdapter,
    AttentionForward,
    AttentionBackward,
    MemoryBound,
    /// Copies between host and device during training.
    NotEstimated,
}

impl Rule {
    /// A description of the assumption.
    pub fn assumption(self) -> &'static str {
        match self {
            Self::DecodeWeights => "bytes at 80 % of the copy bandwidth, or operations at 80 % of the product rate",
            Self::DecodeHead => "bytes at 85 % of the copy bandwidth, or operations at 80 % of the product rate",
            Self::DecodeAdapter => "2.5 µs + bytes at 60 % of the copy bandwidth, at least 3.5 µs",
            Self::DecodeSpans => {
                "bytes read at 82 % of the copy bandwidth + 0.45 µs for a block without keys, 396 at the same time"
            }
            Self::DecodeSum => "2.5 µs + bytes at the copy bandwidth",
            Self::DecodeKernel => "2 µs + bytes at the copy bandwidth, at least 2.2 µs",
            Self::Sampler => {
                "35 µs + 115 µs for every 264 rows (two blocks on each of 132 multiprocessors), or 60 µs of arithmetic for every 132"
            }
            Self::LaunchGap => "1 µs between two launches of a graph",
            Self::HostReport => "80 µs per step",
            Self::TrainWeights => "operations at 720 TFLOP/s",
            Self::TrainHead => "operations at 650 TFLOP/s",
            Self::TrainAdapter => "bytes at 70 % of the copy bandwidth, or operations at 720 TFLOP/s",
            Self::AttentionForward => "operations at 300 TFLOP/s",
            Self::AttentionBackward => "operations at 220 TFLOP/s",
            Self::MemoryBound => "bytes at 85 % of the copy bandwidth",
            Self::NotEstimated => "not estimated",
        }
    }

    /// Seconds of one launch of this work.
    fn seconds(self, work: &LaunchWork) -> f64 {
        let bytes = work.read + work.written;
        let at = |share: f64| bytes / BANDWIDTH / share;
        match self {
            Self::DecodeWeights => at(0.80).max(work.flops / FLOPS / 0.80),
            Self::DecodeHead => at(0.85).max(work.flops / FLOPS / 0.80),
            Self::DecodeAdapter => (2.5e-6 + at(0.60)).max(3.5e-6),
            Self::DecodeSpans => {
                let empty = work.idle_blocks / (MULTIPROCESSORS * SPAN_BLOCKS) * 0.45e-6;
                work.read / BANDWIDTH / 0.82 + empty
            }
            Self::DecodeSum => 2.5e-6 + at(1.0),
            Self::DecodeKernel => (2e-6 + at(1.0)).max(2.2e-6),
            Self::Sampler => {
                let waves = (work.blocks / (MULTIPROCESSORS * SAMPLER_BLOCKS)).ceil();
                35e-6 + (115e-6 * waves).max(60e-6 * (work.blocks / MULTIPROCESSORS).ceil())
            }
            Self::LaunchGap => 1e-6,
            Self::HostReport => 80e-6,
            Self::TrainWeights => work.flops / 720e12,
            Self::TrainHead => work.flops / 650e12,
            Self::TrainAdapter => at(0.70).max(work.flops / 720e12),
            Self::AttentionForward => work.flops / 300e12,
            Self::AttentionBackward => work.flops / 220e12,
            Self::MemoryBound => at(0.85),
            Self::NotEstimated => 0.0,
        }
    }
}

/// The work of one launch.
#[derive(Clone, Copy, Debug, Default)]
struct LaunchWork {
    read: f64,
    written: f64,
    flops: f64,
    blocks: f64,
    idle_blocks: f64,
}

/// All launches of a kernel, or all products of a shape.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// The kernel's name, or the product's sizes.
    pub name: String,
    pub times: usize,
    /// Bytes read and written; each operand counts once.
    pub bytes: f64,
    /// Operations on tensor cores.
    pub flops: f64,
    pub seconds: f64,
    pub rule: Rule,
    pub assumption: &'static str,
}

/// The cost of a decode step or of a training micro-batch.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub name: String,
    /// Number of generated tokens, or of training rows.
    pub tokens: usize,
    /// Kernels and products.
    pub launches: usize,
    /// The bytes and operations of an ideal implementation. Weights are read once.
    pub floor_bytes: f64,
    pub floor_flops: f64,
    pub floor_seconds: f64,
    pub seconds: f64,
    /// The floor's share of the estimate.
    pub share: f64,
    pub tokens_per_second: f64,
    /// The slowest come first.
    pub items: Vec<Item>,
}

/// Steps of decoding and micro-batches of training of `model` on an H200, with the adapter and the checkpointing of `config`.
pub fn of(model: &ModelConfig, config: &RunConfig) -> Result<Vec<Cost>> {
    let counter = Counter::new(model, config)?;
    let decoding = DECODE_ROWS.iter().map(|&rows| counter.decode(rows, CONTEXT));
    let training = TRAIN_LENGTHS.iter().map(|&length| counter.train(TRAIN_ROWS, length));
    decoding.chain(training).collect()
}

/// A model on a recorded GPU.
struct Counter {
    recorder: Rc<Recorder>,
    shared: Shared,
    adapter: Adapter,
    keep: Keep,
    distill: Option<DistillKl>,
}

impl Counter {
    fn new(model: &ModelConfig, config: &RunConfig) -> Result<Self> {
        let recorder = Rc::new(Recorder::default());
        let adapter = Adapter::zeros(model, &config.lora)?;
        let keep = if config.train.gradient_checkpointing { Keep::Inputs } else { Keep::Everything };
        let positions = CONTEXT.max(TRAIN_LENGTHS[1]) + DECODE_STEPS;
        let extent =
            Extent { positions, max_rows: DECODE_ROWS[2], working_bytes: None, keep: Some(keep), taught: false };
        let gpu = Rc::new(Gpu::recorded(recorder.clone()));
        let shared = Shared::on(gpu, model.clone(), &WeightOrigin::Random(1), Some(&adapter), &extent)?;
        Ok(Self { recorder, shared, adapter, keep, distill: config.distilled() })
    }

    fn decode(&self, rows: usize, context: usize) -> Result<Cost> {
        let model = &self.shared.decoder.config;
        let mut step = DecodeSetup::set_up(&self.shared, rows, context)?;
        self.recorder.drain();
        step.issue(&self.shared)?;
        let mut items = Items::default();
        for issued in self.recorder.drain() {
            items.add(&issued, |issued| self.decode_rule(issued));
        }
        let launches = items.launches;
        items.insert("gaps between launches".to_owned(), launches, LaunchWork::default(), Rule::LaunchGap);
        step.look(&self.shared)?;
        let copied: usize =
            self.recorder.drain().iter().map(|it| if let Issued::Copy(it) = it { it.bytes } else { 0 }).sum();
        let copied = LaunchWork { read: copied as f64 / DECODE_STEPS as f64, ..LaunchWork::default() };
        items.insert(format!("host: report and rows, once in {DECODE_STEPS} steps"), 1, copied, Rule::HostReport);

        let weights = linear_weights(model) as f64;
        let keys = (rows * context) as f64 * cache_bytes_per_token(model) as f64;
        let attention = 4.0 * (rows * context) as f64 * width(model);
        let (products, computed) = (2.0 * weights, 2.0 * weights * rows as f64);
        let floor = (products / BANDWIDTH).max(computed / FLOPS) + keys / BANDWIDTH;
        let name = format!("decode, {rows} rows, context {context}");
        Ok(items.cost(name, rows, (products + keys, computed + attention, floor)))
    }

    fn train(&self, rows: usize, length: usize) -> Result<Cost> {
        let model = &self.shared.decoder.config;
        let pack = sequences(rows, length);
        self.recorder.drain();
        micro_batch(&mut CudaLearner::new(&self.shared), &self.adapter, &pack, self.keep, self.distill)?;
        let mut items = Items::default();
        for issued in self.recorder.drain() {
            items.add(&issued, |issued| self.train_rule(issued));
        }
        // Four operations a frozen weight, which has no gradient, and six one of the adapter. Attention: 4 forward and 10 back.
        // The teacher's pass is forward only.
        let teacher = if self.distill.is_some() { 1.0 } else { 0.0 };
        let attention = (14.0 + 4.0 * teacher) * width(model) * length as f64 / 2.0;
        let weights = (4.0 + 2.0 * teacher) * linear_weights(model) as f64;
        let flops = weights + 6.0 * self.adapter.params.len() as f64 + attention;
        let flops = flops * pack.tokens.len() as f64;
        let again = if self.keep == Keep::Inputs { ", blocks computed twice" } else { "" };
        let taught = if self.distill.is_some() { ", with the teacher's pass" } else { "" };
        let name = format!("train, {rows} rows, length {length}{again}{taught}");
        Ok(items.cost(name, pack.tokens.len(), (2.0 * linear_weights(model) as f64, flops, flops / FLOPS)))
    }

    fn decode_rule(&self, issued: &Issued) -> Rule {
        match issued {
            Issued::Product(product) => match self.operand(product) {
                ProductOperand::Weights => Rule::DecodeWeights,
                ProductOperand::Head => Rule::DecodeHead,
                ProductOperand::Adapter => Rule::DecodeAdapter,
            },
            Issued::Launch(launch) => match launch.kernel {
                "sampler_f32" => Rule::Sampler,
                name if name.starts_with("decode_attention_spans") => Rule::DecodeSpans,
                name if name.starts_with("decode_attention_sum") => Rule::DecodeSum,
                _ => Rule::DecodeKernel,
            },
            Issued::Copy(_) => Rule::NotEstimated,
        }
    }

    fn train_rule(&self, issued: &Issued) -> Rule {
        match issued {
            Issued::Product(product) => match self.operand(product) {
                ProductOperand::Weights => Rule::TrainWeights,
                ProductOperand::Head => Rule::TrainHead,
                ProductOperand::Adapter => Rule::TrainAdapter,
            },
            Issued::Launch(launch) => match launch.kernel {
                name if name.starts_with("branch_attention_forward") => Rule::AttentionForward,
                name if name.starts_with("branch_attention_backward_queries") => Rule::AttentionBackward,
                name if name.starts_with("branch_attention_backward_keys") => Rule::AttentionBackward,
                _ => Rule::MemoryBound,
            },
            Issued::Copy(copy) => match copy.kind {
                CopyKind::Across | CopyKind::Fill => Rule::MemoryBound,
                CopyKind::Up | CopyKind::Down => Rule::NotEstimated,
            },
        }
    }

    /// The part of the model that is an operand of a product, determined from the product's sizes.
    fn operand(&self, product: &Product) -> ProductOperand {
        let model = &self.shared.decoder.config;
        let Product { n, k, adds, f32_out, .. } = *product;
        if [n, k].contains(&model.vocab_size) {
            return ProductOperand::Head;
        }
        let LoraColumns { qkv, o, gate_up, down } = LoraColumns::of(&self.adapter.blocks[0]);
        let widths = [model.heads().qkv_width(), model.heads().out_width(), model.hidden_size, model.intermediate_size];
        let of_adapter = [qkv, o, gate_up, down].contains(&n) && !widths.contains(&n);
        if of_adapter || (adds && f32_out) { ProductOperand::Adapter } else { ProductOperand::Weights }
    }
}

enum ProductOperand {
    /// Frozen weights of a block and the adapter's weights.
    Weights,
    Head,
    /// Only the adapter's weights or gradients.
    Adapter,
}

/// Number of values of the linear layers and the head.
fn linear_weights(model: &ModelConfig) -> usize {
    let block: usize =
        Target::ALL.iter().map(|target| target.shape(model)).map(|(inputs, outputs)| inputs * outputs).sum();
    model.num_hidden_layers * block + model.vocab_size * model.hidden_size
}

/// Number of values of the queries of all blocks.
fn width(model: &ModelConfig) -> f64 {
    (model.num_hidden_layers * model.heads().out_width()) as f64
}

/// Items by name and rule.
#[derive(Default)]
struct Items {
    items: BTreeMap<(String, Rule), Item>,
    /// Kernels and products.
    launches: usize,
}

impl Items {
    fn add(&mut self, issued: &Issued, rule: impl FnOnce(&Issued) -> Rule) {
        let rule = rule(issued);
        self.launches += usize::from(!matches!(issued, Issued::Copy(_)));
        let (name, work) = match issued {
            Issued::Launch(Launch { kernel, blocks, idle_blocks, read, written, flops, .. }) => {
                let blocks = blocks.iter().product::<usize>() as f64;
                let (read, written, idle_blocks) = (*read as f64, *written as f64, *idle_blocks as f64);
                ((*kernel).to_owned(), LaunchWork { read, written, flops: *flops, blocks, idle_blocks })
            }
            Issued::Product(product) => {
                let work = LaunchWork { read: product.bytes() as f64, flops: product.flops(), ..LaunchWork::default() };
                (format!("product {product}"), work)
            }
            Issued::Copy(Copy { kind, bytes }) => {
                let bytes = *bytes as f64;
                let (name, read, written) = match kind {
                    CopyKind::Up => ("copies to the device", bytes, 0.0),
                    CopyKind::Down => ("copies to the host", bytes, 0.0),
                    CopyKind::Across => ("copies on the device", bytes, bytes),
                    CopyKind::Fill => ("fills", 0.0, bytes),
                };
                (name.to_owned(), LaunchWork { read, written, ..LaunchWork::default() })
            }
        };
        self.insert(name, 1, work, rule);
    }

    /// Adds `times` times the same work.
    fn insert(&mut self, name: String, times: usize, work: LaunchWork, rule: Rule) {
        let empty = || Item {
            name: name.clone(),
            times: 0,
            bytes: 0.0,
            flops: 0.0,
            seconds: 0.0,
            rule,
            assumption: rule.assumption(),
        };
        let item = self.items.entry((name.clone(), rule)).or_insert_with(empty);
        let count = times as f64;
        item.times += times;
        item.bytes += count * (work.read + work.written);
        item.flops += count * work.flops;
        item.seconds += count * rule.seconds(&work);
    }

    fn cost(self, name: String, tokens: usize, floor: (f64, f64, f64)) -> Cost {
        let mut items: Vec<Item> = self.items.into_values().collect();
        items.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let seconds: f64 = items.iter().map(|it| it.seconds).sum();
        let (floor_bytes, floor_flops, floor_seconds) = floor;
        Cost {
            name,
            tokens,
            launches: self.launches,
            floor_bytes,
            floor_flops,
            floor_seconds,
            seconds,
            share: floor_seconds / seconds,
            tokens_per_second: tokens as f64 / seconds,
            items,
        }
    }
}
