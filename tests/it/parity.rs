//! Logits equal those of transformers; losses, gradients and advantages equal those of TRL. The fixtures are written by
//! `decoder.py`, `trl_losses.py` and `greedy.py` in tests/oracle.

use anyhow::{Result, ensure};
use rft::config::{GrpoSection, KlEstimator, LoraSection, LossType, ScaleRewards};
use rft::device::cpu::decoder::CpuDecoder;
use rft::device::cpu::engine::CpuEngine;
use rft::device::cpu::learner::CpuLearner;
use rft::grpo::adamw::{AdamW, Hyper, LargestChange};
use rft::grpo::advantage::advantages;
use rft::grpo::learner::Keep;
use rft::grpo::learner::{Learner, OutOfMemory};
use rft::grpo::objective::Objective;
use rft::grpo::pass::{PassPlan, TrainCompletion, TrainGroup, gradient_pass};
use rft::model::checkpoint::Checkpoint;
use rft::model::config::ModelConfig;
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::model::peft::start_from;
use rft::model::safetensors::SafetensorsFile;
use rft::model::source::ModelSource;
use rft::ops::distill::DistillStats;
use rft::ops::head::TokenStats;
use rft::rollout::{Engine, Prompt, RolloutRequest, Sampling, Unwatched};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::require::models;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn decoder(folder: &Path) -> CpuDecoder {
    let config = ModelConfig::from_json(&std::fs::read(folder.join("config.json")).unwrap(), None).unwrap();
    CpuDecoder::load(config, &Checkpoint::open(folder).unwrap(), 64).unwrap()
}

/// Largest difference, as a share of the largest expected value.
fn error(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len(), "number of values");
    let greatest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, |most: f32, x| most.max(x.abs()));
    let size = greatest(&mut expected.iter().copied());
    // `max` ignores NaN; an error of NaN has to fail.
    assert!(got.iter().all(|x| x.is_finite()), "not a number among the values");
    greatest(&mut got.iter().zip(expected).map(|(got, expected)| got - expected)) / size
}

#[test]
fn logits_equal_those_of_transformers() {
    #[derive(Deserialize)]
    struct Sequence {
        ids: Vec<u32>,
        logits: Vec<Vec<f32>>,
    }

    for name in ["qwen2", "qwen2-tied", "qwen3", "llama"] {
        let folder = fixture("decoder").join(name);
        let decoder = decoder(&folder);
        for Sequence { ids, logits } in read::<Vec<Sequence>>(&folder.join("logits.json")) {
            let mut pack = Pack::default();
            pack.push(&ids, &[]);
            let hidden = decoder.forward(None, &pack, Keep::Nothing).hidden;
            let error = error(&decoder.head().logits(&hidden), &logits.concat());
            assert!(error < 1e-5, "{name}, {} tokens: error {error:.1e}", ids.len());
        }
    }
}

#[derive(Deserialize)]
struct Losses {
    batch: Batch,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Batch {
    max_completion_length: usize,
    groups: Vec<Group>,
    /// Data of all completions, group by group, like the lists of a case.
    advantages: Vec<f32>,
}

#[derive(Deserialize)]
struct Group {
    prompt: Vec<u32>,
    completions: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    loss_type: LossType,
    epsilon: f64,
    epsilon_high: Option<f64>,
    delta: Option<f64>,
    beta: f64,
    entropy_coef: f64,
    temperature: f32,
    masked: Vec<bool>,
    old: Option<Vec<Vec<f32>>>,
    logprobs: Vec<Vec<f32>>,
    loss: f64,
}

impl Case {
    fn objective(&self, batch: &Batch) -> Objective {
        let section = GrpoSection {
            loss_type: self.loss_type,
            scale_rewards: ScaleRewards::Group,
            epsilon: self.epsilon,
            epsilon_high: self.epsilon_high,
            delta: self.delta,
            beta: self.beta,
            kl_estimator: KlEstimator::K3,
            entropy_coef: self.entropy_coef,
            mask_truncated_completions: self.masked.contains(&true),
            truncation_penalty: 0.0,
            num_iterations: 1,
            steps_per_generation: 1,
            max_refills: 0,
        };
        Objective::new(&section, batch.max_completion_length).unwrap()
    }

