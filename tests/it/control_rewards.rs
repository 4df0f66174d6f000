//! Control rewards: a random one that no thread or resume changes, an inverted one that negates accuracy, the majority of a
//! group without the gold answer, and the format alone.

use std::fs;
use std::path::Path;

use rft::config::{ConfigLayers, RunConfig, ScaleRewards, resolve};
use rft::data::Question;
use rft::grpo::advantage::advantages;
use rft::prompt::{self, PriorPrompt};
use rft::reward::{CompletionKey, RewardInput, RewardSet};
use rft::run::completions;
use rft::run::metrics::{self, MetricsRecord};
use rft::stats::mean;

use crate::cli::{folder, rft, with};
use crate::train::{SMALL, Trace};

/// The preset `tiny` with one rewarded component.
fn only(name: &str) -> RunConfig {
    let sets = weights(name).iter().map(|set| set.trim_start_matches("--set=").to_owned()).collect();
    resolve(&ConfigLayers { preset: Some("tiny".into()), sets, ..ConfigLayers::default() }).unwrap().config
}

/// The options that reward `name` and nothing else.
fn weights(name: &str) -> Vec<String> {
    let zero = ["accuracy", "format"].into_iter().filter(|it| *it != name);
    let zero = zero.map(|it| format!("--set=reward.{it}.weight=0"));
    zero.chain([format!("--set=reward.{name}.weight=1")]).collect()
}

/// Groups of `size` completions with the given answers, as `name` alone rewards them.
fn rewards(name: &str, groups: &[Vec<u64>]) -> Vec<Vec<f64>> {
    let (config, prior) = (only(name), prompt::find("reasoning").unwrap());
    let set = RewardSet::from_config(&config.reward, &prior, 96).unwrap();
    let question = Question {
        id: "1".into(),
        text: "What is 3 + 4?".into(),
        gold: "7".into(),
        source: "test".into(),
        extra: serde_json::Map::new(),
    };
    let texts: Vec<Vec<String>> =
        groups.iter().map(|group| group.iter().map(|answer| format!("\\boxed{{{answer}}}")).collect()).collect();
    let inputs: Vec<RewardInput> =
        texts.iter().zip(0..).flat_map(|(group, at)| inputs(&question, &prior, group, at)).collect();
    let totals: Vec<f64> = set.score_all(&inputs).unwrap().iter().map(|scored| scored.total).collect();
    totals.chunks(groups[0].len()).map(<[f64]>::to_vec).collect()
}

fn inputs<'a>(question: &'a Question, prompt: &'a PriorPrompt, group: &'a [String], at: u64) -> Vec<RewardInput<'a>> {
    let input = |(response, completion): (&'a String, u64)| RewardInput {
        question,
        response,
        prompt,
        prefilled: false,
        tokens: 10,
        truncated: false,
        key: CompletionKey { seed: 42, step: 1 + at / 64, question: at, completion },
    };
    group.iter().zip(0..).map(input).collect()
}

/// Every second completion is right. On average it gains nothing over the others.
#[test]
fn the_mean_advantage_of_a_random_reward_is_zero() {
    let groups = vec![vec![7, 8, 7, 8, 7, 8, 7, 8]; 4000];
    let rewards = rewards("random", &groups);
    assert!((mean(&rewards.concat()) - 0.5).abs() < 4.0 * 0.5 / 32_000f64.sqrt(), "{}", mean(&rewards.concat()));
    let advantages = advantages(&rewards, ScaleRewards::Group).values;
    let all: Vec<f64> = advantages.iter().flatten().map(|&it| it.into()).collect();
    assert!(mean(&all).abs() < 1e-7, "{}", mean(&all));
    // Advantages have a standard deviation of about 1; the bound is four standard errors.
    let right: Vec<f64> = advantages.iter().flat_map(|group| group.iter().step_by(2)).map(|&it| it.into()).collect();
    assert!(mean(&right).abs() < 4.0 / (right.len() as f64).sqrt(), "{}", mean(&right));
}

#[test]
fn the_inverted_reward_negates_the_advantages_of_accuracy() {
    let right = |count: usize| (0..8).map(|it| if it < count { 7 } else { 8 }).collect();
    let groups: Vec<Vec<u64>> = (0..=8).map(right).collect();
    let of = |name: &str, scale| advantages(&rewards(name, &groups), scale).values;
    for scale in [ScaleRewards::Group, ScaleRewards::None] {
        let (accuracy, inverted) = (of("accuracy", scale), of("inverted", scale));
        let negated: Vec<Vec<f32>> = accuracy.iter().map(|group| group.iter().map(|it| 0.0 - it).collect()).collect();
        assert_eq!(inverted, negated);
        assert!(accuracy.concat().iter().any(|it| *it > 0.5));
    }
}

