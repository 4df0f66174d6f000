//! Rollouts on servers: the result does not depend on which server generates what or on failures, and a server that does not
//! use the adapter stops the run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

use rft::run::completions;
use rft::run::metrics::{self, MetricsRecord};

use crate::cli::{folder, rft};
use crate::model_server::{Fixed, ModelServer, ServerFault};
use crate::train::{SMALL, Trace};

/// Completions of a run: 4 steps of 4 groups of 4.
const SAMPLES: usize = 4 * 4 * 4;
/// Completions of its evaluations: before training, after step 2 and after training, sampled and greedy.
const EVALUATED: usize = 3 * 2 * 16;

/// The arguments of a small run on `servers`.
fn job(servers: &[&ModelServer]) -> Vec<String> {
    let urls: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.url)).collect();
    let endpoints = format!("--set=rollout.endpoints=[{}]", urls.join(","));
    // A high learning rate, so that the adapter of every step differs clearly from the one before.
    let more =
        [endpoints, "--set=rollout.requests_per_endpoint=4".to_owned(), "--set=train.learning_rate=0.003".to_owned()];
    SMALL.map(str::to_owned).into_iter().chain(more).collect()
}

/// The result of a run on one server without faults.
fn whole() -> &'static Trace {
    static WHOLE: OnceLock<Trace> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let folder = folder();
        rft(folder.path()).args(job(&[&ModelServer::start(None)])).assert().success();
        Trace::of(&folder.path().join("runs/run"))
    })
}

/// The error of a run on `servers` that must stop.
fn stopped(servers: &[&ModelServer], more: &[&str]) -> String {
    let folder = folder();
    let output = rft(folder.path()).args(job(servers)).args(more).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said[said.find("error: ").unwrap()..].to_owned()
}

fn steps(run: &Path) -> Vec<MetricsRecord> {
    let lines = metrics::read(&run.join("metrics.jsonl")).unwrap();
    lines.into_iter().filter(|line| line.values.contains_key("reward")).collect()
}

