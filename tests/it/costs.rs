//! What a recorded GPU counts is what a GPU is asked to do: here the emulated one.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::rc::Rc;

use rft::config::{ConfigLayers, DistillKl, LoraSection, resolve};
use rft::device::Extent;
use rft::device::cuda::learner::CudaLearner;
use rft::device::cuda::record::{CopyKind, Issued, Recorder};
use rft::device::cuda::steps::{DecodeSetup, micro_batch, sequences};
use rft::device::cuda::weights::WeightOrigin;
use rft::device::cuda::{Gpu, Shared};
use rft::grpo::adamw::{AdamW, Hyper};
use rft::grpo::learner::{Keep, Learner};
use rft::model::config::known_shape;
use rft::model::lora::Adapter;
use rft::model::source::ModelSource;
use rft::plan::costs;
use serde_json::Value;

use crate::cli::{folder, rft};
use crate::device::libraries;

const ROWS: usize = 24;
/// Two spans of attention, and a third that no row has at first.
const CONTEXT: usize = 500;
const EXTENT: Extent = Extent {
    positions: 600,
    max_rows: ROWS,
    working_bytes: Some(1 << 30),
    keep: Some(Keep::Everything),
    taught: false,
};

fn model() -> (ModelSource, Adapter) {
    let source = ModelSource::open("tiny", "main").unwrap();
    let adapter = Adapter::new(&source.config, &LoraSection::all_linear(8), 1).unwrap();
    (source, adapter)
}

/// One step of `what`, after what a run does before.
fn work(what: &str, shared: &Shared, adapter: &Adapter) {
    match what {
        "load" => {}
        "decode" => {
            shared.make_current(adapter).unwrap();
            let mut step = DecodeSetup::set_up(shared, ROWS, CONTEXT).unwrap();
            step.issue(shared).unwrap();
            step.look(shared).unwrap();
        }
        "train" | "checkpointed" | "distill" => {
            let keep = if what == "checkpointed" { Keep::Inputs } else { Keep::Everything };
            let distill = (what == "distill").then_some(DistillKl::Full);
            let (mut adapter, mut adamw) = (adapter.clone(), AdamW::new(adapter.params.len()));
            let mut learner = CudaLearner::new(shared);
            learner.begin(&adapter).unwrap();
            // A sequence of 300 rows has keys whose gradients are partial sums.
            let mut pack = sequences(256, 128);
            pack.push(&[1; 300], &[&[1; 20], &[1; 100], &[1; 150]]);
            micro_batch(&mut learner, &adapter, &pack, keep, distill).unwrap();
            learner.gradient_norm(&adapter).unwrap();
            let hyper = Hyper { lr: 1e-5, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
            learner.step(&mut adapter, &mut adamw, &hyper, 1.0).unwrap();
        }
        what => panic!("`{what}`"),
    }
}

/// What was counted by name: times, bytes and operations. Kernels have neither bytes nor operations.
type Counts = BTreeMap<String, [f64; 3]>;

/// Run by the tests below in a process that has the emulated device as its driver.
#[test]
#[ignore = "a part of the other tests"]
fn on_the_emulated_device() {
    let what = std::env::var("RFT_TEST_WORK").unwrap();
    let (source, adapter) = model();
    let shared = Shared::load(0, &source, Some(&adapter), &EXTENT).unwrap();
    work(&what, &shared, &adapter);
    shared.gpu.synchronize().unwrap();
}

fn emulated(what: &str) -> Option<Counts> {
    let folder = folder();
    let report = folder.path().join("report.json");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "costs::on_the_emulated_device"]);
    command.env("LD_LIBRARY_PATH", libraries()?).env("XDG_CACHE_HOME", folder.path());
    let output = command.env("RFT_TEST_WORK", what).env("RFT_EMU_REPORT", &report).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let mut counts = Counts::new();
    for kind in ["kernels", "products", "copies"] {
        for (name, count) in report[kind].as_object().unwrap() {
            let value = |name: &str| count.get(name).map_or(0.0, |it| it.as_f64().unwrap());
            counts.insert(format!("{kind} {name}"), [value("times"), value("bytes"), value("flops")]);
        }
    }
    Some(counts)
}

fn recorded(what: &str) -> Counts {
    let recorder = Rc::new(Recorder::default());
    let (source, adapter) = model();
    let gpu = Rc::new(Gpu::recorded(recorder.clone()));
    let shared = Shared::on(gpu, source.config, &WeightOrigin::Random(1), Some(&adapter), &EXTENT).unwrap();
    recorder.drain();
    work(what, &shared, &adapter);
    let mut counts = Counts::new();
    for issued in recorder.drain() {
        let (name, bytes, flops) = match issued {
            Issued::Launch(launch) => (format!("kernels {}", launch.kernel), 0.0, 0.0),
            Issued::Product(product) => {
                (format!("products {}", column_major(&product.to_string())), product.bytes() as f64, product.flops())
            }
            Issued::Copy(copy) => {
                let kind = match copy.kind {
                    CopyKind::Up => "up",
                    CopyKind::Down => "down",
                    CopyKind::Across => "across",
                    CopyKind::Fill => "fills",
                };
                (format!("copies {kind}"), copy.bytes as f64, 0.0)
            }
        };
        let count = counts.entry(name).or_default();
        [1.0, bytes, flops].iter().zip(count).for_each(|(more, sum)| *sum += more);
    }
    counts
}