/// Trains a run of this name. `changed` is an option in place of the one that it begins like.
fn train(folder: &Path, name: &str, changed: &str, more: &[String]) {
    let option = |arg: &str| arg.split('=').next().map(str::to_owned);
    let args = SMALL.map(|arg| match arg {
        "run" => name,
        arg if option(arg) == option(changed) && !changed.is_empty() => changed,
        arg => arg,
    });
    rft(folder).args(args).args(more).assert().success();
}

#[test]
fn control_rewards_do_not_depend_on_threads_or_a_resume() {
    let folder = folder();
    let path = folder.path();
    let mut sets = weights("random");
    sets.push("--set=reward.majority.weight=1".into());
    train(path, "one", "", &sets);
    let whole = Trace::of(&path.join("runs/one"));

    train(path, "two", "--threads=2", &sets);
    whole.assert_same(&Trace::of(&path.join("runs/two")));

    train(path, "half", "--steps=2", &sets);
    rft(path).args(["train", "--threads=1", "--resume=runs/half", "--steps=4"]).assert().success();
    whole.assert_same(&Trace::of(&path.join("runs/half")));
}

/// The gold answers are replaced by garbage, and the run writes the same adapter.
#[test]
fn the_majority_reward_never_uses_the_gold_answer() {
    let rows = |gold: fn(usize) -> String| -> String {
        let row = |i: usize| {
            let row = serde_json::json!({ "question": format!("What is {i} + 2?"), "answer": gold(i) });
            format!("{row}\n")
        };
        (0..32).map(row).collect()
    };
    let folder = with("gold.jsonl", rows(|i| (i + 2).to_string()).as_bytes());
    fs::write(folder.path().join("garbage.jsonl"), rows(|i| format!("\\oint @{i}"))).unwrap();
    let sets = weights("majority");
    let [gold, garbage] = ["gold", "garbage"].map(|name| {
        train(folder.path(), name, "", &[&sets[..], &[format!("--data={name}.jsonl")]].concat());
        let run = folder.path().join("runs").join(name);
        let completions =
            completions::read(&run.join("completions.jsonl")).unwrap().into_iter().flat_map(|it| it.completions);
        let rewards: Vec<String> = completions
            .map(|it| {
                format!("{} {:?} {} {:?} {}", it.text, it.rewards["majority"], it.reward, it.answer, it.advantage)
            })
            .collect();
        (rewards, fs::read(run.join("adapter/adapter_model.safetensors")).unwrap())
    });
    assert!(gold.0.iter().any(|it| it.contains(" Some(1.0) ")) && gold.0.iter().any(|it| it.contains(" Some(0.0) ")));
    assert_eq!(gold.0, garbage.0);
    assert!(gold.1 == garbage.1, "the adapters differ");
}

#[test]
fn each_control_reward_trains_and_accuracy_is_logged() {
    let folder = folder();
    for name in ["random", "inverted", "majority", "format"] {
        let args = SMALL.map(|arg| if arg == "run" { name } else { arg });
        let output = rft(folder.path()).args(args).args(weights(name)).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let note = match name {
            "format" => "note     the reward is not tested: no component with a weight checks answers".to_owned(),
            control => format!("note     control rewards are not tested: {control}"),
        };
        assert!(said.contains(&note), "{said}");
        let all = metrics::read(&folder.path().join("runs").join(name).join("metrics.jsonl")).unwrap();
        let steps: Vec<&MetricsRecord> = all.iter().filter(|line| line.values.contains_key("reward")).collect();
        assert_eq!(steps.len(), 4);
        for step in steps {
            let value = |key: &str| step.values[key].unwrap();
            let (own, accuracy) = (value(&format!("rewards/{name}/mean")), value("rewards/accuracy/mean"));
            assert_eq!(value("reward"), own, "{name}");
            if name == "inverted" {
                assert!((own - (1.0 - accuracy)).abs() < 1e-12, "{own} and {accuracy}");
            }
        }
        assert!(all.iter().any(|line| line.values.contains_key("eval/sampled/accuracy")), "{name}");
    }
}
