//! Trials that choose a learning rate for each arm before the study: what they train, what they never read, and what is left of
//! them on disk and in the report.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use rft::data::arithmetic::{self, Split};
use rft::run::tuning::TuneRecord;
use rft::sweep::tune::with_choices;
use rft::sweep::{SweepFile, Trials, expand};
use serde_json::{Value, json};

use super::{run_sweep, status};
use crate::cli::{rft, rft_path, with};
use crate::progress::{held_reward, hold_after, release, until};
use crate::train::Trace;

/// Two arms with two candidates each: four trials of two steps, then two runs of three steps.
pub(super) const TUNED: &str = r#"
preset = "tiny"
rollout.prompts_per_step = 2
rollout.num_generations = 4
rollout.max_completion_length = 48
train.steps = 3
eval.questions = 8
[sweep]
name = "small"
seeds = [1]
jobs = 2
[sweep.grid]
"prompt.ppe" = ["reasoning", "none"]
[sweep.tune]
values = [1e-3, 4e-3]
steps = 2
questions = 32
"#;

const EVALS: &str = r#"
[sweep.eval]
benchmarks = ["arithmetic-1"]
limit = 8
max_tokens = 48
"#;

fn read(text: &str, sets: &[&str]) -> anyhow::Result<(SweepFile, Option<Trials>)> {
    let folder = with("lab.toml", text.as_bytes());
    let path = folder.path().join("lab.toml");
    let sets: Vec<String> = sets.iter().map(|it| (*it).to_owned()).collect();
    let found = SweepFile::read(path.to_str().unwrap(), &sets).and_then(|file| {
        let trials = rft::sweep::trials(&file)?;
        Ok((file, trials))
    });
    found.map_err(|error| anyhow::anyhow!(format!("{error:#}").replace(&format!("{}/", folder.path().display()), "")))
}

fn error(text: &str) -> String {
    read(text, &[]).err().expect("an invalid sweep").to_string()
}

fn record(sweep: &Path) -> Value {
    serde_json::from_slice(&fs::read(sweep.join("tune.json")).unwrap()).unwrap()
}

#[test]
fn every_arm_has_a_trial_for_each_candidate_and_seed() {
    let text = r#"
        grpo.beta = 0.5
        eval.path = "openai/gsm8k"
        eval.every = 1
        eval.greedy = true
        [sweep]
        seeds = [101, 2]
        grid."prompt.ppe" = ["reasoning", "none"]
        list = [{ name = "fixed", "train.learning_rate" = 5e-3 },
                { name = "own", "grpo.beta" = 0.1, tune.values = [1e-5, 1e-4, 1e-3] }]
        [sweep.tune]
        values = [1e-4, 1e-3]
        "#;
    let (file, trials) = read(text, &[]).unwrap();
    let trials = trials.unwrap();
    assert_eq!((trials.key.as_str(), trials.steps, trials.questions), ("train.learning_rate", None, 128));
    assert_eq!(trials.untuned, ["fixed"]);
    let names: Vec<&str> = trials.sweep.runs.iter().map(|it| it.name.as_str()).collect();
    // The first seed that is not a seed of the study.
    assert_eq!(
        names,
        [
            "reasoning-learning_rate=0.0001-s102",
            "reasoning-learning_rate=0.001-s102",
            "none-learning_rate=0.0001-s102",
            "none-learning_rate=0.001-s102",
            "own-learning_rate=0.00001-s102",
            "own-learning_rate=0.0001-s102",
            "own-learning_rate=0.001-s102",
        ]
    );
    let trial = &trials.sweep.configs["own-learning_rate=0.0001-s102"];
    assert_eq!((trial.train.learning_rate, trial.grpo.beta, trial.train.seed), (1e-4, 0.1, 102));
    assert_eq!((trial.eval.path.as_str(), trial.eval.questions, trial.eval.every), ("tuning", 128, 0));

    // The runs of the study differ from those without [sweep.tune] in the chosen value alone.
    let sweep = expand(&file).unwrap();
    let choice = |arm: &str, value: f64| json!({ "arm": arm, "steps": 1, "questions": 128, "candidates": [], "choice": value, "reason": "" });
    let arms = [choice("reasoning", 0.001), choice("none", 0.0001), choice("own", 1e-5)];
    let chosen = json!({ "rft": "0", "key": "train.learning_rate", "arms": arms });
    let chosen: TuneRecord = serde_json::from_value(chosen).unwrap();
    let study = with_choices(sweep.clone(), &trials, &chosen).unwrap();
    assert_eq!((&study.runs, study.evals.len()), (&sweep.runs, sweep.evals.len()));
    for (name, rate) in [("reasoning-s2", 1e-3), ("none-s101", 1e-4), ("own-s101", 1e-5), ("fixed-s2", 5e-3)] {
        let mut before = sweep.configs[name].clone();
        assert_eq!(study.configs[name].train.learning_rate, rate, "{name}");
        before.train.learning_rate = rate;
        assert_eq!(study.configs[name], before, "{name}");
    }
    let mut other = chosen.clone();
    other.arms[0].choice = serde_json::Number::from_f64(0.5).unwrap();
    let error = with_choices(sweep.clone(), &trials, &other).unwrap_err().to_string();
    assert_eq!(error, "`0.5` was chosen for arm `reasoning`, but is not one of its candidates");
    assert!(read("[sweep]\nseeds = [1]", &[]).unwrap().1.is_none());
}

