//! A sweep file expands to runs and evaluations, and a mistake in it is an error with its position.

use std::fs;

use insta::assert_snapshot;
use rft::sweep::{Sweep, SweepFile, expand};

use super::{read, sweep};
use crate::cli::with;

fn error(text: &str) -> String {
    read(text, &[]).expect_err("an invalid sweep").to_string()
}

fn names(sweep: &Sweep) -> Vec<&str> {
    sweep.runs.iter().map(|it| it.name.as_str()).collect()
}

#[test]
fn grid_combines_zip_pairs_and_list_adds() {
    let sweep = sweep(
        r#"
        train.steps = 3
        [sweep]
        seeds = [7, 8]
        [sweep.grid]
        prompt.ppe = ["reasoning", "none"]
        "train.learning_rate" = [1e-3, 2e-3]
        [sweep.zip]
        "rollout.num_generations" = [4, 8]
        "rollout.prompts_per_step" = [8, 4]
        [[sweep.list]]
        name = "alone"
        "reward.format.weight" = 0.0
        "#,
    );
    assert_eq!(sweep.name, "lab");
    assert_eq!(sweep.runs.len(), 2 * (2 * 2 * 2 + 1));
    assert_eq!(
        names(&sweep)[..5],
        [
            "num_generations=4-prompts_per_step=8-reasoning-learning_rate=0.001-s7",
            "num_generations=4-prompts_per_step=8-reasoning-learning_rate=0.002-s7",
            "num_generations=4-prompts_per_step=8-none-learning_rate=0.001-s7",
            "num_generations=4-prompts_per_step=8-none-learning_rate=0.002-s7",
            "num_generations=8-prompts_per_step=4-reasoning-learning_rate=0.001-s7",
        ]
    );
    // All arms of a seed come before the next seed, and are in the same order.
    assert_eq!(
        names(&sweep)[8..10],
        ["alone-s7", "num_generations=4-prompts_per_step=8-reasoning-learning_rate=0.001-s8"]
    );
    for run in &sweep.runs {
        let config = &sweep.configs[&run.name];
        assert_eq!((config.train.seed, config.train.steps), (run.seed, Some(3)));
        if run.arm != "alone" {
            assert_eq!(config.rollout.completions_per_step(), 32);
            assert_eq!(run.varies["prompt.ppe"].as_str(), config.prompt.ppe.as_deref());
            assert_eq!(run.varies["train.learning_rate"], config.train.learning_rate);
        }
    }
    let alone = &sweep.configs["alone-s8"];
    assert_eq!((alone.reward.format.weight, alone.rollout.num_generations), (Some(0.0), 8));
    assert!(sweep.evals.is_empty());
}

#[test]
fn conditions_see_the_whole_configuration() {
    let sweep = sweep(
        r#"
        grpo.beta = 0.5
        sweep.grid."prompt.ppe" = ["reasoning", "planning", "none"]
        [[sweep.when]]
        if = { "prompt.ppe" = ["none", "planning"], "grpo.beta" = 0.5 }
        set = { "train.learning_rate" = 2e-3 }
        [[sweep.when]]
        if = { "grpo.beta" = 0 }
        set = { "train.learning_rate" = 9.0 }
        "#,
    );
    let rates: Vec<f64> = sweep.runs.iter().map(|it| sweep.configs[&it.name].train.learning_rate).collect();
    assert_eq!(rates, [1e-3, 2e-3, 2e-3]);
    assert_eq!(sweep.runs[0].varies.len(), 1);
    assert_eq!(sweep.runs[1].varies["train.learning_rate"], 2e-3);
    // Without seeds, the configuration's own.
    assert_eq!((sweep.runs[0].name.as_str(), sweep.seeds.as_slice()), ("reasoning-s42", &[42][..]));
}

