//! Distilling a prior prompt: the gradient is the slope of the divergence from the teacher and equals PyTorch's
//! (`tests/oracle/distill.py` writes the fixture), and runs do it from start to end, without and after an interruption.

use std::fs;
use std::path::Path;

use rft::config::{ConfigLayers, DistillKl, GrpoSection, LoraSection, resolve};
use rft::device::cpu::decoder::CpuDecoder;
use rft::device::cpu::learner::CpuLearner;
use rft::grpo::learner::Learner;
use rft::grpo::objective::{CompletionTerms, Objective};
use rft::grpo::pass::{PassPlan, PassResult, TrainCompletion, TrainGroup, gradient_pass};
use rft::grpo::totals::Totals;
use rft::model::lora::Adapter;
use rft::model::source::ModelSource;
use rft::ops::distill::distill_row;
use rft::ops::head::{Head, Pair, TokenGrad};
use rft::rng::{Purpose, Stream};
use rft::run::Manifest;
use rft::run::RunDir;
use rft::run::metrics::{self, MetricsRecord};
use serde::Deserialize;

use crate::cli::{error, folder, rft};
use crate::train::Trace;

#[derive(Deserialize)]
struct Case {
    temperature: f32,
    head: Vec<f32>,
    hidden: Vec<f32>,
    teacher: Vec<f32>,
    weights: Vec<f32>,
    pairs: Vec<(usize, u32)>,
    kl: Vec<f32>,
    logprob: Vec<f32>,
    entropy: Vec<f32>,
    d_logits: Vec<f32>,
    d_hidden: Vec<f32>,
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    let size = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    assert_eq!(got.len(), expected.len(), "{what}");
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() < 2e-6 * size, "{what} {at}: {got}, expected {expected}");
    }
}

#[test]
fn divergence_and_gradients_equal_those_of_pytorch() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/distill.json")).unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let head = Head { weight: &case.head, hidden: 6, vocab: 37 };
        let pairs: Vec<Pair> = case.pairs.iter().map(|&(row, target)| Pair { row, target }).collect();
        let mut d_hidden = vec![0.0; case.hidden.len()];
        let stats = head.distill(&case.hidden, &pairs, &case.teacher, case.temperature, &case.weights, &mut d_hidden);
        assert_close(&stats.iter().map(|it| it.kl).collect::<Vec<_>>(), &case.kl, "divergence");
        assert_close(&stats.iter().map(|it| it.token.logprob).collect::<Vec<_>>(), &case.logprob, "log-probability");
        assert_close(&stats.iter().map(|it| it.token.entropy).collect::<Vec<_>>(), &case.entropy, "entropy");
        assert_close(&d_hidden, &case.d_hidden, "gradient of the hidden rows");
        let mut logits = head.logits(&head.gather(&case.hidden, &pairs));
        let targets = head.logits(&case.teacher);
        for (i, (row, teacher)) in logits.chunks_mut(37).zip(targets.chunks(37)).enumerate() {
            distill_row(row, teacher, case.pairs[i].1, case.temperature, case.weights[i]);
        }
        assert_close(&logits, &case.d_logits, "gradient of the logits");
    }
}

fn section() -> GrpoSection {
    resolve(&ConfigLayers::default()).unwrap().config.grpo
}

/// The expected gradient of the sampled token is that of the divergence: over all tokens of a vocabulary, weighted by their
/// probabilities.
#[test]
fn the_sampled_estimate_has_the_gradient_of_the_divergence_on_average() {
    let (vocab, temperature) = (37, 0.8);
    let stream = Stream::new(4, Purpose::Test, &[]);
    let normals = |from: u64| (from..from + vocab).map(|i| stream.normal(i) as f32).collect::<Vec<f32>>();
    let (own, teacher) = (normals(0), normals(1000));
    // With the identity as its weight, a head's logits are its hidden row.
    let width = vocab as usize;
    let identity: Vec<f32> = (0..width * width).map(|i| if i / width == i % width { 1.0 } else { 0.0 }).collect();
    let head = Head { weight: &identity, hidden: width, vocab: width };
    let pairs: Vec<Pair> = (0..vocab as u32).map(|target| Pair { row: 0, target }).collect();
    let logprobs = |row: &[f32]| -> Vec<f32> {
        head.forward(row, &pairs, temperature).iter().map(|stats| stats.logprob).collect()
    };
    let (p, q) = (logprobs(&own), logprobs(&teacher));

    let objective = Objective::new(&section(), 8).unwrap().distilling(Some(DistillKl::Sampled));
    assert!(objective.needs_two_passes(false) && !objective.skips(0.0, false) && objective.skips(0.0, true));
    let normalizer = objective.normalizer(&[1], &[false]);
    let (mut coefficients, mut estimate) = (Vec::new(), 0.0);
    for (p, q) in p.iter().zip(&q) {
        let terms = CompletionTerms {
            logprobs: &[*p],
            old: None,
            reference: Some(&[*q]),
            entropy: None,
            weights: None,
            advantage: 7.0,
            masked: false,
        };
        let (mut grad, mut totals) = ([0.0], Totals::default());
        objective.completion(&terms, &normalizer, &mut grad, &mut totals);
        assert!((totals.loss - totals.kl_sum).abs() < 1e-12, "the loss is the estimate");
        coefficients.push(p.exp() * grad[0]);
        estimate += f64::from(p.exp()) * totals.metrics(&objective)["distill/kl"];
    }
    let mut average = vec![0.0; width];
    head.backward(&own, &pairs, temperature, |i, _| TokenGrad { logprob: coefficients[i], entropy: 0.0 }, &mut average);
    let mut exact = own.clone();
    let stats = distill_row(&mut exact, &teacher, 0, temperature, 1.0);
    assert!((estimate - f64::from(stats.kl)).abs() < 1e-6, "{estimate}, expected {stats:?}");
    for (got, expected) in average.iter().zip(&exact) {
        assert!((got - expected).abs() < 1e-6, "{got}, expected {expected}");
    }
}

