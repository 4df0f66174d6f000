//! A run that was stopped, killed or damaged resumes to the same bytes as one that was not.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, OnceLock};

use rft::run::{Signal, Stop};

use crate::cli::{rft, rft_path};
use crate::lab::Lab;
use crate::progress::{held_reward, hold_after, release};
use crate::train::{SMALL, Trace};

/// Completions of a step of the job.
const STEP: usize = 2 * 4;

/// The job of these tests, which can be held in the middle.
pub fn job(sets: &[&'static str]) -> Vec<&'static str> {
    static HELD: LazyLock<String> = LazyLock::new(|| format!("--set={}", held_reward()));
    let longer = SMALL.into_iter().map(|arg| if arg == "--steps=4" { "--steps=10" } else { arg });
    let lighter = ["--set=rollout.prompts_per_step=2", "--set=eval.questions=8", HELD.as_str()];
    // A mixture replaces the prompt.
    let mixed = sets.iter().any(|set| set.contains("prompt.mix"));
    let all = longer.chain(lighter).chain(sets.iter().copied());
    all.filter(|arg| !mixed || !arg.starts_with("--ppe")).collect()
}

/// The run, without interruption.
fn whole() -> &'static Trace {
    static WHOLE: OnceLock<Trace> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        rft(folder.path()).args(job(&[])).assert().success();
        Trace::of(&folder.path().join("runs/run"))
    })
}

/// A run of 4 steps that trains on to 6 has the bytes of one with 6 steps, because the learning rate is constant.
#[test]
fn a_finished_run_trains_on_to_more_steps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let longer = SMALL.into_iter().map(|arg| if arg == "--steps=4" { "--steps=6" } else { arg });
    let longer: Vec<&str> = longer.map(|arg| if arg == "run" { "longer" } else { arg }).collect();
    rft(path).args(longer).assert().success();
    rft(path).args(SMALL).assert().success();
    let resume =
        |more: &[&str]| rft(path).args(["train", "--threads=1", "--resume", "runs/run"]).args(more).output().unwrap();
    let output = resume(&["--steps=6"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("`train.steps` of the run, now 6"), "{said}");
    Trace::of(&path.join("runs/run")).assert_same(&Trace::of(&path.join("runs/longer")));

    // The manifest expects the new number, so a later resume finds no change.
    let manifest = fs::read_to_string(path.join("runs/run/manifest.json")).unwrap();
    assert!(manifest.contains("\"steps\": 6") && manifest.contains("`train.steps` of the run, now 6"), "{manifest}");
    let said = String::from_utf8(resume(&[]).stderr).unwrap();
    assert!(said.contains("has already trained all of its 6 steps"), "{said}");
    let said = String::from_utf8(resume(&["--steps=5"]).stderr).unwrap();
    assert!(said.contains("error: --steps: the run has already trained 6 steps"), "{said}");
}

/// The last rate of a cosine over 3 steps is 1/4 of the first, and the last two of one over 5 steps are 0.345 and 0.095.
#[test]
fn training_on_says_what_the_learning_rate_does() {
    let folder = tempfile::tempdir().unwrap();
    let start = ["train", "--ppe=none", "--threads=1", "--steps=3", "--name=run", "--set=eval.questions=0"];
    let small =
        ["--set=rollout.prompts_per_step=1", "--set=train.lr_scheduler_type=cosine", "--set=train.min_lr_rate=0"];
    rft(folder.path()).args(start).args(small).assert().success();
    let resume = ["train", "--threads=1", "--resume=runs/run", "--steps=5"];
    let said = String::from_utf8(rft(folder.path()).args(resume).output().unwrap().stderr).unwrap();
    let note = "note     the learning rate schedule is now that of 5 steps instead of 3: step 4 has 3.455e-4, after 2.500e-4 in step 3\n";
    assert!(said.contains(note), "{said}");
    let lines = rft::run::metrics::read(&folder.path().join("runs/run/metrics.jsonl")).unwrap();
    let rates: Vec<f64> = lines.iter().filter_map(|line| *line.values.get("learning_rate")?).collect();
    for (rate, expected) in rates.iter().zip([1e-3, 7.5e-4, 2.5e-4, 3.4549e-4, 9.549e-5]) {
        assert!((rate - expected).abs() < 1e-7, "{rates:?}");
    }
    assert_eq!(rates.len(), 5);
}