    fn groups<'a>(&'a self, batch: &'a Batch) -> Vec<TrainGroup<'a>> {
        let sampled = self.old.as_ref().unwrap_or(&self.logprobs);
        let mut completion = 0..;
        batch
            .groups
            .iter()
            .map(|group| TrainGroup {
                teacher: None,
                prompt: &group.prompt,
                completions: (group.completions.iter().zip(&mut completion))
                    .map(|(tokens, i)| TrainCompletion {
                        tokens,
                        logprobs: &sampled[i],
                        weights: None,
                        advantage: batch.advantages[i],
                        masked: self.masked[i],
                    })
                    .collect(),
            })
            .collect()
    }
}

/// Of any rank and scale: the fixture has rank 4 and a scale of 2.
#[test]
fn an_adapter_that_starts_from_pefts_has_its_log_probabilities() {
    let decoder = decoder(&fixture("decoder/qwen2"));
    let Losses { batch, cases } = read(&fixture("trl/cases.json"));
    for (r, lora_alpha, use_rslora) in [(4, 8.0, false), (8, 8.0, false), (4, 100.0, false), (9, 3.0, true)] {
        let section = LoraSection { lora_alpha, use_rslora, ..LoraSection::all_linear(r) };
        let mut adapter = Adapter::new(&decoder.config, &section, 1).unwrap();
        start_from(&mut adapter, &fixture("trl/adapter"), &decoder.config).unwrap();
        let mut learner = CpuLearner::new(&decoder);
        learner.begin(&adapter).unwrap();
        for case in cases.iter().filter(|case| case.old.is_none()) {
            let mut got = Vec::new();
            for group in &batch.groups {
                let completions: Vec<&[u32]> = group.completions.iter().map(Vec::as_slice).collect();
                let mut pack = Pack::default();
                pack.push(&group.prompt, &completions);
                learner.forward(Some(&adapter), &pack, Keep::Nothing).unwrap();
                got.extend(learner.token_stats(&pack, case.temperature).unwrap().iter().map(|stats| stats.logprob));
            }
            let error = error(&got, &case.logprobs.concat());
            assert!(error < 1e-5, "{} with rank {r}: error {error:.1e}", case.name);
        }
    }
}

/// The adapter that PEFT wrote.
fn adapter(decoder: &CpuDecoder) -> Adapter {
    let section = LoraSection::all_linear(4);
    let file = SafetensorsFile::open(&fixture("trl/adapter/adapter_model.safetensors")).unwrap();
    let tensors: BTreeMap<_, _> = (file.tensors().iter())
        .map(|(name, info)| (name.clone(), (info.shape.clone(), file.read(name).unwrap())))
        .collect();
    Adapter::from_tensors(&decoder.config, &section, &tensors).unwrap()
}

/// As a whole, divided into micro-batches that split groups, and with recomputed blocks.
#[test]
fn losses_and_gradients_equal_those_of_trl() {
    let Losses { batch, cases } = read(&fixture("trl/cases.json"));
    let gradients = SafetensorsFile::open(&fixture("trl/gradients.safetensors")).unwrap();
    let decoder = decoder(&fixture("decoder/qwen2"));
    let adapter = adapter(&decoder);
    for case in &cases {
        let objective = case.objective(&batch);
        let lengths: Vec<usize> = batch.groups.iter().flat_map(|g| &g.completions).map(Vec::len).collect();
        let normalizer = objective.normalizer(&lengths, &case.masked);
        for (max_tokens, gradient_checkpointing) in [(4096, false), (24, true)] {
            let plan = PassPlan {
                temperature: case.temperature,
                max_tokens,
                gradient_checkpointing,
                off_policy: case.old.is_some(),
            };
            let mut learner = CpuLearner::new(&decoder);
            learner.begin(&adapter).unwrap();
            let groups = case.groups(&batch);
            let result = gradient_pass(&mut learner, &adapter, &groups, &objective, &normalizer, &plan).unwrap();
            let grads = learner.gradient().unwrap();

            let (name, loss) = (&case.name, result.totals.loss);
            assert!((loss - case.loss).abs() <= 1e-5 * case.loss.abs() + 1e-6, "{name}: {loss}, not {}", case.loss);
            for (tensor, _, got) in adapter.tensors(&grads) {
                let error = error(&got, &gradients.read(&format!("{name}/{tensor}")).unwrap());
                assert!(error < 1e-4, "{name}, {max_tokens} tokens, gradient of {tensor}: error {error:.1e}");
            }
        }
    }
}

#[test]
fn advantages_equal_those_of_trl() {
    #[derive(Deserialize)]
    struct Table {
        name: String,
        scale_rewards: ScaleRewards,
        rewards: Vec<Vec<f64>>,
        advantages: Vec<Vec<f32>>,
        metrics: BTreeMap<String, f64>,
    }

    for table in read::<Vec<Table>>(&fixture("trl/advantages.json")) {
        let Table { name, scale_rewards, .. } = &table;
        let got = advantages(&table.rewards, *scale_rewards);
        for (got, expected) in got.values.iter().flatten().zip(table.advantages.iter().flatten()) {
            let close = (got - expected).abs() <= 1e-5 * expected.abs();
            assert!(close, "{name}, {scale_rewards:?}: {got}, not {expected}");
        }
        assert_eq!(got.values.len(), table.advantages.len());
        let metrics = got.metrics();
        for key in ["reward", "reward_std"] {
            let (got, expected) = (metrics[key], table.metrics[key]);
            assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{name}, {key}: {got}, not {expected}");
        }
    }
}

/// `RFT_MODELS_DIR` contains `qwen-0.5b/model.gguf`, Qwen2.5-Coder-0.5B-Instruct with Q4_K_M weights: the file that was
/// used for the fixture.
#[test]
fn greedy_tokens_equal_those_of_transformers() {
    #[derive(Deserialize)]
    struct Case {
        question: String,
        prompt: Vec<u32>,
        tokens: Vec<u32>,
        /// The gap between the two largest logits, at each step.
        gaps: Vec<f32>,
    }

    let Some(models) = models() else { return };
    let source = ModelSource::open_gguf(&models.join("qwen-0.5b/model.gguf")).unwrap();
    let decoder = CpuDecoder::load(source.config.clone(), source.weights.as_ref(), 256).unwrap();
    let cases: Vec<Case> = read(&fixture("greedy_qwen_coder_0.5b.json"));
    let prompts: Vec<Prompt> = (0..).zip(&cases).map(|(key, c)| Prompt { ids: c.prompt.clone(), key }).collect();
    let request = RolloutRequest {
        prompts: &prompts,
        num_generations: 1,
        sampling: &Sampling::greedy(),
        max_completion_length: cases[0].tokens.len(),
        seed: 0,
        step: 0,
        ends: &|_| false,
        stop_tokens: &[],
    };
    let mut engine = CpuEngine { decoder: &decoder, max_rows: 10 };
    let groups = engine.generate(None, &request, &mut Unwatched).unwrap().unwrap();
    for (case, group) in cases.iter().zip(groups) {
        let first = group[0].tokens.iter().zip(&case.tokens).position(|(got, expected)| got != expected);
        if let Some(at) = first {
            panic!("`{}`: token {at} differs; the two largest logits differ by {}", case.question, case.gaps[at]);
        }
        assert_eq!(group[0].tokens.len(), case.tokens.len());
    }
}

/// A learner with memory for packs of up to this number of rows.
struct Cramped<'a>(CpuLearner<'a>, usize);

