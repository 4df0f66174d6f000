//! The training loop: its result does not depend on the number of threads, it learns, and it explains where it cannot.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Result;
use rft::model::lora::Adapter;
use rft::model::peft::load_adapter;
use rft::model::weights::{RandomWeights, Weights};
use rft::rollout::{Completion, Engine, RolloutRequest, RolloutWatch};
use rft::run::metrics::{self, MetricsRecord};
use serde_json::Value;

use crate::cli::rft;
use crate::lab::{Honest, Lab};

/// A run of the embedded model that takes a second or two.
pub const SMALL: [&str; 10] = [
    "train",
    "--ppe=null-example",
    "--threads=1",
    "--set=rollout.prompts_per_step=4",
    "--set=rollout.num_generations=4",
    "--set=eval.questions=16",
    "--set=eval.every=2",
    "--steps=4",
    "--name",
    "run",
];

/// What a run writes, without the times that it took.
#[derive(PartialEq)]
pub struct Trace {
    files: BTreeMap<String, Vec<u8>>,
    pub metrics: Vec<MetricsRecord>,
}

impl Trace {
    pub fn of(run: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut take = |path: &Path| {
            let name = path.strip_prefix(run).unwrap().display().to_string();
            files.insert(name, fs::read(path).unwrap());
        };
        take(&run.join("completions.jsonl"));
        // A run without held-out questions has no `eval`.
        for folder in ["adapter", "eval"].into_iter().filter(|folder| run.join(folder).exists()) {
            for entry in fs::read_dir(run.join(folder)).unwrap() {
                take(&entry.unwrap().path());
            }
        }
        Self { files, metrics: without_clocks(&run.join("metrics.jsonl")) }
    }

    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        let names = |trace: &Self| trace.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(other));
        for (name, bytes) in &self.files {
            assert!(*bytes == other.files[name], "`{name}` differs");
        }
        assert_eq!(self.metrics.len(), other.metrics.len());
        for (line, other) in self.metrics.iter().zip(&other.metrics) {
            assert_eq!(line, other);
        }
    }
}

/// The metrics of a run without its times and its memory.
pub fn without_clocks(path: &Path) -> Vec<MetricsRecord> {
    let mut metrics = metrics::read(path).unwrap();
    for line in &mut metrics {
        for measured in ["step_time", "rollout_time", "tokens_per_second", "peak_memory_gib"] {
            line.values.remove(measured);
        }
    }
    metrics
}

/// The first and the last evaluation too, in both logs, and the results in one file.
#[test]
fn every_evaluation_is_in_the_metrics_and_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let output = rft(folder.path()).args(SMALL).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = folder.path().join("runs/run");
    let lines = metrics::read(&run.join("metrics.jsonl")).unwrap();
    let evaluated: Vec<_> = lines.iter().filter(|line| line.values.contains_key("eval/sampled/accuracy")).collect();
    assert_eq!(evaluated.iter().map(|line| line.step).collect::<Vec<_>>(), [0, 2, 4]);
    let events = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path());
    let events = fs::read(events.into_iter().find(|it| it.to_string_lossy().contains("tfevents")).unwrap()).unwrap();
    assert_eq!(String::from_utf8_lossy(&events).matches("eval/greedy/accuracy").count(), 3);

    let summary: Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    let accuracy = &summary["held_out"]["sampled"]["accuracy"];
    let [before, after] = ["before", "after"].map(|when| accuracy[when]["value"].as_f64().unwrap());
    assert_eq!([Some(before), Some(after)], [0, 2].map(|at: usize| evaluated[at].values["eval/sampled/accuracy"]));
    assert!((accuracy["change"]["difference"].as_f64().unwrap() - (after - before)).abs() < 1e-12);
    let adapter = rft::disk::hash::sha256_file(&run.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(summary["sha256"]["adapter"].as_str(), Some(adapter.as_str()));
    assert_eq!((summary["steps"].as_u64(), summary["name"].as_str()), (Some(4), Some("run")));
    assert!(summary["training_seconds"].as_f64() > Some(0.0) && summary["metrics"]["reward"].is_number());

    // The terminal shows the same figures.
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains(&format!("{:.1} [", 100.0 * after)) && said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    assert!(said.contains("sampled accuracy") && said.contains("change"), "{said}");
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let traces = ["--threads=1", "--threads=2"].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let args = SMALL.map(|arg| if arg.starts_with("--threads") { threads } else { arg });
        rft(folder.path()).args(args).assert().success();
        Trace::of(&folder.path().join("runs/run"))
    });
    traces[0].assert_same(&traces[1]);
    assert!(traces[0].files.keys().any(|name| name == "eval/step-000004-greedy.jsonl"));
    let gaps: Vec<_> =
        traces[0].metrics.iter().filter_map(|line| line.values.get("sampling/sampling_logp_difference/max")).collect();
    assert_eq!(gaps, [&Some(0.0); 4], "sampler and trainer compute the same log-probabilities, bit for bit");
}

