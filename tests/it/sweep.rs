//! Sweeps: the expansion of their files, resuming after any interruption, and failures of single runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use rft::run::Stop;
use rft::sweep::local::{Children, End, Event, Machine, work};
use rft::sweep::{Folder, Sweep, SweepFile, expand};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{folder, rft, rft_path, with};
use crate::train::Trace;

fn read(text: &str, sets: &[&str]) -> anyhow::Result<Sweep> {
    let folder = with("lab.toml", text.as_bytes());
    let path = folder.path().join("lab.toml");
    let sets: Vec<String> = sets.iter().map(|it| (*it).to_owned()).collect();
    let sweep = SweepFile::read(path.to_str().unwrap(), &sets).and_then(|file| expand(&file));
    sweep.map_err(|error| {
        let text = format!("{error:#}");
        anyhow::anyhow!(text.replace(&format!("{}/", folder.path().display()), ""))
    })
}

fn sweep(text: &str) -> Sweep {
    read(text, &[]).unwrap()
}

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
            assert_eq!(run.varies["prompt.ppe"], config.prompt.ppe);
            assert_eq!(run.varies["train.learning_rate"], config.train.learning_rate);
        }
    }
    let alone = &sweep.configs["alone-s8"];
    assert_eq!((alone.reward.format.weight, alone.rollout.num_generations), (Some(0.0), 8));
    assert!(sweep.evals.is_empty());
}