/// The embedded model with an adapter in which no value is zero.
fn model() -> (CpuDecoder, Adapter) {
    let source = ModelSource::open_embedded().unwrap();
    let decoder = CpuDecoder::load(source.config.clone(), source.weights.as_ref(), 256).unwrap();
    let mut adapter = Adapter::new(&source.config, &LoraSection::all_linear(4), 5).unwrap();
    let stream = Stream::new(6, Purpose::Test, &[]);
    adapter.params.iter_mut().enumerate().for_each(|(i, value)| *value = 0.05 * stream.normal(i as u64) as f32);
    (decoder, adapter)
}

fn tokens(path: u64, len: usize) -> Vec<u32> {
    let stream = Stream::new(7, Purpose::Test, &[path]);
    (0..len as u64).map(|i| stream.below(i, 700) as u32).collect()
}

/// A prompt of the student, the teacher's, and completions.
struct Group {
    prompt: Vec<u32>,
    teacher: Vec<u32>,
    completions: Vec<Vec<u32>>,
}

fn groups() -> Vec<Group> {
    vec![
        Group {
            prompt: tokens(0, 5),
            teacher: tokens(1, 23),
            completions: vec![tokens(2, 9), tokens(3, 1), tokens(4, 14)],
        },
        Group { prompt: tokens(5, 12), teacher: tokens(6, 40), completions: vec![tokens(7, 20), tokens(8, 6)] },
    ]
}

/// The gradient, the loss and the counts of an update.
fn pass(decoder: &CpuDecoder, adapter: &Adapter, kl: DistillKl, max_tokens: usize) -> (Vec<f32>, PassResult) {
    let groups = groups();
    let zeros: Vec<f32> = vec![0.0; 32];
    let train: Vec<TrainGroup> = groups
        .iter()
        .map(|group| TrainGroup {
            prompt: &group.prompt,
            teacher: Some(&group.teacher),
            completions: group
                .completions
                .iter()
                .map(|tokens| TrainCompletion {
                    tokens,
                    logprobs: &zeros[..tokens.len()],
                    weights: None,
                    advantage: 0.0,
                    masked: false,
                })
                .collect(),
        })
        .collect();
    let objective = Objective::new(&section(), 32).unwrap().distilling(Some(kl));
    let lengths: Vec<usize> = groups.iter().flat_map(|group| &group.completions).map(Vec::len).collect();
    let normalizer = objective.normalizer(&lengths, &vec![false; lengths.len()]);
    let plan = PassPlan { temperature: 0.9, max_tokens, gradient_checkpointing: false, off_policy: false };
    let mut learner = CpuLearner::new(decoder);
    learner.begin(adapter).unwrap();
    let result = gradient_pass(&mut learner, adapter, &train, &objective, &normalizer, &plan).unwrap();
    (learner.gradient().unwrap(), result)
}