#[test]
fn the_embedded_model_learns() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "--ppe", "null-example", "--steps", "12", "--set", "eval.questions=0", "--name", "run"];
    rft(folder.path()).args(args).assert().success();
    let run = folder.path().join("runs/run");

    let rewards: Vec<f64> =
        metrics::read(&run.join("metrics.jsonl")).unwrap().iter().map(|line| line.values["reward"].unwrap()).collect();
    let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
    let (first, last) = (mean(&rewards[..3]), mean(&rewards[9..]));
    assert!(last > first + 0.1, "{rewards:?}");

    let model = rft::model::source::ModelSource::open("tiny", "main").unwrap().config;
    let adapter = load_adapter(&run.join("adapter"), &model, None).unwrap();
    let moved = |(name, slot): (&String, &rft::model::lora::Slot)| {
        !name.contains(".lora_B.") || adapter.params[slot.range.clone()].iter().any(|value| *value != 0.0)
    };
    assert!(adapter.slots.iter().all(moved), "a LoRA B is still zero");

    let question = "Anna has 12 apples and buys 5 more. How many does she have?";
    let ask = |format: &str| {
        let args = ["generate", "--adapter", "runs/run", "--temperature", "0", "--output-format", format, question];
        let output = rft(folder.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let answer = ask("text");
    assert!(answer.contains("\\boxed{"), "{answer}");
    assert_eq!(answer, ask("text"));
    let json: serde_json::Value = serde_json::from_str(&ask("json")).unwrap();
    assert_eq!(json["text"].as_str(), Some(answer.trim_end_matches('\n')));
    assert_eq!(json["finish"], "<|im_end|>");
    let logprobs = json["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), json["tokens"].as_array().unwrap().len());
    assert!(logprobs.iter().all(|value| value.as_f64().unwrap() <= 0.0), "{json}");
}

/// Four completions: right, right in the wrong format, wrong, truncated.
fn mixed(lab: &Lab, completion: usize) -> Vec<u32> {
    match completion {
        0 => lab.right(),
        1 => lab.ended("It is \\boxed{5}."),
        2 => lab.ended("Who knows?"),
        _ => lab.cut("And then"),
    }
}

#[test]
fn everything_is_logged_under_the_names_of_trl() {
    let lab = Lab::new(&["grpo.beta=0.1"]);
    let (outcome, state) = lab.run(|_, completion, _| mixed(&lab, completion));
    assert_eq!((outcome.steps, state.counters.questions), (2, 4));

    let metrics = lab.metrics();
    assert_eq!(metrics.iter().map(|line| line.step).collect::<Vec<_>>(), [1, 2]);
    let first = |name: &str| metrics[0].values[name].unwrap_or_else(|| panic!("{name} is not finite"));
    for name in [
        "clip_ratio/high_max",
        "clip_ratio/high_mean",
        "clip_ratio/low_mean",
        "clip_ratio/low_min",
        "clip_ratio/region_mean",
        "completions/max_terminated_length",
        "completions/mean_terminated_length",
        "completions/min_terminated_length",
        "entropy",
        "kl",
        "loss",
        "num_tokens",
        "step_time",
    ] {
        first(name);
    }
    if cfg!(target_os = "linux") {
        let peaks: Vec<f64> = metrics.iter().map(|line| line.values["peak_memory_gib"].unwrap()).collect();
        // The test program alone has megabytes; a wrong unit would be off by at least a factor of 1000.
        assert!(peaks[0] > 0.002 && peaks[0] <= peaks[1] && peaks[1] < 64.0, "{peaks:?}");
    }
    let lengths: Vec<usize> = (0..4).map(|completion| mixed(&lab, completion).len()).collect();
    let prompts: usize = lab.questions[..2].iter().map(|item| 4 * item.prompts[0].ids.len()).sum();
    // Rewards 1, 1/2, 0, 0: variance of both groups together 11/56.
    for (name, expected) in [
        ("reward", 0.375),
        ("reward_std", (11.0f64 / 56.0).sqrt()),
        ("frac_reward_zero_std", 0.0),
        ("rewards/accuracy/mean", 0.5),
        ("rewards/format/mean", 0.25),
        ("completions/clipped_ratio", 0.25),
        ("completions/mean_length", lengths.iter().sum::<usize>() as f64 / 4.0),
        ("completions/min_length", *lengths.iter().min().unwrap() as f64),
        ("completions/max_length", *lengths.iter().max().unwrap() as f64),
        ("completions/finish/length", 0.25),
        ("num_tokens", (prompts + 2 * lengths.iter().sum::<usize>()) as f64),
        ("epoch", 0.25),
        ("learning_rate", 1e-3),
        ("sampling/sampling_logp_difference/max", 0.0),
        ("non_finite_logprobs", 0.0),
    ] {
        assert!((first(name) - expected).abs() < 1e-12, "{name} is {}, not {expected}", first(name));
    }
    assert!(first("grad_norm") > 0.0);

    let groups = lab.completions();
    assert_eq!(
        groups.iter().map(|group| &*group.question_id).collect::<Vec<_>>(),
        ["sum/0", "sum/1", "sum/2", "sum/3"]
    );
    assert_eq!(groups.iter().map(|group| group.step).collect::<Vec<_>>(), [1, 1, 2, 2]);
    for group in &groups {
        assert_eq!(
            group.completions.iter().map(|completion| completion.reward).collect::<Vec<_>>(),
            [1.0, 0.5, 0.0, 0.0]
        );
        let finishes: Vec<_> = group.completions.iter().map(|completion| &*completion.finish).collect();
        assert_eq!(finishes, ["<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "length"]);
        assert!(group.completions.iter().map(|completion| completion.advantage).sum::<f32>().abs() < 1e-6);
        assert_eq!(group.completions[1].text, "It is \\boxed{5}.");
    }
    let events = |name: &str| name.starts_with("events.out.tfevents");
    let names = fs::read_dir(lab.run_dir().path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| events(&name.to_string_lossy())).count(), 1);
}

#[test]
fn flat_groups_are_replaced_by_new_questions() {
    let lab = Lab::new(&["rollout.prompts_per_step=3", "grpo.max_refills=2", "train.steps=1"]);
    // No completion of questions 0 and 3 is right.
    let hard = [lab.questions[0].prompts[0].key, lab.questions[3].prompts[0].key];
    let (_, state) = lab.run(|prompt, completion, _| match completion {
        0 if !hard.contains(&prompt.key) => lab.right(),
        _ => lab.ended("Who knows?"),
    });
    let ids: Vec<_> = lab.completions().into_iter().map(|group| group.question_id).collect();
    assert_eq!(ids, ["sum/1", "sum/2", "sum/4"]);
    assert_eq!(state.counters.questions, 5, "replaced questions count as used");
    let values = &lab.metrics()[0].values;
    assert_eq!((values["frac_reward_zero_std"], values["epoch"]), (Some(0.0), Some(5.0 / 8.0)));
}

#[test]
fn replacing_flat_groups_is_limited() {
    let lab = Lab::new(&["grpo.max_refills=2", "train.steps=1"]);
    let (_, state) = lab.run(|_, _, _| lab.ended("Who knows?"));
    let ids: Vec<_> = lab.completions().into_iter().map(|group| group.question_id).collect();
    assert_eq!(ids, ["sum/4", "sum/5"], "the last round is used unchanged");
    assert_eq!(state.counters.questions, 6);
}

/// With the same random numbers, the completions would be the same, and a refill would bring nothing new.
#[test]
fn a_repeated_question_in_a_step_gets_new_random_numbers() {
    let mut lab = Lab::new(&["grpo.max_refills=3", "train.steps=1"]);
    lab.questions.truncate(3);
    let keys = RefCell::new(Vec::new());
    lab.run(|prompt, completion, step| {
        if completion == 0 && step == 1 {
            keys.borrow_mut().push(prompt.key);
        }
        lab.ended("Who knows?")
    });
    let keys = keys.into_inner();
    assert_eq!(keys.len(), 8);
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 8, "{keys:?}");
}

#[test]
fn a_flat_batch_does_not_change_the_adapter_and_is_explained() {
    let lab = Lab::new(&["train.steps=1"]);
    let before = lab.state().adapter.params;
    let (_, state) = lab.run(|_, _, _| lab.ended("Who knows?"));
    assert_eq!(lab.metrics()[0].values["grad_norm"], Some(0.0));
    assert_eq!(state.adapter.params, before);
    let said = lab.said();
    assert!(said.contains("none of 8 completions earned a reward\nhint: read some in completions.jsonl"), "{said}");
}

#[test]
fn masked_completions_have_no_gradient() {
    let adapter = |sets: &[&str], end: &str| {
        let lab = Lab::new(&[&["train.steps=1"], sets].concat());
        let (_, state) =
            lab.run(|_, completion, _| if completion == 3 { lab.cut(end) } else { mixed(&lab, completion) });
        state.adapter.params
    };
    let masked = ["grpo.mask_truncated_completions=true"];
    assert_eq!(adapter(&masked, "And then"), adapter(&masked, "In short"));
    assert_ne!(adapter(&[], "And then"), adapter(&[], "In short"));
}

#[test]
fn truncated_completions_get_the_penalty() {
    let lab = Lab::new(&["grpo.truncation_penalty=0.25", "train.steps=1"]);
    lab.run(|_, completion, _| mixed(&lab, completion));
    let rewards: Vec<f32> = lab.completions()[0].completions.iter().map(|completion| completion.reward).collect();
    assert_eq!(rewards, [1.0, 0.5, 0.0, -0.25]);
    let values = &lab.metrics()[0].values;
    assert_eq!((values["reward"], values["rewards/accuracy/mean"]), (Some(1.25 / 4.0), Some(0.5)));
}

#[test]
fn a_batch_that_is_used_several_times_goes_off_policy_and_stays_finite() {
    for loss in ["grpo", "dapo", "dr_grpo", "bnpo", "gspo", "cispo"] {
        let sets =
            [&format!("grpo.loss_type={loss}"), "grpo.epsilon_high=5.0", "grpo.num_iterations=2", "grpo.beta=0.01"];
        let lab = Lab::new(&[&sets[..], &["grpo.steps_per_generation=2", "train.learning_rate=0.01"]].concat());
        let (_, state) = lab.run(|_, completion, _| mixed(&lab, completion));
        assert_eq!((state.counters.updates, state.counters.optimizer_steps), (8, 8), "{loss}");
        assert!(state.adapter.params.iter().all(|value| value.is_finite()), "{loss}");
        for line in lab.metrics() {
            assert!(line.non_finite.is_empty(), "{loss}: {:?}", line.non_finite);
            assert!(line.values["ratio/min"] < Some(1.0) && line.values["ratio/max"] > Some(1.0), "{loss}: {line:?}");
        }
    }
}

/// Four completions in one micro-batch, or one in each.
#[test]
fn the_update_does_not_depend_on_the_micro_batches() {
    for loss in ["grpo", "dapo", "dr_grpo", "bnpo", "gspo", "cispo"] {
        let update = |max_tokens: usize| {
            // With this epsilon, AdamW's step is the gradient itself, divided by little more than 1.
            let adamw = ["train.adam_epsilon=1.0", "train.learning_rate=1.0", "train.max_grad_norm=0.0"];
            let loss = format!("grpo.loss_type={loss}");
            let sets = [&loss, "grpo.epsilon_high=5.0", "train.steps=1", "rollout.temperature=0.7"];
            let mut lab = Lab::new(&[&adamw[..], &sets].concat());
            lab.config.train.max_tokens_per_micro_batch = max_tokens;
            let before = lab.state().adapter.params;
            let (_, state) = lab.run(|_, completion, _| mixed(&lab, completion));
            state.adapter.params.iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>()
        };
        let whole = update(8192);
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for max_tokens in [1, 400] {
            let difference: Vec<f32> = whole.iter().zip(update(max_tokens)).map(|(a, b)| a - b).collect();
            let (gap, size) = (largest(&difference), largest(&whole));
            assert!(size > 0.0 && gap <= 1e-5 * size, "{loss}: {gap} of {size}");
        }
    }
}

/// Random weights, one of which is so large that what is computed from it is not finite.
struct Spoiled(RandomWeights);

impl Weights for Spoiled {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = self.0.get(name, shape)?;
        if name == "model.layers.1.mlp.down_proj.weight" {
            values[7] = f32::MAX;
        }
        Ok(values)
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

#[test]
fn weights_that_are_too_large_stop_the_run_before_its_first_step() {
    let mut lab = Lab::new(&[]);
    lab.reload(|weights| Box::new(Spoiled(weights)));
    let mut engine = lab.engine(|_, _, _| panic!("nothing should be sampled"));
    let error = lab.train(&mut engine, &mut lab.state()).err().unwrap().to_string();
    let tensor = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
    assert!(error.starts_with("no finite gradient reaches 28 of 28 adapter tensors"), "{error}");
    assert!(error.contains(tensor) && error.contains("\nhint: check the model's files"), "{error}");
}

#[test]
fn an_adapter_that_is_not_finite_ends_the_run_and_is_not_written() {
    let mut lab = Lab::new(&["train.steps=1", "eval.questions=0"]);
    let train = |lab: &Lab| {
        let mut engine = lab.engine(|_, completion, _| mixed(lab, completion));
        lab.train(&mut engine, &mut lab.state()).map(drop)
    };
    train(&lab).unwrap();
    let good = fs::read(lab.run_dir().adapter().join("adapter_model.safetensors")).unwrap();
    lab.config.train.steps = Some(3);
    lab.config.train.learning_rate = 1e308;
    let error = train(&lab).unwrap_err().to_string();
    assert!(error.starts_with("step 2: weights of the adapter became infinite or NaN in an update"), "{error}");
    assert!(
        error.contains("with learning rate 1e308") && error.contains("checkpoints/step-000001`\nhint: "),
        "{error}"
    );
    assert_eq!(lab.run_dir().checkpoints().unwrap(), [1]);
    assert!(fs::read(lab.run_dir().adapter().join("adapter_model.safetensors")).unwrap() == good);

    let mut lab = Lab::new(&["eval.questions=0"]);
    lab.config.train.learning_rate = f64::INFINITY;
    let error = train(&lab).unwrap_err().to_string();
    assert!(error.contains("no checkpoint was saved before it"), "{error}");
    assert!(!lab.run_dir().adapter().exists() && lab.run_dir().checkpoints().unwrap().is_empty());
}

#[test]
fn an_update_that_is_too_large_is_named_as_the_cause_of_what_follows() {
    let mut lab = Lab::new(&["eval.questions=0"]);
    lab.config.train.learning_rate = 1000.0;
    // The second step has no reward.
    lab.run(|_, completion, step| if step == 1 { mixed(&lab, completion) } else { lab.ended("Who knows?") });
    let said = lab.said();
    assert!(said.contains("changed a weight of the adapter by 1.00e3, with learning rate 1e3"), "{said}");
    assert!(said.contains("none of 8 completions earned a reward\nhint: an earlier update changed a weight"), "{said}");
}

/// Records NaN log-probabilities, which make every update after the first of a batch not finite.
struct Poisoned<'a>(Honest<'a>);

impl Engine for Poisoned<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
        let mut groups = self.0.generate(adapter, request, watch)?;
        groups.iter_mut().flatten().flatten().for_each(|completion| completion.logprobs.fill(f32::NAN));
        Ok(groups)
    }
}