#[test]
fn every_evaluation_is_listed_once() {
    let text = r#"
        [sweep]
        seeds = [1, 2]
        grid."prompt.ppe" = ["reasoning", "none"]
        list = [{ name = "alone", "prompt.ppe" = "reasoning", "reward.format.weight" = 0.0 }]
        [sweep.eval]
        benchmarks = ["arithmetic-1", "ARITHMETIC-2"]
        test_prompts = ["own", "none", "think"]
        limit = 5
        "#;
    let sweep = sweep(text);
    let of = |run: Option<&str>| -> Vec<(&str, &str, Option<&str>)> {
        let evals = sweep.evals.iter().filter(|it| it.run.as_deref() == run);
        evals.map(|it| (it.name.as_str(), it.test_prompt.as_str(), it.ppe.as_deref())).collect()
    };
    // One untrained model for all arms and seeds; `think` is an alias of `reasoning`.
    assert_eq!(
        of(None),
        [("base-under-reasoning", "reasoning", Some("reasoning")), ("base-under-none", "none", Some("none")),]
    );
    assert_eq!(
        of(Some("reasoning-s2")),
        [("reasoning-s2-under-reasoning", "reasoning", None), ("reasoning-s2-under-none", "none", Some("none"))]
    );
    assert_eq!(
        of(Some("none-s1")),
        [("none-s1-under-none", "none", None), ("none-s1-under-reasoning", "reasoning", Some("reasoning"))]
    );
    assert_eq!(of(Some("alone-s1")).len(), 2);
    assert_eq!(sweep.evals.len(), 2 + 6 * 2);
    assert!(sweep.evals.iter().all(|it| it.benches == ["arithmetic-1", "arithmetic-2"]));

    let crossed = read(text, &["sweep.eval.test_prompts=[\"all\"]", "sweep.eval.base=false"]).unwrap();
    assert_eq!(crossed.evals.len(), 6 * 2);
    // Three models give three untrained models to evaluate.
    let two = read(text, &["sweep.zip={\"model.revision\"=[\"a\", \"b\"]}"]).unwrap();
    let bases: Vec<&str> = two.evals.iter().filter(|it| it.run.is_none()).map(|it| it.name.as_str()).collect();
    // The listed arm has the revision `main`.
    assert_eq!(bases.len(), 6);
    assert_eq!((bases[0], bases[2]), ("base1-under-reasoning", "base2-under-reasoning"));
}