impl Learner for Cramped<'_> {
    fn begin(&mut self, adapter: &Adapter) -> Result<()> {
        self.0.begin(adapter)
    }

    fn forward(&mut self, adapter: Option<&Adapter>, pack: &Pack, keep: Keep) -> Result<()> {
        let (wanted, left) = (pack.tokens.len(), self.1);
        ensure!(wanted <= left, OutOfMemory { wanted, left });
        self.0.forward(adapter, pack, keep)
    }

    fn token_stats(&mut self, pack: &Pack, temperature: f32) -> Result<Vec<TokenStats>> {
        self.0.token_stats(pack, temperature)
    }

    fn head_backward(
        &mut self,
        pack: &Pack,
        temperature: f32,
        coefficients: &[f32],
        entropy: f32,
    ) -> Result<Vec<TokenStats>> {
        self.0.head_backward(pack, temperature, coefficients, entropy)
    }

    fn teach(&mut self, pack: &Pack) -> Result<()> {
        self.0.teach(pack)
    }

    fn distill_backward(&mut self, pack: &Pack, temperature: f32, weights: &[f32]) -> Result<Vec<DistillStats>> {
        self.0.distill_backward(pack, temperature, weights)
    }

    fn backward(&mut self, adapter: &Adapter, pack: &Pack) -> Result<()> {
        self.0.backward(adapter, pack)
    }

    fn gradient(&mut self) -> Result<Vec<f32>> {
        self.0.gradient()
    }

    fn gradient_norm(&mut self, adapter: &Adapter) -> Result<f64> {
        self.0.gradient_norm(adapter)
    }

    fn step(
        &mut self,
        adapter: &mut Adapter,
        adamw: &mut AdamW,
        hyper: &Hyper,
        max_norm: f64,
    ) -> Result<LargestChange> {
        self.0.step(adapter, adamw, hyper, max_norm)
    }

    fn moments(&mut self, adamw: &mut AdamW) -> Result<()> {
        self.0.moments(adamw)
    }

    fn peak_memory(&self) -> Option<u64> {
        self.0.peak_memory()
    }
}