/// Through the whole decoder: the change of the loss along a direction is the gradient's part in it.
#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let (decoder, adapter) = model();
    let (grads, _) = pass(&decoder, &adapter, DistillKl::Full, 4096);
    for (name, slot) in &adapter.slots {
        let of_slot = slot.read(&grads);
        assert!(of_slot.iter().any(|g| *g != 0.0) && of_slot.iter().all(|g| g.is_finite()), "{name}");
    }
    let norm = grads.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    for seed in 0..4 {
        let stream = Stream::new(seed, Purpose::Test, &[9]);
        // Half along the gradient, half at random, so that the slope is not small by chance.
        let size = 1.0 / (adapter.params.len() as f64).sqrt();
        let along = |(i, g): (usize, &f32)| (f64::from(*g) / norm + size * stream.normal(i as u64)) as f32;
        let direction: Vec<f32> = grads.iter().enumerate().map(along).collect();
        let loss = |step: f32| {
            let mut moved = adapter.clone();
            moved.params.iter_mut().zip(&direction).for_each(|(value, d)| *value += step * d);
            pass(&decoder, &moved, DistillKl::Full, 4096).1.totals.loss
        };
        let slope: f64 = grads.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let step = 2e-3;
        let measured = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
        assert!((measured / slope - 1.0).abs() < 5e-3, "{measured}, expected {slope}");
    }
}

/// The teacher's longer prompts count in the size of a micro-batch.
#[test]
fn micro_batches_change_the_gradient_by_rounding_alone() {
    let (decoder, adapter) = model();
    for kl in [DistillKl::Full, DistillKl::Sampled] {
        let (whole, one) = pass(&decoder, &adapter, kl, 4096);
        assert_eq!((one.micro_batches, one.completions_with_signal), (1, 5));
        // 23 tokens of the teacher's prompt and 14 of the longest completion fit, but no two completions.
        let (parts, some) = pass(&decoder, &adapter, kl, 40);
        assert_eq!(some.micro_batches, 4);
        assert!((one.totals.loss - some.totals.loss).abs() < 1e-6 * one.totals.loss.abs());
        let difference: Vec<f32> = whole.iter().zip(&parts).map(|(a, b)| a - b).collect();
        let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(norm(&difference) < 1e-5 * norm(&whole), "{kl:?}: {} of {}", norm(&difference), norm(&whole));
    }
}

/// Distilling `reasoning` on the embedded model, in a few seconds.
const RUN: [&str; 10] = [
    "train",
    "--ppe=reasoning",
    "--threads=1",
    "--set=train.method=distill",
    "--set=rollout.prompts_per_step=8",
    "--set=rollout.num_generations=1",
    "--set=train.learning_rate=3e-3",
    "--set=eval.questions=16",
    "--set=eval.greedy=false",
    "--set=eval.every=2",
];

/// Trains and returns what the run wrote to both streams.
#[track_caller]
fn train(folder: &Path, args: &[&str]) -> [String; 2] {
    let output = rft(folder).args(RUN).args(args).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{err}");
    [out, err]
}

fn steps(run: &Path) -> Vec<MetricsRecord> {
    let lines = metrics::read(&run.join("metrics.jsonl")).unwrap();
    lines.into_iter().filter(|line| line.values.contains_key("reward")).collect()
}