/// A product as the emulated cuBLASLt names it: row-major C = A · B is column-major C' = B' · A'.
fn column_major(product: &str) -> String {
    let (size, rest) = product.split_once(' ').unwrap();
    let (transposed, rest) = rest.split_once(' ').unwrap();
    let [m, n, k] = size.split('x').collect::<Vec<_>>().try_into().unwrap();
    format!("{n}x{m}x{k} {} {rest}", transposed.chars().rev().collect::<String>())
}

#[test]
fn a_recorded_step_is_the_step_that_a_device_is_given() {
    let Some(load) = emulated("load") else { return };
    for what in ["decode", "train", "checkpointed", "distill"] {
        let mut want = emulated(what).unwrap();
        for (name, before) in &load {
            want.get_mut(name).unwrap().iter_mut().zip(before).for_each(|(all, before)| *all -= before);
        }
        want.retain(|_, counts| counts[0] > 0.0);
        let got = recorded(what);
        let launches = |counts: &Counts, kind: &str| -> f64 {
            counts.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, count)| count[0]).sum()
        };
        assert!(launches(&got, "kernels") > 10.0 && launches(&got, "products") > 10.0, "{what}: {got:?}");
        assert_eq!(got, want, "{what}");
    }
}

#[test]
fn a_decode_step_of_the_7b_shape_takes_397_launches() {
    let layers = ConfigLayers { preset: Some("qwen2.5-7b".into()), ..ConfigLayers::default() };
    let config = resolve(&layers).unwrap().config;
    let model = known_shape("qwen2.5-7b").unwrap();
    let costs = costs::of(&model, &config).unwrap();
    for (cost, rows) in costs.iter().zip([8, 64, 256]) {
        assert_eq!((cost.launches, cost.tokens), (14 * 28 + 5, rows), "{}", cost.name);
        // By hand: keys and values of 1,024 tokens in 28 blocks of 4 heads of 128, in bf16; a share is for q and the lengths.
        let spans = cost.items.iter().find(|it| it.name == "decode_attention_spans_d128").unwrap();
        let keys = (rows * 1_024 * 28 * 4 * 128 * 4) as f64;
        assert!((1.0..1.06).contains(&(spans.bytes / keys)), "{} {keys}", spans.bytes);
        assert_eq!(spans.flops, (rows * 1_024 * 28 * 28 * 128 * 4) as f64);
        assert!((0.3..1.0).contains(&cost.share), "{}: {}", cost.name, cost.share);
    }
    let weights = 28.0 * (2.0 * 3584.0 * (3584.0 + 512.0) + 3.0 * 3584.0 * 18_944.0);
    for (cost, length) in costs[3..].iter().zip([1_024.0, 4_096.0]) {
        // Frozen weights: forward, forward again, and backward, each with the columns of the adapter on the sum's side.
        let products: f64 =
            cost.items.iter().filter(|it| it.rule == costs::Rule::TrainWeights).map(|it| it.flops).sum();
        let frozen = 3.0 * 2.0 * weights * 16_384.0;
        assert!((1.0..1.03).contains(&(products / frozen)), "{products} {frozen}");
        let attention: f64 =
            cost.items.iter().filter(|it| it.name.starts_with("branch_attention")).map(|it| it.flops).sum();
        let pairs = 16_384.0 * (length + 1.0) / 2.0;
        assert_eq!(attention, (2.0 * 4.0 + 6.0 + 8.0) * pairs * 28.0 * 3584.0);
    }
}

#[test]
fn the_command_prints_a_table_or_json() {
    let folder = folder();
    let run = |args: &[&str]| {
        let output = rft(folder.path()).args(["plan", "--preset=qwen2.5-7b", "--costs"]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["--set=train.gradient_checkpointing=false"]);
    for name in
        ["decode, 64 rows, context 1024", "train, 16384 rows, length 4096", "sampler_f32", "64x4608x3680 nt bf16"]
    {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("blocks computed twice"), "{text}");
    let json: Value = serde_json::from_str(&run(&["--output-format=json"])).unwrap();
    let costs = json["costs"].as_array().unwrap();
    assert_eq!((costs.len(), &costs[0]["launches"]), (5, &serde_json::json!(397)));
    for cost in costs {
        let items = cost["items"].as_array().unwrap();
        let sum: f64 = items.iter().map(|it| it["seconds"].as_f64().unwrap()).sum();
        assert!((sum / cost["seconds"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{cost}");
        assert!(items.iter().all(|it| it["assumption"].is_string()), "{cost}");
    }
}