#[test]
fn groups_are_spread_over_servers_and_every_completion_is_drawn_once() {
    let servers = [ModelServer::start(None), ModelServer::start(None)];
    let folder = folder();
    rft(folder.path()).args(job(&[&servers[0], &servers[1]])).assert().success();
    let run = folder.path().join("runs/run");
    Trace::of(&run).assert_same(whole());

    let groups = completions::read(&run.join("completions.jsonl")).unwrap();
    assert_eq!(groups.iter().map(|group| group.completions.len()).sum::<usize>(), SAMPLES);
    let mut seeds = Vec::new();
    for server in &servers {
        let served = server.served.lock().unwrap();
        assert!(!served.seeds.is_empty(), "a server was not used");
        // The evaluation after training uses the adapter of the last step: one more than there are steps.
        assert_eq!(served.loaded.len(), 5);
        assert_eq!(served.unloaded, served.loaded[..4]);
        assert_eq!(served.loaded.iter().collect::<BTreeSet<_>>().len(), 5, "a name for each version");
        seeds.extend_from_slice(&served.seeds);
    }
    assert_eq!(seeds.len(), SAMPLES + EVALUATED);

    for line in steps(&run) {
        let value = |name: &str| line.values[name].unwrap();
        assert_eq!(value("sampling/sampling_logp_difference/max"), 0.0, "the same arithmetic on both sides");
        assert_eq!(value("sampling/importance_sampling_ratio/mean"), 1.0);
        if line.step > 1 {
            assert!((value("sampling/adapter_effect") - 1.0).abs() < 1e-6, "{:?}", line.values);
        }
    }
    let left: Vec<_> = fs::read_dir(run.join("server-adapters")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_server_that_is_killed_and_comes_back_changes_nothing() {
    let servers = [ModelServer::start(None), ModelServer::start(Some(ServerFault::Restart { after: 4, count: 3 }))];
    let folder = folder();
    let output = rft(folder.path()).args(job(&[&servers[0], &servers[1]])).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(servers[1].served.lock().unwrap().failed > 0);
    Trace::of(&folder.path().join("runs/run")).assert_same(whole());
}

/// The only server is restarted in the middle of the first evaluation.
#[test]
fn a_restarted_server_gets_the_adapter_again() {
    let server = ModelServer::start(Some(ServerFault::Restart { after: 20, count: 3 }));
    let folder = folder();
    rft(folder.path()).args(job(&[&server])).assert().success();
    let served = server.served.lock().unwrap();
    assert!(served.failed > 0 && served.loaded[0] == served.loaded[1], "{:?}", served.loaded);
    Trace::of(&folder.path().join("runs/run")).assert_same(whole());
}

#[test]
fn a_busy_server_is_asked_again() {
    let server = ModelServer::start(Some(ServerFault::Busy { count: 6 }));
    let folder = folder();
    rft(folder.path()).args(job(&[&server])).assert().success();
    Trace::of(&folder.path().join("runs/run")).assert_same(whole());
}

#[test]
fn a_resumed_run_draws_the_same_completions() {
    let folder = folder();
    let mut job = job(&[&ModelServer::start(None)]);
    job.iter_mut().filter(|arg| *arg == "--steps=4").for_each(|arg| "--steps=2".clone_into(arg));
    rft(folder.path()).args(job).assert().success();
    rft(folder.path()).args(["train", "--threads=1", "--resume=runs/run", "--steps=4"]).assert().success();
    Trace::of(&folder.path().join("runs/run")).assert_same(whole());
}

#[test]
fn a_server_that_answers_as_the_base_model_stops_the_run() {
    let servers = [ModelServer::start(None), ModelServer::start(Some(ServerFault::Base { after: 3 }))];
    let error = stopped(&[&servers[0], &servers[1]], &[]);
    let expected = format!("step 3: {} answers as the base model, without the adapter", servers[1].url);
    assert!(error.contains(&expected) && error.contains("hint: start the server with --enable-lora"), "{error}");
}

#[test]
fn a_server_with_an_older_adapter_stops_the_run() {
    let server = ModelServer::start(Some(ServerFault::Stale { after: 3 }));
    let error = stopped(&[&server], &[]);
    assert!(error.contains(&format!("step 3: {} answers as the adapter of an earlier step", server.url)), "{error}");
}

#[test]
fn a_reply_without_log_probabilities_stops_the_run() {
    let server = ModelServer::start(Some(ServerFault::NoLogprobs));
    let error = stopped(&[&server], &["--set=eval.questions=0"]);
    assert!(error.contains(&server.url) && error.contains("reply without `logprobs`"), "{error}");
}

#[test]
fn a_server_without_adapters_is_explained() {
    let server = ModelServer::start(Some(ServerFault::NoAdapters));
    let error = stopped(&[&server], &["--set=eval.questions=0"]);
    let expected = "the server cannot load adapters: it has no `/v1/load_lora_adapter` (404)";
    assert!(error.contains(&server.url) && error.contains(expected), "{error}");
    assert!(error.contains("hint: start vLLM with --enable-lora"), "{error}");
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let error = stopped(&[], &["--set=rollout.endpoints=[\"http://127.0.0.1:9\"]"]);
    assert!(error.contains("`rollout.endpoints`: list the models of http://127.0.0.1:9"), "{error}");
}

/// A program that writes the folder it is given to the file `at`.
fn reload_script(folder: &Path, at: &Path, then: &str) -> String {
    let script = folder.join("reload.sh");
    fs::write(&script, format!("#!/bin/sh\nprintf '%s' \"$1\" > '{}'\n{then}\n", at.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script.display().to_string()
}

#[test]
fn a_command_makes_any_other_server_use_the_adapter() {
    let folder = folder();
    let at = folder.path().join("adapter");
    let server = ModelServer::start_with(None, Fixed::Named(at.clone()));
    let script = reload_script(folder.path(), &at, "exit 0");
    let command = ["--set=rollout.server=command".to_owned(), format!("--set=rollout.reload_command=[\"{script}\"]")];
    rft(folder.path()).args(job(&[&server])).args(command).assert().success();
    Trace::of(&folder.path().join("runs/run")).assert_same(whole());
}

#[test]
fn a_reload_command_that_fails_stops_the_run_with_its_output() {
    let folder = folder();
    let at = folder.path().join("adapter");
    let server = ModelServer::start_with(None, Fixed::Named(at.clone()));
    let script = reload_script(folder.path(), &at, "echo no memory >&2; exit 3");
    let command = format!("--set=rollout.reload_command=[\"{script}\"]");
    let error = stopped(&[&server], &["--set=rollout.server=command", &command]);
    assert!(error.contains("failed (exit status: 3): no memory"), "{error}");
}

#[test]
fn a_server_that_started_with_the_wrong_adapter_stops_the_first_step() {
    let folder = folder();
    let path = folder.path();
    let trained = SMALL.map(|arg| if arg == "run" { "other" } else { arg });
    rft(path).args(trained).args(["--set=train.learning_rate=0.01", "--set=eval.questions=0"]).assert().success();
    let at = path.join("adapter");
    fs::write(&at, path.join("runs/other/adapter").display().to_string()).unwrap();
    let server = ModelServer::start_with(None, Fixed::Named(at));
    let more = ["--set=rollout.server=command", "--set=rollout.reload_command=[\"true\"]", "--set=eval.questions=0"];
    let error = stopped(&[&server], &more);
    let expected = format!("step 1: the log-probabilities of {} differ from our own by ", server.url);
    assert!(
        error.contains(&expected) && error.contains("hint: check that `rollout.reload_command` ends only"),
        "{error}"
    );
}