#[test]
fn any_value_gives_a_valid_file_name() {
    let long = "x".repeat(300);
    let text = format!(
        r#"
        sweep.grid."model.path" = ["../../etc", "..", "-rf", "a/b", "A/B", "a b", "{long}1", "{long}2", "  ", "日本", "a'\"$(rm)"]
        "#
    );
    let sweep = sweep(&text.replace("\"  \",", ""));
    let found = names(&sweep);
    assert_eq!(found[0], "path=..-..-etc-s42");
    assert_eq!(found[3..5], ["path=a-b-s42", "path=A-B-2-s42"]);
    let mut folded: Vec<String> = found.iter().map(|it| it.to_lowercase()).collect();
    folded.sort();
    folded.dedup();
    assert_eq!(folded.len(), sweep.runs.len());
    for name in found {
        assert!(name.len() < 100 && !name.starts_with(['-', '.']), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.=+".contains(c)), "{name}");
    }
    // An invalid value is reported with its position.
    assert!(error(&text).contains("`model.path`: expected a value, found an empty string"));
}

#[test]
fn a_prompt_file_gives_its_name() {
    let prompt = "name = \"mine\"\ntext = \"Think.\"\n";
    let folder = with("p/first.toml", prompt.as_bytes());
    let path = |name: &str| folder.path().join("p").join(name).display().to_string();
    fs::write(path("second.toml"), prompt.replace("Think", "Guess")).unwrap();
    let sweep = sweep(&format!(
        r#"
        sweep.grid."prompt.ppe" = ["{}", "{}"]
        sweep.eval.benchmarks = ["arithmetic"]
        sweep.eval.test_prompts = ["all"]
        "#,
        path("first.toml"),
        path("second.toml")
    ));
    assert_eq!(names(&sweep), ["first-s42", "second-s42"]);
    // Both files have the name `mine`.
    let evals: Vec<&str> = sweep.evals.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(evals[..3], ["base-under-mine", "base-under-mine-2", "first-s42-under-mine"]);
    assert_eq!(evals.len(), 6);
}

#[test]
fn mistakes_are_reported_with_their_place() {
    assert_snapshot!(error("[sweep]\nsede = [1]"), @r"
    lab.toml:2:1: unknown key `sweep.sede`
    hint: did you mean `sweep.seeds`?
    ");
    assert_snapshot!(error("[sweep]\nseeds = [1, -2]"), @"lab.toml:2:9: `sweep.seeds[1]`: expected an integer of at least 0, found integer -2");
    assert_snapshot!(error("[sweep]\nseeds = [1, 2, 1]"), @r"
    lab.toml:1:1: `sweep.seeds`: 1 occurs twice
    hint: list each seed once
    ");
    assert_snapshot!(error("[sweep]\nname = \"a/b\""), @r"
    lab.toml:2:8: `sweep.name`: `a/b` is not a valid folder name
    hint: use letters, digits, `-`, `_` and `.`
    ");
    assert_snapshot!(error("[sweep.grid]\ntrain.learning_rat = [1, 2]"), @r"
    lab.toml:2:7: unknown key `train.learning_rat`
    hint: did you mean `train.learning_rate`?
    ");
    assert_snapshot!(error("[sweep.grid]\n\"train.learning_rate\" = [1e-3,\n \"fast\"]"), @r#"lab.toml:3:2: `train.learning_rate`: expected number, found string "fast""#);
    assert_snapshot!(error("[sweep.grid]\n\"train.steps\" = 5"), @r"
    lab.toml:2:17: `sweep.grid`: the values of `train.steps` are not a list
    hint: write train.steps = [5, ...]
    ");
    assert_snapshot!(error("[sweep.grid]\n\"train.seed\" = [5]"), @r"
    lab.toml:2:17: `train.seed` cannot vary
    hint: set the seeds in sweep.seeds
    ");
    assert_snapshot!(error("[sweep.zip]\n\"train.steps\" = [5]\n\"train.epochs\" = [1, 2]"), @r"
    lab.toml:3:19: `train.epochs` has 2 values, `train.steps` has 1
    hint: give all lists of [sweep.zip] the same length, or use [sweep.grid] to combine every value with every other
    ");
    assert_snapshot!(error("sweep.grid.\"train.steps\" = [5]\nsweep.zip.\"train.steps\" = [5]"), @r"
    lab.toml:2:28: `train.steps` varies twice
    hint: list the key once, in [sweep.grid] or in [sweep.zip]
    ");
    assert_snapshot!(error("sweep.grid.\"train.steps\" = [5, 5]"), @r"
    lab.toml:1:32: this arm is the same as `steps=5`
    hint: remove one of them; to train with more seeds, set sweep.seeds
    ");
    assert_snapshot!(error("sweep.grid.\"rollout.num_generations\" = [1]"), @r"
    lab.toml:1:41: `rollout.num_generations`: a group of size 1 has nothing to compare
    hint: use 2 or more; the study uses 8
    ");
    assert_snapshot!(error("[sweep]\n[[sweep.when]]\nif = { \"prompt.pe\" = \"none\" }\nset = { \"train.steps\" = 1 }"), @r"
    lab.toml:3:8: unknown key `prompt.pe`
    hint: did you mean `prompt.ppe`?
    ");
    assert_snapshot!(error("[sweep]\n[[sweep.when]]\nif = { \"prompt.ppe\" = \"none\" }"), @r#"
    lab.toml:2:1: `sweep.when` requires `if` and `set`
    hint: for example if = { "prompt.ppe" = "none" } and set = { "train.learning_rate" = 2e-3 }
    "#);
    assert_snapshot!(error("sweep.grid.\"train.steps\" = [5]\n[[sweep.when]]\nif = { \"train.steps\" = 5 }\nset = { \"train.steps\" = 1 }"), @r"
    lab.toml:4:25: `train.steps` is varied, so a condition cannot set it
    hint: write each arm as a [[sweep.list]]
    ");
    assert_snapshot!(error("[sweep.eval]\nbenchmarks = [\"arithmetik\"]").lines().next().unwrap(), @"lab.toml:2:14: `sweep.eval.benchmarks`: unknown benchmark `arithmetik`");
    assert_snapshot!(error("[sweep]\n[slurm]\nparition = \"x\""), @r"
    lab.toml:3:1: unknown key `slurm.parition`
    hint: did you mean `slurm.partition`?
    ");
    assert_snapshot!(error("train.steps = 1"), @r"
    `lab.toml` has no section [sweep]
    hint: run `rft train --config lab.toml` to train a single run
    ");
    let varied = read("sweep.grid.\"train.steps\" = [5]", &["train.steps=3"]).unwrap_err().to_string();
    assert_snapshot!(varied, @r"
    --set train.steps=3: this sweep varies `train.steps`
    hint: set its values in [sweep.grid], [sweep.zip] or [[sweep.list]]
    ");
    // And vice versa: a sweep is not a configuration of one run.
    let lab = with("lab.toml", b"[sweep]\nname = \"x\"\n");
    assert_snapshot!(crate::cli::error(&lab, &["train", "--config", "lab.toml"]), @r"
    error: lab.toml:1:2: unknown section `sweep`
    hint: this is a sweep file; run it with `rft sweep`
    ");
}

#[test]
fn the_shipped_sweeps_are_the_study_and_its_demonstration() {
    let read = |name: &str| expand(&SweepFile::read(name, &[]).unwrap()).unwrap();
    let (study, tiny) = (read("ppe-study"), read("ppe-study-tiny"));
    let arms = [
        "reasoning",
        "planning",
        "code",
        "recall",
        "null-example",
        "none",
        "answer-only",
        "tag-swap",
        "null-example-accuracy-only",
    ];
    for sweep in [&study, &tiny] {
        let found: Vec<&str> = sweep.runs[..9].iter().map(|it| it.arm.as_str()).collect();
        assert_eq!(found, arms);
        assert_eq!((sweep.seeds.len(), sweep.runs.len()), (3, 27));
        // `own` and `none`, which are the same for the arm `none`; the untrained model under each of eight prompts.
        assert_eq!(sweep.evals.len(), 27 * 2 - 3 + 8);
        let accuracy_only = &sweep.configs[&sweep.runs[8].name];
        assert_eq!(accuracy_only.reward.weights(true), (1.0, 0.0));
    }
    assert_eq!(study.evals[0].benches.len(), 6);
    assert!(!study.demonstration && tiny.demonstration && tiny.notes[0].contains("says nothing about prior prompts"));
    assert_eq!(study.configs[&study.runs[0].name].total_steps(10_000), 156);
    assert!(tiny.configs.values().all(|config| config.train.steps == Some(25)));
    assert_eq!(tiny.configs["none-s1"].train.learning_rate, 2e-3);
}

/// Every arm rewards something else under the same prompt, and the untrained model is evaluated for the gains.
#[test]
fn the_shipped_sweeps_of_control_rewards_differ_in_the_reward_alone() {
    for (name, seeds, tests) in [("reward-controls", 3, 2), ("reward-controls-tiny", 5, 1)] {
        let sweep = expand(&SweepFile::read(name, &[]).unwrap()).unwrap();
        let arms: Vec<&str> = sweep.runs[..6].iter().map(|it| it.arm.as_str()).collect();
        assert_eq!(arms, ["accuracy-and-format", "accuracy", "format", "majority", "random", "inverted"]);
        assert_eq!((sweep.runs.len(), sweep.evals.len()), (6 * seeds, 6 * seeds * tests + tests), "{name}");
        for run in &sweep.runs[2..6] {
            let reward = &sweep.configs[&run.name].reward;
            assert_eq!(reward.weights(true).0, 0.0, "{}", run.arm);
            assert!(run.varies.keys().all(|key| key.starts_with("reward.")), "{:?}", run.varies);
        }
    }
}

/// Training under a prompt, distilling it, and the untrained model under it. A distilled arm is trained and evaluated without it.
#[test]
fn the_shipped_sweep_of_a_distilled_prompt_compares_it_with_training_under_it() {
    let sweep = expand(&SweepFile::read("distill-tiny", &[]).unwrap()).unwrap();
    let arms: Vec<&str> = sweep.runs.iter().map(|it| it.arm.as_str()).take(2).collect();
    assert_eq!((arms, sweep.runs.len()), (vec!["reasoning", "distilled"], 6));
    let evals: Vec<(&str, Option<&str>)> = sweep
        .evals
        .iter()
        .map(|it| (it.name.as_str(), it.ppe.as_deref()))
        .filter(|(name, _)| !name.contains("-s"))
        .collect();
    assert_eq!(evals, [("base-under-reasoning", Some("reasoning")), ("base-under-none", Some("none"))]);
    // The own prompt of a distilled arm is none, so that its evaluation needs no prompt.
    let of = |run: &str| -> Vec<(&str, Option<&str>)> {
        let of_run = sweep.evals.iter().filter(|it| it.run.as_deref() == Some(run));
        of_run.map(|it| (it.test_prompt.as_str(), it.ppe.as_deref())).collect()
    };
    assert_eq!(of("reasoning-s1"), [("reasoning", None), ("none", Some("none"))]);
    assert_eq!(of("distilled-s1"), [("none", None), ("reasoning", Some("reasoning"))]);
}