/// Starts the job, holds it in the step after `step`, and sends it `signal` there. Returns the exit code, or none if the
/// signal killed it.
pub fn interrupt(folder: &Path, sets: &[&'static str], step: usize, signal: &str) -> Option<i32> {
    hold_after(folder, STEP * step);
    let mut child: Child = Command::new(rft_path())
        .args(job(sets))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mark = format!("step {step}/10");
    assert!(lines.any(|line| line.starts_with(&mark)), "no line of the run begins with `{mark}`");
    assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
    release(folder);
    lines.for_each(drop);
    child.wait().unwrap().code()
}

/// Resumes the run and returns its standard error.
fn resume(folder: &Path) -> String {
    let output = rft(folder).args(["train", "--resume", "runs/run"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("runs/run/checkpoints")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_stopped_run_resumes_to_the_same_bytes() {
    for (step, signal, code) in [(2, "INT", 130), (3, "TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(interrupt(folder.path(), &[], step, signal), Some(code), "{signal}");
        assert_eq!(checkpoints(folder.path()).len(), 1, "{signal}");
        let said = resume(folder.path());
        assert!(!said.contains("step 1/10") && said.contains("step 10/10"), "{said}");
        assert!(said.contains("held-out before training: accuracy"), "{said}");
        Trace::of(&folder.path().join("runs/run")).assert_same(whole());
    }
}

#[test]
fn a_run_that_lacks_only_its_last_evaluation_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let short = job(&[]).into_iter().map(|arg| if arg == "--steps=10" { "--steps=1" } else { arg });
    rft(folder.path()).args(short).assert().success();
    let run = folder.path().join("runs/run");
    let trace = Trace::of(&run);
    fs::remove_file(run.join("eval/step-000001-greedy.jsonl")).unwrap();
    resume(folder.path());
    Trace::of(&run).assert_same(&trace);
}

#[test]
fn a_killed_run_resumes_from_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(interrupt(folder.path(), &["--set=train.save_steps=2"], 5, "KILL"), None);
    let run = folder.path().join("runs/run");
    // The kill also came in the middle of a write.
    let mut log = OpenOptions::new().append(true).open(run.join("completions.jsonl")).unwrap();
    log.write_all(b"{\"step\":6,\"question_id\":\"arith").unwrap();
    let said = resume(folder.path());
    assert!(!said.contains("step 4/10") && said.contains("step 5/10"), "{said}");
    Trace::of(&run).assert_same(whole());
}

#[test]
fn a_damaged_checkpoint_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(interrupt(folder.path(), &["--set=train.save_steps=2"], 5, "INT"), Some(130));
    let names = checkpoints(folder.path());
    let newest = folder.path().join("runs/run/checkpoints").join(names.last().unwrap());
    let file = OpenOptions::new().write(true).open(newest.join("optimizer.safetensors")).unwrap();
    file.set_len(1000).unwrap();
    let said = resume(folder.path());
    let step: usize = names.last().unwrap()["step-".len()..].parse().unwrap();
    assert!(said.contains(&format!("warning: skipping the damaged checkpoint of step {step}")), "{said}");
    assert!(said.contains(&format!("step {step}/10")), "the step is trained again: {said}");
    Trace::of(&folder.path().join("runs/run")).assert_same(whole());
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(interrupt(folder.path(), &[], 1, "KILL"), None);
    let said = resume(folder.path());
    assert!(said.contains("step 1/10"), "{said}");
    Trace::of(&folder.path().join("runs/run")).assert_same(whole());
}

/// The stop comes in the first evaluation, in a rollout, in an evaluation between two steps, and in the last evaluation.
#[test]
fn a_run_stopped_after_any_completion_resumes_to_the_same_bytes() {
    // The answer depends only on the prompt and the step, as a policy's does; the rewards of a group differ.
    let run = |lab: &Lab, stop_after: usize| {
        let mut asked = 0;
        let mut engine = lab.engine(|prompt, completion, step| {
            asked += 1;
            if asked == stop_after {
                lab.stop.request(Signal::Interrupt);
            }
            if (prompt.key ^ step).is_multiple_of(2) == (completion == 0) {
                lab.right()
            } else {
                lab.ended("Who knows?")
            }
        });
        let outcome = lab.train(&mut engine, &mut lab.state()).unwrap();
        drop(engine);
        (outcome.stopped, asked)
    };
    let lab = || Lab::new(&["train.steps=3", "eval.every=1"]);
    let unbroken = lab();
    let (stopped, total) = run(&unbroken, 0);
    assert_eq!(stopped, None);
    let unbroken = Trace::of(unbroken.run_dir().path());
    assert_eq!(unbroken.metrics.len(), 7, "one line per step, and per evaluation");

    for stop_after in 1..total {
        let mut lab = lab();
        assert_eq!(run(&lab, stop_after).0, Some(Signal::Interrupt), "{stop_after}");
        lab.stop = Stop::manual();
        assert_eq!(run(&lab, 0).0, None);
        Trace::of(lab.run_dir().path()).assert_same(&unbroken);
    }
}