#[test]
fn mistakes_are_reported_with_their_field() {
    let tune = |lines: &str| error(&format!("[sweep]\nseeds = [1, 2]\n[sweep.tune]\n{lines}"));
    assert_snapshot!(tune(""), @r"
    lab.toml:3:1: `sweep.tune` requires `values`
    hint: for example values = [1e-4, 3e-4, 1e-3]
    ");
    assert_snapshot!(tune("values = [1e-3]"), @r"
    lab.toml:4:10: `sweep.tune.values`: expected at least two values, found 1
    hint: to train with one value, set `train.learning_rate` and remove [sweep.tune]
    ");
    assert_snapshot!(tune("values = 1e-3"), @r"
    lab.toml:4:10: `sweep.tune.values` is not a list
    hint: write values = [0.001, ...]
    ");
    assert_snapshot!(tune("values = [1e-3, \"fast\"]"), @r#"
    lab.toml:4:17: `sweep.tune.values`: expected a number, found "fast"
    hint: list numbers, such as [1e-4, 3e-4, 1e-3]
    "#);
    assert_snapshot!(tune("values = [1e-3, 0.001]"), @r"
    lab.toml:4:17: `sweep.tune.values`: 0.001 occurs twice
    hint: list each value once
    ");
    assert_snapshot!(tune("values = [1e-3, 2.0]"), @r"
    lab.toml:4:17: `train.learning_rate`: 2.0 is out of range, expected 1e-12 to 1.0
    hint: use a value in this range
    ");
    assert_snapshot!(tune("values = [1e-3, 2e-3]\nseeds = [2, 3]"), @r"
    lab.toml:3:1: `sweep.tune.seeds`: 2 is also a seed of the study, so a run would be both trial and result
    hint: use seeds that are not in sweep.seeds
    ");
    assert_snapshot!(tune("values = [1e-3, 2e-3]\nseeds = []"), @r"
    lab.toml:5:9: `sweep.tune.seeds`: the list is empty
    hint: leave it out to use one seed that is not in sweep.seeds
    ");
    assert_snapshot!(tune("values = [1e-3, 2e-3]\nsteps = 0"), @r"
    lab.toml:5:9: `sweep.tune.steps`: expected at least 1, found 0
    hint: leave it out for the steps of the study
    ");
    assert_snapshot!(tune("values = [1e-3, 2e-3]\nquestions = 4"), @r"
    lab.toml:5:13: `sweep.tune.questions`: expected at least 32, found 4
    hint: with fewer questions the choice would be chance; 128 is the default
    ");
    assert_snapshot!(tune("valus = [1e-3, 2e-3]"), @r"
    lab.toml:4:1: unknown key `sweep.tune.valus`
    hint: did you mean `sweep.tune.values`?
    ");
    for key in
        ["train.seed", "train.steps", "reward.format.weight", "prompt.ppe", "data.max_questions", "eval.questions"]
    {
        let said = tune(&format!("key = \"{key}\"\nvalues = [1, 2]"));
        assert!(
            said.starts_with(&format!("lab.toml:4:7: `sweep.tune.key`: `{key}` cannot be tuned\nhint: ")),
            "{said}"
        );
    }
    let tuned = "[sweep.tune]\nvalues = [1e-3, 2e-3]\n";
    assert_snapshot!(error(&format!("[sweep.grid]\n\"train.learning_rate\" = [1e-3, 2e-3]\n{tuned}")), @r"
    lab.toml:3:1: `sweep.tune`: `train.learning_rate` is varied by [sweep.grid] or [sweep.zip], so it cannot be tuned
    hint: remove it there, or remove [sweep.tune]
    ");
    assert_snapshot!(error(&format!("[[sweep.list]]\n\"train.learning_rate\" = 1e-3\n{tuned}")), @r"
    lab.toml:3:1: `sweep.tune`: every arm sets `train.learning_rate` itself, so there is nothing to tune
    hint: remove [sweep.tune], or the key in the arms
    ");
    assert_snapshot!(error(&format!("[[sweep.list]]\n\"train.learning_rate\" = 1e-3\ntune.values = [1e-3, 2e-3]\n{tuned}")), @r"
    lab.toml:2:25: this arm sets `train.learning_rate` and has candidates for it
    hint: remove one of the two
    ");
    assert_snapshot!(error("[sweep]\n[[sweep.list]]\ntune.values = [1e-3, 2e-3]"), @r"
    lab.toml:3:1: `sweep.list.tune`: nothing is tuned
    hint: add [sweep.tune], or remove tune.values
    ");
    let set = read(&format!("[sweep]\n{tuned}"), &["train.learning_rate=1e-3"]).err().unwrap().to_string();
    assert_snapshot!(set, @r"
    --set train.learning_rate=1e-3: this sweep tunes `train.learning_rate`
    hint: set its candidates in sweep.tune.values
    ");
}

#[test]
fn the_chosen_values_are_trained_and_reported() {
    let folder = with("sweep.toml", format!("{TUNED}{EVALS}").as_bytes());
    let sweep = folder.path().join("sweeps/small");
    let output = rft(folder.path()).args(["sweep", "sweep.toml", "--dry-run"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for line in [
        "small: 4 trials, 2 runs, 4 evaluations, to `sweeps/small`",
        "phase 1 of 2: 4 trials choose train.learning_rate for 2 arms (2 steps each, 32 held-out training questions)",
        "    rft train --yes --config sweeps/small/tune/configs/none-learning_rate=0.004-s101.toml",
        "phase 2 of 2: the study; its configurations get the chosen train.learning_rate",
        "    rft train --yes --config sweeps/small/configs/none-s1.toml",
        "trials      8 steps",
        "            64 completions, at most 3.1 k tokens",
        "held-out    256 completions, at most 12.3 k tokens",
        "training    6 steps",
    ] {
        assert!(said.lines().any(|it| it == line), "no line `{line}` in\n{said}");
    }
    assert!(!sweep.exists());

    let (code, said) = run_sweep(folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let found = record(&sweep);
    assert_eq!(found["key"], "train.learning_rate");
    let arms = found["arms"].as_array().unwrap();
    assert_eq!(arms.iter().map(|it| &it["arm"]).collect::<Vec<_>>(), ["reasoning", "none"]);
    for arm in arms {
        assert_eq!((&arm["steps"], &arm["questions"]), (&json!(2), &json!(32)));
        let candidates = arm["candidates"].as_array().unwrap();
        let accuracy = |at: usize| candidates[at]["accuracy"].as_f64().unwrap();
        let best = if accuracy(1) > accuracy(0) { 1 } else { 0 };
        assert_eq!(arm["choice"], candidates[best]["value"], "{arm}");
        for candidate in candidates {
            let trial = &candidate["trials"][0];
            assert_eq!((candidate["trials"].as_array().unwrap().len(), &trial["seed"]), (1, &json!(101)));
            let (correct, questions) = (trial["correct"].as_u64().unwrap(), trial["questions"].as_u64().unwrap());
            assert_eq!((questions, candidate["accuracy"].as_f64()), (32, Some(correct as f64 / 32.0)));
            // The accuracy is that of the trial's last evaluation.
            let run = sweep.join("tune/runs").join(trial["run"].as_str().unwrap());
            let summary: Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
            assert_eq!(
                summary["held_out"]["sampled"]["accuracy"]["after"]["value"], candidate["accuracy"],
                "{summary}"
            );
            assert_eq!(trial["questions_sha256"].as_str().unwrap().len(), 64);
        }
        // An ordinary value in the configuration, with which the run can be repeated.
        let name = format!("{}-s1", arm["arm"].as_str().unwrap());
        for file in
            [sweep.join("configs").join(format!("{name}.toml")), sweep.join("runs").join(&name).join("config.toml")]
        {
            let config: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
            assert_eq!(config["train"]["learning_rate"].as_float(), arm["choice"].as_f64());
            assert_eq!(
                (config["train"]["seed"].as_integer(), config["eval"]["path"].as_str()),
                (Some(1), Some("held-out"))
            );
        }
        let line = format!("choice   {}: train.learning_rate = {}, the ", arm["arm"].as_str().unwrap(), arm["choice"]);
        assert!(said.contains(&line), "no `{line}` in\n{said}");
    }
    let (first, second) =
        (said.find("phase    1 of 2: 4 trials choose").unwrap(), said.find("phase    2 of 2: ").unwrap());
    assert!(first < second, "{said}");
    let said = rft(folder.path()).args(["sweep", "status", "sweeps/small"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("phase 2 of 2: the study; `rft sweep status sweeps/small/tune` prints the trials"), "{said}");

    let output = rft(folder.path()).args(["report", "sweeps/small"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = fs::read_to_string(sweep.join("report/report.md")).unwrap();
    assert!(report.contains("## How the learning rates were chosen"), "{report}");
    let row = format!("| reasoning | 0.001, 0.004 | 2 × 2 × 32 | {} | the ", arms[0]["choice"]);
    assert!(report.contains(&row), "no `{row}` in\n{report}");
    assert!(report.contains("At the edge: the chosen `train.learning_rate` is the smallest or the largest candidate"));
    let table = fs::read_to_string(sweep.join("report/tables.csv")).unwrap();
    let accuracy = &arms[1]["candidates"][1]["accuracy"].as_f64().unwrap();
    let row = format!("none,,none,tuning,\"accuracy, train.learning_rate = 0.004\",{accuracy},");
    assert!(table.contains(&row), "no `{row}` in\n{table}");

    // The settings of the choice cannot be changed afterwards, nor can it be left out.
    for (set, what) in [
        ("sweep.tune.values=[1e-3, 2e-3]", "the candidates of arm `reasoning` were [0.001, 0.004], now [0.001, 0.002]"),
        ("sweep.tune.seeds=[7]", "sweep.tune.seeds was [101], now [7]"),
        ("sweep.tune.steps=3", "sweep.tune.steps was 2, now 3"),
        ("sweep.tune.questions=64", "sweep.tune.questions was 32, now 64"),
    ] {
        let (code, said) = run_sweep(folder.path(), &["--set", set]);
        let error = format!("error: `sweeps/small` contains a different version of this sweep: {what}\nhint: choose");
        assert!(code == Some(1) && said.contains(&error), "{said}");
    }
    let text = TUNED.split("[sweep.tune]").next().unwrap();
    fs::write(folder.path().join("sweep.toml"), format!("{text}{EVALS}")).unwrap();
    let (code, said) = run_sweep(folder.path(), &[]);
    assert!(code == Some(1) && said.contains("it has trials, and [sweep.tune] is missing now"), "{said}");
    // A seed can be added: it is trained with the values that were chosen before.
    fs::write(folder.path().join("sweep.toml"), format!("{TUNED}{EVALS}")).unwrap();
    let (code, said) = run_sweep(folder.path(), &["--set=sweep.seeds=[1, 2]"]);
    assert!(code == Some(0) && said.contains("chosen earlier, see sweeps/small/tune.json"), "{said}");
    assert_eq!(record(&sweep), found);
}

/// The questions of the choice are neither those of a benchmark, nor of the runs' own evaluation, nor of training.
#[test]
fn trials_read_no_benchmark() {
    // This benchmark is not on this machine.
    let evals = "[sweep.eval]\nbenchmarks = [\"beyondaime\"]\n";
    let folder = with("sweep.toml", format!("{TUNED}{evals}").as_bytes());
    let mut command = rft(folder.path());
    command.args(["sweep", "sweep.toml"]).env("HF_HOME", folder.path()).env("HF_HUB_OFFLINE", "1");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let sweep = folder.path().join("sweeps/small");
    assert_eq!(record(&sweep)["arms"].as_array().unwrap().len(), 2, "{said}");
    let checked = |run: &Path| -> usize {
        let text = fs::read(run.join("contamination.json")).unwrap();
        let found: Value = serde_json::from_slice(&text).unwrap();
        found["benchmarks"].as_object().unwrap().len()
    };
    let texts = |file: &Path| -> BTreeSet<String> {
        let text = fs::read_to_string(file).unwrap();
        let question =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["question"].as_str().unwrap().to_owned();
        text.lines().map(question).collect()
    };
    let mut benchmarks = BTreeSet::new();
    for levels in [vec![1, 2, 3], vec![1], vec![2], vec![3]] {
        let all = arithmetic::questions(Split::HeldOut, 0, &levels, 512).unwrap();
        benchmarks.extend(all.into_iter().map(|it| it.text));
    }
    for run in ["reasoning-learning_rate=0.001-s101", "none-learning_rate=0.004-s101"] {
        let run = sweep.join("tune/runs").join(run);
        assert_eq!(checked(&run), 0, "a trial compared its questions with benchmarks");
        let asked = texts(&run.join("eval/step-000002-sampled.jsonl"));
        assert_eq!(asked.len(), 32);
        assert!(asked.is_disjoint(&benchmarks), "a question of a benchmark chose the learning rate");
        assert!(asked.is_disjoint(&texts(&run.join("completions.jsonl"))));
    }
    let run = sweep.join("runs/reasoning-s1");
    assert!(checked(&run) > 0);
    let evaluated = texts(&run.join("eval/step-000003-sampled.jsonl"));
    assert!(
        evaluated.iter().all(|it| benchmarks.contains(it)),
        "the premise: runs hold out questions of the benchmark"
    );
}

#[test]
fn a_sweep_that_is_killed_during_its_trials_makes_the_same_choice() {
    let text = format!("{}\n{TUNED}", held_reward());
    let whole = with("sweep.toml", text.as_bytes());
    let (code, said) = run_sweep(whole.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let results = |folder: &Path| {
        let sweep = folder.join("sweeps/small");
        let trace = |run: &str| Trace::of(&sweep.join(run));
        let trials = trace("tune/runs/none-learning_rate=0.004-s101");
        (record(&sweep), trials, trace("runs/reasoning-s1"), trace("runs/none-s1"))
    };
    let expected = results(whole.path());

    // A step has 8 completions, a trial 16: killed during the second step of the second trial.
    let broken = with("sweep.toml", text.as_bytes());
    let sweep = broken.path().join("sweeps/small");
    hold_after(broken.path(), 16 + 8);
    let mut command = Command::new(rft_path());
    command.args(["sweep", "sweep.toml", "--jobs=1"]).current_dir(broken.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = sweep.join("tune/runs/reasoning-learning_rate=0.004-s101/metrics.jsonl");
    until("a step of the second trial", || {
        fs::read_to_string(&metrics).ok().filter(|it| it.contains("\"reward\":")).map(drop)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let found = status(broken.path(), "sweeps/small");
    assert_eq!((found["phase"].as_str(), found["runs"].as_array().unwrap().len()), (Some("trials"), 4));
    assert_eq!((&found["runs"][0]["state"], &found["runs"][3]["state"]), (&json!("done"), &json!("waiting")));
    assert!(!sweep.join("tune.json").exists() && !sweep.join("sweep.json").exists());
    release(broken.path());
    let (code, said) = run_sweep(broken.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(results(broken.path()) == expected, "the results differ");

    // Killed between the phases: all trials are done, and the choice is not written.
    fs::remove_file(sweep.join("tune.json")).unwrap();
    fs::remove_file(sweep.join("sweep.json")).unwrap();
    for part in ["runs", "configs"] {
        fs::remove_dir_all(sweep.join(part)).unwrap();
    }
    let log = sweep.join("tune/logs/none-learning_rate=0.004-s101.log");
    let before = fs::metadata(&log).unwrap().len();
    let (code, said) = run_sweep(broken.path(), &[]);
    assert!(code == Some(0) && said.contains("so far   4 of 4 are done"), "{said}");
    assert_eq!(fs::metadata(&log).unwrap().len(), before, "a trial was repeated");
    assert!(results(broken.path()) == expected, "the results differ");

    // A choice that was made under other settings is not used.
    fs::remove_file(sweep.join("sweep.json")).unwrap();
    let (code, said) = run_sweep(broken.path(), &["--set=rollout.num_generations=8"]);
    let changed = "`rollout.num_generations` of run `reasoning-learning_rate=0.001-s101` was 4, now 8";
    assert!(code == Some(1) && said.contains(changed), "{said}");
    assert_eq!(run_sweep(broken.path(), &[]).0, Some(0));

    // Before the choice, candidates can be added but not removed.
    fs::remove_file(sweep.join("tune.json")).unwrap();
    let (code, said) = run_sweep(broken.path(), &[]);
    assert!(code == Some(1) && said.contains("started without [sweep.tune], or its tune.json is missing"), "{said}");
    fs::remove_file(sweep.join("sweep.json")).unwrap();
    let (code, said) = run_sweep(broken.path(), &["--set=sweep.tune.values=[1e-3, 2e-3]"]);
    let removed = "it has a run `reasoning-learning_rate=0.004-s101`";
    assert!(code == Some(1) && said.contains(removed), "{said}");
}

/// A reward whose command fails in the trials of one candidate, which it finds in the arguments of its parent process.
#[cfg(target_os = "linux")]
const PICKY: &str = r#"
[[reward.custom]]
name = "picky"
weight = 0
command = ["sh", "-c", '''
if tr '\0' ' ' </proc/$PPID/cmdline | grep -q rate=0.004; then exit 1; fi
while read -r line; do id=${line#*:}; echo "{\"id\":${id%%,*},\"score\":0}"; done
''']
[sweep]
"#;

#[test]
#[cfg(target_os = "linux")]
fn a_candidate_whose_trial_fails_is_not_chosen() {
    let one = TUNED.replace(r#"["reasoning", "none"]"#, r#"["none"]"#);
    let folder = with("sweep.toml", one.replace("[sweep]\n", PICKY).as_bytes());
    let (code, said) = run_sweep(folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let sweep = folder.path().join("sweeps/small");
    let arm = &record(&sweep)["arms"][0];
    assert_eq!(
        (&arm["choice"], &arm["reason"]),
        (&json!(0.001), &json!("the only value of which no trial failed")),
        "{arm}"
    );
    assert_eq!(arm["candidates"][1]["accuracy"], Value::Null);
    let failed = arm["candidates"][1]["trials"][0]["error"].as_str().unwrap();
    assert!(failed.contains("picky"), "{failed}");
    assert!(
        said.contains("choice   none: train.learning_rate = 0.001, ") && said.contains("; failed: 0.004"),
        "{said}"
    );

    // An arm without a candidate that works is not trained.
    let missing = one.replace("[sweep]\n", "data.path = \"no.jsonl\"\n[sweep]\n");
    let folder = with("sweep.toml", missing.as_bytes());
    let (code, said) = run_sweep(folder.path(), &[]);
    assert_eq!(code, Some(1));
    let error = "error: every candidate of arm `none` failed, so no value of `train.learning_rate` can be chosen: ";
    assert!(said.contains(error) && said.contains("there is no data file `no.jsonl`"), "{said}");
    let sweep = folder.path().join("sweeps/small");
    assert!(!sweep.join("tune.json").exists() && !sweep.join("runs").exists());
}