#[test]
fn an_update_that_is_not_finite_is_skipped_and_its_batch_kept() {
    let lab = Lab::new(&["grpo.num_iterations=3"]);
    let mut state = lab.state();
    lab.train(&mut Poisoned(lab.engine(|_, completion, _| mixed(&lab, completion))), &mut state).unwrap();
    assert_eq!((state.counters.step, state.counters.updates, state.counters.optimizer_steps), (2, 6, 2));
    assert!(state.adapter.params.iter().all(|value| value.is_finite()));
    let sampled: usize = lab.completions().iter().flat_map(|group| &group.completions).map(|it| it.tokens).sum();
    let counted: f64 = lab.metrics().iter().map(|line| line.values["non_finite_logprobs"].unwrap()).sum();
    assert_eq!(counted, sampled as f64, "each NaN is counted");
    assert!(lab.metrics()[0].non_finite.contains(&"loss".to_owned()), "{:?}", lab.metrics()[0].non_finite);
    assert!(lab.said().contains("so the update was skipped\nhint: lower `train.learning_rate`"), "{}", lab.said());

    let dump = fs::read(lab.run_dir().path().join("skipped-update-000002.json")).unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
    assert_eq!((&dump["step"], &dump["update"]), (&1.into(), &2.into()));
    assert_eq!(dump["groups"][1]["prompt"], serde_json::json!(lab.questions[1].prompts[0].ids));
    assert_eq!(dump["groups"][1]["completions"][0]["tokens"], serde_json::json!(lab.right()));
}

#[test]
fn three_updates_in_a_row_that_are_not_finite_stop_the_run() {
    let lab = Lab::new(&["grpo.num_iterations=4"]);
    let mut engine = Poisoned(lab.engine(|_, completion, _| mixed(&lab, completion)));
    let error = lab.train(&mut engine, &mut lab.state()).err().unwrap().to_string();
    assert!(error.starts_with("3 updates in a row were not finite; the last: the loss is NaN"), "{error}");
    assert!(error.contains("skipped-update-000004.json"), "{error}");
    assert!(error.contains("\nhint: lower"), "{error}");
}
