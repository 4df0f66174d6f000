//! A sweep on one machine: it resumes after any interruption, and a failed run does not stop the others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use insta::assert_snapshot;
use rft::run::Stop;
use rft::sweep::SweepFolder;
use rft::sweep::local::{Children, Event, Machine, TaskEnd, work};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SMALL, results, run_sweep, states, sweep};
use crate::cli::{folder, rft, rft_path, with};
use crate::progress::{ends, held_reward, hold_after, release, until};

#[test]
fn a_killed_sweep_resumes_to_the_same_bytes() {
    let text = format!("{}\n{SMALL}", held_reward());
    let whole = with("sweep.toml", text.as_bytes());
    let (code, said) = run_sweep(whole.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let expected = results(&whole.path().join("sweeps/small"));
    assert_eq!((expected.0.len(), expected.1.len()), (4, 8 * (1 + 2 * 5) + 4 + 1), "{:?}", expected.1.keys());
    let table = rft(whole.path()).args(["sweep", "status", "sweeps/small"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("4 of 4") && table.contains("4 of 4 runs done"), "{table}");

    // Killed during the first run and again during the third, which are paused there. A step has 8 completions, a run 32.
    let broken = with("sweep.toml", text.as_bytes());
    let sweep = broken.path().join("sweeps/small");
    let start = || -> Child {
        let mut command = Command::new(rft_path());
        command.args(["sweep", "sweep.toml", "--jobs=1"]).current_dir(broken.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let lines = |run: &str| {
        fs::read_to_string(sweep.join("runs").join(run).join("metrics.jsonl"))
            .map_or(0, |it| it.matches("\"reward\":").count())
    };
    hold_after(broken.path(), 2 * 8);
    let mut child = start();
    until("step 2 of the first run", || (lines("reasoning-s1") >= 2).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    // The run continues without its parent; the next sweep waits for it and does not start it twice.
    let mut child = start();
    hold_after(broken.path(), 2 * 32 + 8);
    until("a step of the third run", || (lines("reasoning-s2") >= 1).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let found = states(broken.path(), "sweeps/small");
    assert_eq!((found["reasoning-s1"].as_str(), found["none-s2"].as_str()), ("done", "waiting"));

    release(broken.path());
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
    fs::write(broken.path().join("sweep.toml"), text.replace("train.steps = 4", "train.steps = 5")).unwrap();
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
fn ctrl_c_saves_the_state_of_every_process() {
    let folder = with(
        "sweep.toml",
        SMALL.replace("train.steps = 4", "train.steps = 100000\ntrain.save_total_limit = 2").as_bytes(),
    );
    let run = folder.path().join("sweeps/small/runs/reasoning-s1");
    let mut command = Command::new(rft_path());
    command.args(["sweep", "sweep.toml", "--set=sweep.eval.base=false"]).current_dir(folder.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a step", || fs::read_to_string(run.join("metrics.jsonl")).ok().filter(|it| it.contains("\"reward\":")));
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let states = states(folder.path(), "sweeps/small");
    assert_eq!((states["reasoning-s1"].as_str(), states["reasoning-s2"].as_str()), ("interrupted", "waiting"));
    assert!(run.join("adapter/adapter_model.safetensors").is_file());
}

#[test]
fn a_run_that_fails_does_not_stop_the_others() {
    let text = SMALL
        .replace(r#"["reasoning", "none"]"#, r#"["none"]"#)
        .replace("[sweep.eval]", "[[sweep.list]]\nname = \"broken\"\n\"data.path\" = \"missing.jsonl\"\n[sweep.eval]");
    let folder = with("sweep.toml", text.as_bytes());
    let (code, said) = run_sweep(folder.path(), &["--set=sweep.seeds=[1]"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("failed   broken-s1: exit code 1"), "{said}");
    assert!(said.contains("there is no data file `missing.jsonl`"), "{said}");
    assert!(said.contains("full log: sweeps/small/logs/broken-s1.log"), "{said}");
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

/// A sweep resumes its runs with the inputs that they were started with, or not at all.
#[test]
fn a_run_whose_data_has_changed_is_not_resumed() {
    let data = "data.path = \"questions.jsonl\"\n[sweep]";
    let text = SMALL.replace(r#"["reasoning", "none"]"#, r#"["none"]"#).replacen("[sweep]", data, 1);
    let folder = with("sweep.toml", text.as_bytes());
    let questions = |sum: usize| -> String {
        (0..20).map(|i| format!("{{\"question\": \"What is {i} + 1?\", \"answer\": \"{}\"}}\n", i + sum)).collect()
    };
    fs::write(folder.path().join("questions.jsonl"), questions(1)).unwrap();
    let args = ["--set=sweep.seeds=[1]", "--set=sweep.eval.base=false"];
    assert_eq!(run_sweep(folder.path(), &args).0, Some(0));

    let run = folder.path().join("sweeps/small/runs/none-s1");
    fs::remove_dir_all(run.join("adapter")).unwrap();
    fs::remove_dir_all(run.join("checkpoints/step-000004")).unwrap();
    fs::write(folder.path().join("questions.jsonl"), questions(2)).unwrap();
    let (code, said) = run_sweep(folder.path(), &args);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("have changed since it was started: data file `questions.jsonl`"), "{said}");
    fs::write(folder.path().join("questions.jsonl"), questions(1)).unwrap();
    assert_eq!(run_sweep(folder.path(), &args).0, Some(0));
}

#[test]
fn each_process_gets_a_gpu_and_its_threads() {
    let folder = folder();
    let (program, calls) = (folder.path().join("rft"), folder.path().join("calls"));
    // The first two processes wait for each other, so that both GPUs are taken.
    let script = format!(
        "#!/bin/sh\necho \"$CUDA_VISIBLE_DEVICES $1 $5 $6\" >>'{0}'\nuntil [ \"$(wc -l <'{0}')\" -ge 2 ]; do sleep 0.05; done\n",
        calls.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let sweep = sweep("sweep.grid.\"prompt.ppe\" = [\"reasoning\", \"planning\", \"none\"]");
    let (place, record, _lock) = SweepFolder::prepare(&folder.path().join("out"), &sweep).unwrap();
    let machine = Machine { program, jobs: 2, threads: 3, gpus: vec!["3".to_owned(), "GPU-5f".to_owned()] };
    let (ends, started) = ends("the sweep", move || {
        let mut started = Vec::new();
        let ends = work(&place, &record, &machine, &Children::default(), &Stop::manual(), &mut |event| {
            if let Event::Started { task, .. } = event {
                started.push(task.name.clone());
            }
        });
        (ends, started)
    });
    assert!(ends.unwrap().iter().all(|(_, end)| *end == TaskEnd::Done));
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
fn a_dry_run_lists_everything_and_writes_nothing() {
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
                |line: &&str| line.starts_with(what) && line.contains(" tokens, ") && line.contains("cost ");
            assert!(said.lines().any(|it| is_priced(&it)), "{set}: no price of `{what}` in\n{said}");
        }
    }
    assert!(!folder.path().join("sweeps").exists());
}

/// The shipped demonstration, shortened: every arm, two seeds.
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

/// The doubts about the study as arms, shortened: the report shows the variance decomposition, the gains of the controls and the
/// retained shares.
#[test]
fn the_doubts_about_the_study_run_and_are_reported() {
    let folder = folder();
    let output = rft(folder.path())
        .args(["sweep", "doubts-tiny", "--set=train.steps=2", "--set=sweep.eval.limit=6"])
        .args(["--set=rollout.prompts_per_step=4", "--set=rollout.num_generations=4"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let sweep = folder.path().join("sweeps/doubts-tiny");
    let record: Value = serde_json::from_slice(&fs::read(sweep.join("sweep.json")).unwrap()).unwrap();
    let arms: Vec<&str> =
        record["runs"].as_array().unwrap().iter().take(10).map(|run| run["arm"].as_str().unwrap()).collect();
    let named = ["answer-only", "random", "inverted", "majority", "mixture", "distilled"];
    assert_eq!(arms[4..], named);
    assert_eq!(record["runs"].as_array().unwrap().len(), 20);

    rft(folder.path()).args(["report", "sweeps/doubts-tiny"]).assert().success();
    let report: Value = serde_json::from_slice(&fs::read(sweep.join("report/report.json")).unwrap()).unwrap();
    let page = fs::read_to_string(sweep.join("report/report.md")).unwrap();
    for title in ["Strategy or wording", "Would another reward have done it?", "Does the model still need the prompt?"]
    {
        assert!(page.contains(title), "{title}");
    }
    for component in ["strategy", "wording", "seed", "question", "rest"] {
        assert!(report["wordings"].to_string().contains(component), "{component}: {}", report["wordings"]);
    }
    // The arms with another reward have the prompt `reasoning`, which was trained with two wordings.
    assert!(page.contains("One wording: `answer-only` was trained with one wording only"), "{page}");
    for arm in ["mixture", "distilled"] {
        assert!(page.contains(&format!("| {arm} |")), "{arm}");
    }
}