#[test]
fn micro_batches_that_do_not_fit_are_halved_and_give_the_same_gradient() {
    let Losses { batch, cases } = read(&fixture("trl/cases.json"));
    let decoder = decoder(&fixture("decoder/qwen2"));
    let adapter = adapter(&decoder);
    let case = &cases[0];
    let objective = case.objective(&batch);
    let lengths: Vec<usize> = batch.groups.iter().flat_map(|g| &g.completions).map(Vec::len).collect();
    let normalizer = objective.normalizer(&lengths, &case.masked);
    let plan = PassPlan {
        temperature: case.temperature,
        max_tokens: 4096,
        gradient_checkpointing: false,
        off_policy: case.old.is_some(),
    };
    let gradient = |learner: &mut dyn Learner| {
        learner.begin(&adapter).unwrap();
        let result = gradient_pass(learner, &adapter, &case.groups(&batch), &objective, &normalizer, &plan);
        result.map(|result| (learner.gradient().unwrap(), result))
    };
    let (whole, _) = gradient(&mut CpuLearner::new(&decoder)).unwrap();
    let prompt = batch.groups.iter().map(|group| group.prompt.len()).max().unwrap();
    let one_completion = prompt + lengths.iter().max().unwrap();
    let (halved, result) = gradient(&mut Cramped(CpuLearner::new(&decoder), one_completion)).unwrap();
    assert!(result.out_of_memory > 0 && result.micro_batches > 1, "{result:?}");
    assert!(error(&halved, &whole) < 1e-5);
    // A single completion cannot be split.
    let failed = gradient(&mut Cramped(CpuLearner::new(&decoder), prompt)).unwrap_err();
    assert!(failed.is::<OutOfMemory>(), "{failed:#}");
}