#[test]
fn conditions_use_the_whole_configuration() {
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
fn every_evaluation_is_planned_once() {
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
fn any_value_gives_a_name_that_is_valid_on_any_file_system() {
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
    assert!(error(&text).contains("`model.path`: is empty"));
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
fn mistakes_are_reported_with_their_position() {
    assert_snapshot!(error("[sweep]\nsede = [1]"), @r"
    lab.toml:2:1: unknown key `sweep.sede`
    hint: did you mean `sweep.seeds`?
    ");
    assert_snapshot!(error("[sweep]\nseeds = [1, -2]"), @"lab.toml:2:9: `sweep.seeds`: expected an integer of at least 0, found integer -2");
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
    lab.toml:1:41: `rollout.num_generations`: 1 completions of a question leave nothing to compare
    hint: 2 or more; the study takes 8
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
    assert_snapshot!(error("[sweep.eval]\nbenchmarks = [\"arithmetik\"]").lines().next().unwrap(), @"lab.toml:2:14: `sweep.eval.benchmarks`: there is no benchmark `arithmetik`");
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
    hint: this file is a sweep of many runs; `rft sweep` runs it
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

/// Two arms, two seeds, four steps: takes a few seconds.
const SMALL: &str = r#"
preset = "tiny"
rollout.prompts_per_step = 2
rollout.num_generations = 4
train.steps = 4
train.save_steps = 1
eval.questions = 8
[sweep]
name = "small"
seeds = [1, 2]
jobs = 2
[sweep.grid]
"prompt.ppe" = ["reasoning", "none"]
[sweep.eval]
benchmarks = ["arithmetic-1", "arithmetic-2"]
test_prompts = ["own", "none"]
limit = 4
max_tokens = 48
"#;

fn run_sweep(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = rft(folder).args(["sweep", "sweep.toml"]).args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The results of a sweep that do not depend on the clock.
fn results(sweep: &Path) -> (BTreeMap<String, Trace>, BTreeMap<PathBuf, Vec<u8>>) {
    let listed = |folder: &str| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(sweep.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let runs = listed("runs").into_iter().map(|run| (name(&run), Trace::of(&run))).collect();
    let mut files = BTreeMap::new();
    let mut open = listed("evals");
    open.extend(listed("configs"));
    open.push(sweep.join("sweep.json"));
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if name(&path) != ".lock" {
            files.insert(path.strip_prefix(sweep).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    (runs, files)
}

fn status(folder: &Path, sweep: &str) -> Value {
    let output = rft(folder).args(["sweep", "status", sweep, "--output-format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn states(folder: &Path, sweep: &str) -> BTreeMap<String, String> {
    let status = status(folder, sweep);
    let parts = ["runs", "evals"].into_iter().flat_map(|part| status[part].as_array().unwrap().clone());
    parts.map(|it| (it["name"].as_str().unwrap().to_owned(), it["state"].as_str().unwrap().to_owned())).collect()
}

/// Waits until a condition is true.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(300), "timeout while waiting for {what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_sweep_resumes_to_the_same_bytes() {
    let whole = with("sweep.toml", SMALL.as_bytes());
    let (code, said) = run_sweep(whole.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let expected = results(&whole.path().join("sweeps/small"));
    assert_eq!((expected.0.len(), expected.1.len()), (4, 8 * (1 + 2 * 5) + 4 + 1), "{:?}", expected.1.keys());
    let table = rft(whole.path()).args(["sweep", "status", "sweeps/small"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("4 of 4") && table.contains("4 of 4 runs done"), "{table}");

    // Kill the sweep twice: first with all its processes, in the middle of the second seed, then only the parent.
    let broken = with("sweep.toml", SMALL.as_bytes());
    let sweep = broken.path().join("sweeps/small");
    let start = || -> Child {
        let mut command = Command::new(rft_path());
        command.args(["sweep", "sweep.toml", "--jobs=1"]).current_dir(broken.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let lines = |run: &str| {
        fs::read_to_string(sweep.join("runs").join(run).join("metrics.jsonl")).map_or(0, |it| it.lines().count())
    };
    let mut child = start();
    until("step 2 of the first run", || lines("reasoning-s1") >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    // The run continued without its parent; the next sweep waits for it and does not start it twice.
    let mut child = start();
    until("a step of the third run", || lines("reasoning-s2") >= 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let found = states(broken.path(), "sweeps/small");
    assert_eq!((found["reasoning-s1"].as_str(), found["none-s2"].as_str()), ("done", "waiting"));

    let (code, said) = run_sweep(broken.path(), &["--jobs=2"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\nso far   ") && said.contains("[12 of 12]"), "{said}");
    let found = results(&sweep);
    assert!(found.0 == expected.0, "runs differ");
    assert!(found.1 == expected.1, "evaluations differ");
    let sessions = fs::read_to_string(sweep.join("runs/reasoning-s1/manifest.json")).unwrap();
    assert_eq!(sessions.matches("\"started\"").count(), 1, "{sessions}");

    // The sweep is complete, so nothing is done.
    let before = fs::metadata(sweep.join("logs/none-s2.log")).unwrap().len();
    assert_eq!(run_sweep(broken.path(), &[]).0, Some(0));
    assert_eq!(fs::metadata(sweep.join("logs/none-s2.log")).unwrap().len(), before);

    // A seed can be added, but nothing else can be changed.
    fs::write(broken.path().join("sweep.toml"), SMALL.replace("train.steps = 4", "train.steps = 5")).unwrap();
    let (code, said) = run_sweep(broken.path(), &[]);
    assert_eq!(code, Some(1));
    assert_snapshot!(said, @r"
    error: `sweeps/small` contains a different version of this sweep: `train.steps` of run `reasoning-s1` was 4, now 5
    hint: choose another folder with --out, or remove this one to start again
    ");
    let (code, said) = run_sweep(broken.path(), &["--set=train.steps=4", "--set=sweep.eval.limit=5"]);
    assert!(code == Some(1) && said.contains("the options of its evaluations were `--bench"), "{said}");
    let more = ["--set=train.steps=4", "--set=sweep.seeds=[1, 2, 3]"];
    assert_eq!(run_sweep(broken.path(), &more).0, Some(0));
    assert_eq!(states(broken.path(), "sweeps/small")["none-s3"], "done");
}

#[test]
fn ctrl_c_lets_every_process_save_its_state() {
    let folder = with("sweep.toml", SMALL.replace("train.steps = 4", "train.steps = 400").as_bytes());
    let run = folder.path().join("sweeps/small/runs/reasoning-s1");
    let mut command = Command::new(rft_path());
    command.args(["sweep", "sweep.toml", "--set=sweep.eval.base=false"]).current_dir(folder.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a step", || fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|it| !it.is_empty()));
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let states = states(folder.path(), "sweeps/small");
    assert_eq!((states["reasoning-s1"].as_str(), states["reasoning-s2"].as_str()), ("stopped", "waiting"));
    assert!(run.join("adapter/adapter_model.safetensors").is_file());
}

#[test]
fn a_failed_run_does_not_stop_the_others() {
    let text = SMALL
        .replace(r#"["reasoning", "none"]"#, r#"["none"]"#)
        .replace("[sweep.eval]", "[[sweep.list]]\nname = \"broken\"\n\"data.path\" = \"missing.jsonl\"\n[sweep.eval]");
    let folder = with("sweep.toml", text.as_bytes());
    let (code, said) = run_sweep(folder.path(), &["--set=sweep.seeds=[1]"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("failed   broken-s1: exit code 1"), "{said}");
    assert!(said.contains("there is no data file `missing.jsonl`"), "{said}");
    assert!(said.contains("all of it: sweeps/small/logs/broken-s1.log"), "{said}");
    assert!(said.contains("skipped  2 evaluations of runs that failed"), "{said}");
    let found = states(folder.path(), "sweeps/small");
    for (name, state) in [
        ("none-s1", "done"),
        ("none-s1-under-none", "done"),
        ("base-under-none", "done"),
        ("broken-s1", "failed"),
        ("broken-s1-under-reasoning", "waiting"),
    ] {
        assert_eq!(found[name], state, "{name}");
    }
    // After the cause of the failure is fixed, the same command does what is missing.
    let questions = (0..20).map(|i| format!("{{\"question\": \"What is {i} + 1?\", \"answer\": \"{}\"}}\n", i + 1));
    fs::write(folder.path().join("missing.jsonl"), questions.collect::<String>()).unwrap();
    let (code, said) = run_sweep(folder.path(), &["--set=sweep.seeds=[1]"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(states(folder.path(), "sweeps/small").values().all(|state| state == "done"));
}

#[test]
fn each_process_gets_a_gpu_and_its_threads() {
    let folder = folder();
    let (program, calls) = (folder.path().join("rft"), folder.path().join("calls"));
    let script = format!("#!/bin/sh\necho \"$CUDA_VISIBLE_DEVICES $1 $5 $6\" >>'{}'\nsleep 0.5\n", calls.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let sweep = sweep("sweep.grid.\"prompt.ppe\" = [\"reasoning\", \"planning\", \"none\"]");
    let (place, record, _lock) = Folder::prepare(&folder.path().join("out"), &sweep).unwrap();
    let machine = Machine { program, jobs: 2, threads: 3, gpus: vec!["3".to_owned(), "GPU-5f".to_owned()] };
    let mut started = Vec::new();
    let ends = work(&place, &record, &machine, &Children::default(), &Stop::manual(), &mut |event| {
        if let Event::Started { task, .. } = event {
            started.push(task.name.clone());
        }
    });
    assert!(ends.unwrap().iter().all(|(_, end)| *end == End::Done));
    assert_eq!(started, ["reasoning-s42", "planning-s42", "none-s42"]);
    let calls = fs::read_to_string(calls).unwrap();
    let mut calls: Vec<&str> = calls.lines().collect();
    calls[..2].sort();
    assert_eq!(calls[..2], ["3 train --threads 3", "GPU-5f train --threads 3"]);
    assert!(calls.len() == 3 && calls[2].ends_with(" train --threads 3"), "{calls:?}");
}

#[test]
fn a_record_with_paths_outside_its_folder_is_refused() {
    let record = |run: &str, bench: &str| {
        json!({
            "rft": "0.1.0", "name": "s", "demonstration": false, "notes": [], "seeds": [1], "eval_args": [],
            "runs": [{"name": run, "arm": "a", "seed": 1, "varies": {}}],
            "evals": [{"name": "e", "run": run, "arm": "a", "seed": 1, "test_prompt": "none", "benches": [bench],
                       "ppe": null, "config": run}],
        })
    };
    let folder = TempDir::new().unwrap();
    let said = |run: &str, bench: &str| {
        fs::write(folder.path().join("sweep.json"), record(run, bench).to_string()).unwrap();
        let output = rft(folder.path()).args(["sweep", "task", ".", run]).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    for (run, bench) in [("../../x", "arithmetic"), ("a", "../../x"), ("/x", "arithmetic"), ("a", "..")] {
        assert!(said(run, bench).contains("is not a valid name of a run"), "{}", said(run, bench));
    }
    assert!(!said("a", "arithmetic").contains("is not a valid name of a run"));
}

#[test]
fn a_dry_run_prints_everything_and_writes_nothing() {
    let folder = with("sweep.toml", SMALL.as_bytes());
    let output = rft(folder.path()).args(["sweep", "sweep.toml", "--dry-run"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    for line in [
        "small: 4 runs, 8 evaluations, to `sweeps/small`",
        "    rft train --yes --config sweeps/small/configs/reasoning-s1.toml",
        "    rft eval --yes --adapter sweeps/small/runs/reasoning-s2 --ppe none --bench arithmetic-1,arithmetic-2 --limit 4 --max-tokens 48 --seed 42 --out sweeps/small/evals/reasoning-s2-under-none",
        "training    16 steps",
        "held-out    128 completions, at most 12.3 k tokens",
        "            128 completions, at most 12.3 k tokens",
        "benchmarks  64 completions, at most 3.1 k tokens",
    ] {
        assert!(said.lines().any(|it| it == line), "no line `{line}` in\n{said}");
    }
    // The measured piece of the first run also gives an estimate for the benchmarks, with and without held-out questions.
    for set in ["eval.questions=4", "eval.questions=0"] {
        let args = ["sweep", "sweep.toml", "--dry-run", "--measure", "0.1", "--gpu-hour-price", "2", "--set", set];
        let output = rft(folder.path()).args(args).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        for what in ["runs  ", "benchmarks  ", "together  "] {
            let is_priced =
                |line: &&str| line.starts_with(what) && line.contains(" tokens, ") && line.contains("costs");
            assert!(said.lines().any(|it| is_priced(&it)), "{set}: no price of `{what}` in\n{said}");
        }
    }
    assert!(!folder.path().join("sweeps").exists());
}

/// A shortened demonstration: every arm, two seeds.
#[test]
fn the_tiny_study_runs() {
    let folder = folder();
    let output = rft(folder.path())
        .args([
            "sweep",
            "ppe-study-tiny",
            "--set=train.steps=2",
            "--set=sweep.seeds=[1, 2]",
            "--set=sweep.eval.limit=6",
        ])
        .args([
            "--set=rollout.prompts_per_step=4",
            "--set=rollout.num_generations=4",
            "--set=sweep.eval.test_prompts=[\"own\"]",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let sweep = folder.path().join("sweeps/ppe-study-tiny");
    let record: Value = serde_json::from_slice(&fs::read(sweep.join("sweep.json")).unwrap()).unwrap();
    assert_eq!((record["demonstration"].clone(), record["seeds"].clone()), (json!(true), json!([1, 2])));
    assert_eq!((record["runs"].as_array().unwrap().len(), record["evals"].as_array().unwrap().len()), (18, 18 + 8));
    assert_eq!(
        record["runs"][8],
        json!({
            "name": "null-example-accuracy-only-s1",
            "arm": "null-example-accuracy-only",
            "seed": 1,
            "varies": { "prompt.ppe": "null-example", "reward.format.weight": 0.0 },
        })
    );
    // With the same seed, the order of questions is the same in all arms.
    let asked = |run: &str| -> Vec<Value> {
        let text = fs::read_to_string(sweep.join("runs").join(run).join("completions.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["question"].clone()).collect()
    };
    assert_eq!(asked("reasoning-s1").len(), 8);
    assert_eq!(asked("reasoning-s1"), asked("tag-swap-s1"));
    assert_ne!(asked("reasoning-s1"), asked("reasoning-s2"));
    // The format that `answer-only` is rewarded for does not need a first element.
    let config = fs::read_to_string(sweep.join("runs/answer-only-s1/config.toml")).unwrap();
    assert!(config.contains("ppe = \"answer-only\""));
    let metrics = fs::read_to_string(sweep.join("runs/answer-only-s1/metrics.jsonl")).unwrap();
    assert!(metrics.contains("rewards/format/mean"), "{metrics}");
}

/// Scripts in place of Slurm's commands. They record submitted arrays and run their tasks one after another when the queue is
/// queried.
fn slurm() -> TempDir {
    let bin = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = bin.path().join(name);
        fs::write(&path, format!("#!/bin/bash\ncd \"$(dirname \"$0\")\"\n{text}")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(
        "sbatch",
        r#"
echo "sbatch $*" >>calls
script=$(cd "$OLDPWD" && realpath "${@: -1}")
id=$((100 + $(wc -l <calls)))
numbers=$(sed -n 's/^#SBATCH --array=\([^%]*\).*/\1/p' "$script" | tr , '\n')
for range in $numbers; do
    for number in $(seq "${range%-*}" "${range#*-}"); do echo "$id|$number|$script|$OLDPWD" >>queue; done
done
echo "$id;cluster"
"#,
    );
    // In the first query everything is pending; each later query runs one more task.
    write(
        "squeue",
        r#"
echo "squeue $*" >>calls
[ -e queue ] || exit 0
if [ -e looked ] && [ -s queue ]; then
    IFS='|' read -r id number script place < <(head -n 1 queue)
    sed -i 1d queue
    (cd "$place" && PATH=$OLDPATH SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$number bash "$script" >>"$OLDPWD/out" 2>&1)
    echo "${id}_$number|FAILED|1:0" >>ended
fi
touch looked
while IFS='|' read -r id number rest; do echo "${id}_$number|PENDING"; done <queue
"#,
    );
    write("sacct", "echo \"sacct $*\" >>calls\ncat ended\n");
    bin
}

#[test]
fn a_cluster_gives_the_same_results() {
    let bin = slurm();
    let calls = || fs::read_to_string(bin.path().join("calls")).unwrap();
    let text = format!(
        "{SMALL}\n[[sweep.list]]\nname = \"broken\"\n\"data.path\" = \"missing.jsonl\"\n[slurm]\npartition = \"gpu\"\ngres = \"gpu:1\"\ntime = \"1:00:00\"\ncpus = 1\nparallel = 2\nsetup = [\"export GREETING='hello there'\"]\n"
    );
    let folder = with("sweep.toml", text.as_bytes());
    let path = std::env::var("PATH").unwrap();
    let run = |args: &[&str]| {
        let output = rft(folder.path())
            .args(["sweep", "sweep.toml", "--slurm", "--set=sweep.seeds=[1]"])
            .args(args)
            .env("PATH", format!("{}:{path}", bin.path().display()))
            .env("OLDPATH", &path)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&[]);
    let slurm_out = fs::read_to_string(bin.path().join("out")).unwrap_or_default();
    assert_eq!(code, Some(1), "{said}\n{slurm_out}");
    assert!(said.contains("failed   broken-s1: FAILED, exit code 1:0"), "{said}");
    assert!(said.contains("there is no data file `missing.jsonl`"), "{said}");
    let found = states(folder.path(), "sweeps/small");
    assert_eq!((found["reasoning-s1"].as_str(), found["broken-s1"].as_str()), ("done", "failed"));
    assert_eq!(found["none-s1-under-none"], "done");
    let submitted: Vec<String> = calls().lines().filter(|it| it.starts_with("sbatch")).map(str::to_owned).collect();
    assert_eq!(
        submitted,
        [
            "sbatch --parsable sweeps/small/slurm/ready.sh",
            "sbatch --parsable sweeps/small/slurm/runs.sh",
            "sbatch --parsable --dependency=aftercorr:102 --kill-on-invalid-dep=yes sweeps/small/slurm/evals.sh",
        ]
    );
    let script = fs::read_to_string(folder.path().join("sweeps/small/slurm/runs.sh")).unwrap();
    let rft = rft_path().display().to_string();
    assert_snapshot!(script.replace(&rft, "rft"), @r#"
    #!/bin/bash
    # Written by `rft sweep --slurm`.
    #SBATCH --job-name=small-runs
    #SBATCH --array=0-2%2
    #SBATCH --output=sweeps/small/logs/slurm-%A-%a.log
    #SBATCH --open-mode=append
    #SBATCH --requeue
    #SBATCH --signal=B:USR1@120
    #SBATCH --partition=gpu
    #SBATCH --gres=gpu:1
    #SBATCH --time=1:00:00
    #SBATCH --cpus-per-task=1

    export GREETING='hello there'
    declare -a tasks
    tasks[0]='reasoning-s1'
    tasks[1]='none-s1'
    tasks[2]='broken-s1'

    # Forward signals to the running process, which saves its state and ends.
    trap 'kill -USR1 "$child" 2>/dev/null' USR1
    trap 'kill -TERM "$child" 2>/dev/null' TERM
    for name in ${tasks[$SLURM_ARRAY_TASK_ID]}; do
        rft sweep task sweeps/small "$name" --threads 1 &
        child=$!
        # A signal interrupts `wait` before the process has ended.
        while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done
        # 138: the process got SIGUSR1 because its time is up. It resumes after it is requeued.
        if [ "$status" = 138 ]; then
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        fi
        [ "$status" = 0 ] || exit "$status"
    done
    "#);

    // The results are the same as on one machine, and only missing tasks are submitted again.
    let alone = with("sweep.toml", SMALL.as_bytes());
    let (code, said) = run_sweep(alone.path(), &["--set=sweep.seeds=[1]"]);
    assert_eq!(code, Some(0), "{said}");
    let (here, there) = (results(&alone.path().join("sweeps/small")), results(&folder.path().join("sweeps/small")));
    assert!(here.0.iter().all(|(name, trace)| there.0.get(name) == Some(trace)));
    for (path, bytes) in here.1.iter().filter(|(path, _)| path.starts_with("evals")) {
        assert!(there.1.get(path) == Some(bytes), "{}", path.display());
    }
    let before = calls().lines().filter(|it| it.starts_with("sbatch")).count();
    let (code, said) = run(&[]);
    assert!(code == Some(1) && said.contains("failed   broken-s1"), "{said}");
    let again: Vec<String> =
        calls().lines().filter(|it| it.starts_with("sbatch")).skip(before).map(str::to_owned).collect();
    assert_eq!(again.len(), 2, "{again:?}");
    let script = fs::read_to_string(folder.path().join("sweeps/small/slurm/runs.sh")).unwrap();
    assert!(script.contains("--array=2%2"), "{script}");
}
