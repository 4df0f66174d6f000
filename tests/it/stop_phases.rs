//! SIGTERM ends a run in any phase, soon, and no process that it started is left.
//!
//! Each test waits until the phase is reached, by what the run prints or leaves behind, and then sends the signal.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rft::device::cpu::learner::CpuLearner;
use rft::grpo::adamw::{AdamW, Hyper, LargestChange};
use rft::grpo::learner::{Keep, Learner};
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::ops::distill::DistillStats;
use rft::ops::head::TokenStats;
use rft::run::{Signal, Stop};
use serde_json::Value;

use crate::cli::{folder, rft_path};
use crate::code_eval::{sandbox, write_humaneval};
use crate::lab::Lab;
use crate::progress::until;
use crate::stub_server::{Behavior, Stub, like_tiny};
use crate::train::Trace;

/// A run that has not ended after this time hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// A started `rft`, and its stderr.
struct Started {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Started {
    fn new(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(rft_path());
        command.args(args).current_dir(folder).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Waits for a line that begins with `start`.
    fn line(&mut self, start: &str) {
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "the process ended before it printed `{start}`");
        }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Sends SIGTERM, and returns how the process ended and what else it printed.
    fn terminate(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        self.signal("TERM");
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(start.elapsed() < LIMIT, "it took {:?} to end: {said}", start.elapsed());
        (status, said)
    }
}

/// Arguments of a run whose step takes minutes: its phases are as long as its factors say.
fn long(prompts: &str, more: &[&str]) -> Vec<String> {
    let own = ["train", "--yes", "--ppe=none", "--threads=1", "--steps=2", "--name=run", "--set=eval.greedy=false"];
    let prompts = format!("--set=rollout.prompts_per_step={prompts}");
    own.into_iter().chain([prompts.as_str()]).chain(more.iter().copied()).map(str::to_owned).collect()
}

fn start(folder: &Path, args: &[String]) -> Started {
    Started::new(folder, &args.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

#[test]
fn term_ends_a_rollout() {
    let folder = folder();
    let mut run = start(folder.path(), &long("4096", &["--set=eval.questions=0", "--set=rollout.num_generations=64"]));
    run.line("run ");
    until("the log", || folder.path().join("runs/run/completions.jsonl").exists().then_some(()));
    let (status, said) = run.terminate();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.contains("stopped after step 0 of 2"), "{said}");
}

#[test]
fn term_ends_an_evaluation() {
    let folder = folder();
    let mut run = start(folder.path(), &long("2", &["--set=eval.questions=20000", "--set=rollout.num_generations=2"]));
    run.line("run ");
    until("the log", || folder.path().join("runs/run/completions.jsonl").exists().then_some(()));
    let (status, said) = run.terminate();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(!folder.path().join("runs/run/eval").exists(), "the evaluation is not complete");
}

#[test]
fn term_ends_an_update() {
    let folder = folder();
    // 32 completions of one step are scored, then used a thousand times.
    let judge = "reward.custom=[{name='count', weight=1, command=['sh', '-c', '''while read -r line; do echo >>asked; \
                 id=${line#*:}; id=${id%%,*}; echo \"{\\\"id\\\":$id,\\\"score\\\":$((id % 2))}\"; done''']}]";
    let more = [
        "--set=eval.questions=0",
        "--set=rollout.num_generations=8",
        "--set=grpo.num_iterations=1000",
        "--set=reward.bench=off",
    ];
    let run = start(folder.path(), &long("4", &[&more[..], &["--set", judge]].concat()));
    until("the last score", || {
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap_or_default();
        (asked.lines().count() == 32).then_some(())
    });
    let (status, said) = run.terminate();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.contains("stopped after step 0 of 2"), "{said}");
    assert_eq!(fs::read_to_string(folder.path().join("runs/run/metrics.jsonl")).unwrap(), "");
}

/// Programs that do not end are graded for minutes.
#[test]
fn term_ends_grading() {
    let Some(_) = sandbox() else { return };
    let folder = folder();
    write_humaneval(folder.path());
    let text = Arc::new(|_: &Value| "```python\ndef add(x):\n    while True: pass\n```".to_owned());
    let stub = Stub::start(Behavior { text, ..like_tiny() });
    let args = ["eval", "--bench=humaneval", "--data-dir=.", "--samples=1", "--max-tokens=40", "--out=out"];
    let more = ["--set=rollout.max_prompt_length=500", "--endpoint", &stub.url];
    let run = Started::new(folder.path(), &[&args[..], &more].concat(), &[]);
    until("the last sample", || {
        let samples = fs::read_to_string(folder.path().join("out/humaneval/samples.jsonl")).unwrap_or_default();
        (samples.lines().count() == 164).then_some(())
    });
    let (status, said) = run.terminate();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.contains("all samples are there, but not graded"), "{said}");
    assert!(!folder.path().join("out/humaneval/grades.jsonl").exists(), "grading is not complete");
}

/// A reward command that hangs, with a child process, after it has written both process ids.
const HANGING: &str = "reward.custom=[{name='hang', weight=0, timeout=3600, command=['sh', '-c', '''read -r line; trap \"\" \
                       TERM INT; sleep 100000 & echo $! $$ >pids.part; mv pids.part pids; wait; sleep 100000''']}]";

/// The process ids of the hanging command.
fn hanging(folder: &Path) -> (Started, Vec<String>) {
    let run =
        start(folder, &long("2", &["--set=eval.questions=0", "--set=rollout.num_generations=2", "--set", HANGING]));
    let pids = until("the command", || fs::read_to_string(folder.join("pids")).ok());
    (run, pids.split_whitespace().map(str::to_owned).collect())
}