#[test]
fn a_run_brings_the_model_without_a_prompt_closer_to_the_prompted_base() {
    let folder = folder();
    let [out, err] = train(folder.path(), &["--steps=12"]);
    assert!(
        err.contains("prompt   reasoning (<think>") && err.contains(", distilled: the model samples without it"),
        "{err}"
    );
    assert!(err.contains("full KL divergence from the teacher, learning rate 0.003"), "{err}");
    assert!(
        out.contains("accuracy") && out.contains("format") && out.contains("runs/tiny-reasoning-distilled-1/adapter"),
        "{out}"
    );

    let path = folder.path().join("runs/tiny-reasoning-distilled-1");
    let steps = steps(&path);
    let value = |at: usize, name: &str| steps[at].values[name].unwrap();
    let mean = |range: std::ops::Range<usize>| {
        let len = range.len() as f64;
        range.map(|at| value(at, "distill/kl")).sum::<f64>() / len
    };
    assert!(mean(9..12) < 0.6 * mean(0..3), "{} and {}", mean(0..3), mean(9..12));
    for (at, step) in steps.iter().enumerate() {
        // With the loss `grpo`, every completion has the same weight; rewards are measured alone.
        assert!(value(at, "loss") > 0.0 && value(at, "rewards/format/mean").is_finite());
        assert!(!step.values.contains_key("ratio/mean") && !step.values.contains_key("kl"));
        assert!(value(at, "sampling/sampling_logp_difference/max") == 0.0);
    }
    // No note about groups whose rewards are equal.
    assert!(!err.contains("nothing to compare"), "{err}");

    let manifest = Manifest::read(&RunDir::open(&path).unwrap()).unwrap();
    assert_eq!((manifest.prompt.name.as_str(), manifest.prompt_label().as_str()), ("none", "reasoning distilled"));
    let listed = rft(folder.path()).args(["runs", "runs"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("reasoning distilled"), "{listed}");

    // Without another choice, it is evaluated as it was trained: without a prompt.
    let run = path.to_str().unwrap();
    let eval = |more: &[&str]| {
        let args = ["eval", "--bench=arithmetic-1", "--limit=4", "--samples=1", "--max-tokens=48", "--adapter", run];
        let output = rft(folder.path()).args(args).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(eval(&[]).contains("prior prompt `none`"));
    assert!(eval(&["--ppe=reasoning"]).contains("prior prompt `reasoning`"));
    assert!(eval(&["--ppe=none"]).contains("prior prompt `none`"));
}

#[test]
fn threads_and_an_interruption_do_not_change_the_result() {
    let folder = folder();
    let path = folder.path();
    for kl in ["full", "sampled"] {
        let (kl, named) = (format!("--set=distill.kl={kl}"), |name: &str| format!("{kl}-{name}"));
        let run = |name: &str| path.join("runs").join(named(name));
        train(path, &["--steps=4", &kl, "--name", &named("one")]);
        let whole = Trace::of(&run("one"));
        assert!(whole.metrics.iter().any(|line| line.values.contains_key("distill/kl")));

        let args = RUN.map(|arg| if arg == "--threads=1" { "--threads=2" } else { arg });
        rft(path).args(args).args(["--steps=4", &kl, "--name", &named("two")]).assert().success();
        whole.assert_same(&Trace::of(&run("two")));

        train(path, &["--steps=2", &kl, "--name", &named("half")]);
        let half = run("half");
        let resume = ["train", "--threads=1", "--steps=4", "--resume", half.to_str().unwrap()];
        rft(path).args(resume).assert().success();
        whole.assert_same(&Trace::of(&half));
    }
}

/// A user's own prompt is distilled from the run's copy after a resume, and updates after the first use the same samples.
#[test]
fn a_users_prompt_and_several_updates_per_step() {
    let folder = folder();
    let shown = rft(folder.path()).args(["prompts", "show", "reasoning"]).output().unwrap();
    let own = String::from_utf8(shown.stdout).unwrap().replace("name = \"reasoning\"", "name = \"own\"");
    let file = folder.path().join("own.toml");
    fs::write(&file, own).unwrap();
    let args = RUN.map(|arg| if arg == "--ppe=reasoning" { "--ppe=own.toml" } else { arg });
    for kl in ["full", "sampled"] {
        let name = format!("own-{kl}");
        let sets = [format!("--set=distill.kl={kl}"), "--set=grpo.num_iterations=2".into(), "--steps=2".into()];
        rft(folder.path()).args(args).args(sets).args(["--name", &name]).assert().success();
        let steps = steps(&folder.path().join("runs").join(&name));
        assert!(steps.iter().all(|step| step.values["distill/kl"].unwrap().is_finite()));
    }
    fs::remove_file(&file).unwrap();
    let resume = ["train", "--threads=1", "--steps=3", "--resume", "runs/own-full"];
    rft(folder.path()).args(resume).assert().success();
}

#[test]
fn verify_resume_finds_no_difference() {
    let folder = folder();
    let args = RUN.map(|arg| if arg == "train" { "verify-resume" } else { arg });
    let output = rft(folder.path()).args(args).args(["--steps=1"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("equal: 2 steps"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn settings_without_a_meaning_are_refused() {
    let folder = folder();
    let refused = |args: &[&str]| {
        let all = [&["train", "--steps=1", "--set=train.method=distill"], args].concat();
        error(&folder, &all)
    };
    let said = refused(&["--ppe=none"]);
    assert!(
        said.contains("`prompt.ppe`: train.method = \"distill\" distills a prior prompt, and `none` is none"),
        "{said}"
    );
    let said = refused(&["--ppe=reasoning", "--set=prompt.prefill=true"]);
    assert!(said.contains("`prompt.prefill`: a completion of the teacher would start with"), "{said}");
    for (set, key) in [
        ("grpo.beta=0.1", "grpo.beta"),
        ("grpo.entropy_coef=0.1", "grpo.entropy_coef"),
        ("grpo.max_refills=2", "grpo.max_refills"),
    ] {
        let said = refused(&["--ppe=reasoning", "--set", set]);
        assert!(
            said.contains(&format!("`{key}`: ")) && said.contains("has no meaning with train.method = \"distill\""),
            "{said}"
        );
    }
    let said = refused(&["--ppe=reasoning", "--set=grpo.loss_type=gspo", "--set=distill.kl=sampled"]);
    assert!(said.contains("`grpo.loss_type`: gspo has one ratio per completion"), "{said}");
}