/// Waits until no process of these exists; one that has ended but is not reaped yet does not count.
fn gone(pids: &[String]) {
    for pid in pids {
        until(&format!("the end of process {pid}"), || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
    }
}

#[test]
fn term_ends_scoring_with_a_command_that_hangs() {
    let folder = folder();
    let (run, pids) = hanging(folder.path());
    let (status, said) = run.terminate();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.contains("stopped after step 0 of 2"), "{said}");
    gone(&pids);
}

/// Not even a run that is killed leaves its commands behind.
#[test]
fn a_hanging_command_ends_with_a_run_that_is_killed() {
    let folder = folder();
    let (mut run, pids) = hanging(folder.path());
    run.signal("KILL");
    assert_eq!(run.child.wait().unwrap().signal(), Some(9));
    gone(&pids);
}

#[test]
fn term_ends_a_download() {
    // A Hub that accepts requests and never answers.
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let (folder, address) = (folder(), format!("http://{}", hub.local_addr().unwrap()));
    let cache = folder.path().join("cache").display().to_string();
    let env = [("HF_ENDPOINT", address.as_str()), ("HF_HOME", cache.as_str()), ("HF_HUB_OFFLINE", "0")];
    let run = Started::new(folder.path(), &["train", "--yes", "--model=some/model", "--ppe=none"], &env);
    let request = hub.accept().unwrap();
    let (status, said) = run.terminate();
    assert_eq!((status.signal(), status.code()), (Some(15), None), "{said}");
    drop(request);
}

/// A learner that requests a stop at one of its optimizer steps.
struct Stopping<'a> {
    learner: CpuLearner<'a>,
    stop: Stop,
    steps_left: usize,
}

impl Learner for Stopping<'_> {
    fn begin(&mut self, adapter: &Adapter) -> Result<()> {
        self.learner.begin(adapter)
    }

    fn forward(&mut self, adapter: Option<&Adapter>, pack: &Pack, keep: Keep) -> Result<()> {
        self.learner.forward(adapter, pack, keep)
    }

    fn token_stats(&mut self, pack: &Pack, temperature: f32) -> Result<Vec<TokenStats>> {
        self.learner.token_stats(pack, temperature)
    }

    fn head_backward(
        &mut self,
        pack: &Pack,
        temperature: f32,
        coefficients: &[f32],
        entropy: f32,
    ) -> Result<Vec<TokenStats>> {
        self.learner.head_backward(pack, temperature, coefficients, entropy)
    }

    fn teach(&mut self, pack: &Pack) -> Result<()> {
        self.learner.teach(pack)
    }

    fn distill_backward(&mut self, pack: &Pack, temperature: f32, weights: &[f32]) -> Result<Vec<DistillStats>> {
        self.learner.distill_backward(pack, temperature, weights)
    }

    fn backward(&mut self, adapter: &Adapter, pack: &Pack) -> Result<()> {
        self.learner.backward(adapter, pack)
    }

    fn gradient(&mut self) -> Result<Vec<f32>> {
        self.learner.gradient()
    }

    fn gradient_norm(&mut self, adapter: &Adapter) -> Result<f64> {
        self.learner.gradient_norm(adapter)
    }

    fn step(
        &mut self,
        adapter: &mut Adapter,
        adamw: &mut AdamW,
        hyper: &Hyper,
        max_norm: f64,
    ) -> Result<LargestChange> {
        self.steps_left -= 1;
        if self.steps_left == 0 {
            self.stop.request(Signal::Terminate);
        }
        self.learner.step(adapter, adamw, hyper, max_norm)
    }

    fn moments(&mut self, adamw: &mut AdamW) -> Result<()> {
        self.learner.moments(adamw)
    }

    fn peak_memory(&self) -> Option<u64> {
        self.learner.peak_memory()
    }
}

/// Two steps of four updates each.
#[test]
fn a_run_stopped_between_updates_resumes_to_the_same_bytes() {
    let lab = || Lab::new(&["grpo.num_iterations=2", "grpo.steps_per_generation=2", "eval.questions=0"]);
    let train = |lab: &Lab, stop_at: usize| {
        let mut engine = lab.engine(|prompt, completion, step| {
            let is_right = (prompt.key ^ step).is_multiple_of(2) == (completion == 0);
            if is_right { lab.right() } else { lab.ended("Who knows?") }
        });
        let learner = CpuLearner::new(&lab.decoder);
        let mut learner = Stopping { learner, stop: lab.stop.clone(), steps_left: stop_at };
        lab.train_on(&mut learner, &mut engine, &mut lab.state()).unwrap()
    };
    let whole = lab();
    assert_eq!(train(&whole, usize::MAX).stopped, None);
    let whole = Trace::of(whole.run_dir().path());
    // After the last update of a step, the step is complete.
    for (stop_at, steps) in [(1, 0), (3, 0), (4, 1), (5, 1), (7, 1)] {
        let mut lab = lab();
        let outcome = train(&lab, stop_at);
        assert_eq!((outcome.stopped, outcome.steps), (Some(Signal::Terminate), steps), "{stop_at}");
        assert_eq!(lab.run_dir().checkpoints().unwrap(), (1..=steps).collect::<Vec<_>>(), "{stop_at}");
        lab.stop = Stop::manual();
        assert_eq!(train(&lab, usize::MAX).stopped, None);
        Trace::of(lab.run_dir().path()).assert_same(&whole);
    }
}
