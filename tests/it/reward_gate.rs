//! Before its first step, a run tests its reward, and stops if the reward accepts wrong answers or rejects right ones.

use rft::config::{ConfigLayers, PRESETS, resolve};
use rft::data::{self, Question};
use rft::prompt;
use rft::reward::RewardSet;
use rft::reward::bench::{Frame, gate};

use crate::cli::{error, folder, rft};
use crate::train::SMALL;

/// The option that adds a command; `act` sets `score` from `line` and `gold`.
fn judge(act: &str) -> String {
    let script = format!(
        r#"while read -r line; do id=${{line#*:}}; gold=${{line#*gold\":\"}}; gold=${{gold%%\"*}}; {act}; echo "{{\"id\":${{id%%,*}},\"score\":$score}}"; done"#
    );
    format!("--set=reward.custom=[{{name='judge', weight=1, command=['sh', '-c', '''{script}''']}}]")
}

/// 1 if there is a box.
const ANY_BOX: &str = "case $line in *boxed*) score=1;; *) score=0;; esac";
const NOTHING: &str = "score=0";
/// 1 if the box has the text of the gold answer, and 0 for its other forms.
const SAME_TEXT: &str = r#"case $line in *"boxed{$gold}"*) score=1;; *) score=0;; esac"#;

/// A run of one step.
fn small() -> Vec<&'static str> {
    SMALL.into_iter().map(|arg| if arg == "--steps=4" { "--steps=1" } else { arg }).collect()
}

fn train(set: &str, more: &[&str]) -> (bool, String) {
    let folder = folder();
    let output = rft(folder.path()).args(small()).args(["--set=eval.questions=0", set]).args(more).output();
    let output = output.unwrap();
    assert_eq!(folder.path().join("runs").exists(), output.status.success(), "a run that cannot start writes no files");
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_command_that_accepts_attacks_stops_the_run() {
    let folder = folder();
    let set = judge(ANY_BOX);
    let args = [small(), vec!["--set=eval.questions=0", &set]].concat();
    let said = error(&folder, &args);
    assert!(said.starts_with("error: the reward failed its test on "), "{said}");
    assert!(said.contains("false accept of judge (") && said.contains("reward.bench"), "{said}");
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_command_that_rejects_right_forms_stops_the_run() {
    for act in [NOTHING, SAME_TEXT] {
        let (passed, said) = train(&judge(act), &[]);
        assert!(!passed && said.contains("false reject of judge ("), "{said}");
    }
}

#[test]
fn the_test_can_warn_be_off_or_allow_failures() {
    let set = judge(ANY_BOX);
    let failed = "the reward failed its test on";
    let (passed, said) = train(&set, &["--set=reward.bench=warn"]);
    assert!(passed && said.contains(&format!("note     {failed}")), "{said}");
    for more in ["--set=reward.bench=off", "--set=reward.max_bench_failures=1000"] {
        let (passed, said) = train(&set, &[more]);
        assert!(passed && !said.contains(failed), "{more}: {said}");
    }
    let (passed, said) = train(&set, &["--set=reward.max_bench_failures=1"]);
    assert!(!passed, "{said}");
}

/// A score that is not 0 or 1 does not say that an answer is right or wrong.
#[test]
fn a_command_that_grades_is_not_tested() {
    let (passed, said) = train(&judge("score=0.5"), &[]);
    let note = "note     custom reward `judge` is not tested: it gave the score 0.5, not 0 or 1";
    assert!(passed && said.contains(note), "{said}");
}

#[test]
fn a_command_without_a_weight_is_not_tested() {
    let (passed, said) = train(&judge(NOTHING).replace("weight=1", "weight=0"), &[]);
    assert!(passed && !said.contains("tested") && !said.contains("its test"), "{said}");
}

#[test]
fn a_resumed_run_is_not_tested_again() {
    let folder = folder();
    let set = judge(NOTHING);
    let started = ["--set=reward.bench=off", "--set=eval.questions=0", &set];
    rft(folder.path()).args(small()).args(started).assert().success();
    let config = folder.path().join("runs/run/config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("bench = \"off\"", "bench = \"error\"");
    std::fs::write(&config, text).unwrap();
    let resume = ["train", "--resume=runs/run", "--steps=2", "--accept-changes"];
    rft(folder.path()).args(resume).assert().success();
}

/// The rules of every preset pass without a note, on generated questions.
#[test]
fn the_presets_pass() {
    for preset in PRESETS {
        let sets = vec!["data.path=arithmetic".into(), "data.max_questions=400".into()];
        let config = resolve(&ConfigLayers { preset: Some(preset.name.into()), sets, ..ConfigLayers::default() });
        let config = config.unwrap().config;
        for ppe in ["reasoning", "planning", "code", "recall", "null-example", "none", "answer-only", "tag-swap"] {
            let prior = prompt::find(ppe).unwrap();
            let rewards = RewardSet::from_config(&config.reward, &prior, 96).unwrap();
            let questions: Vec<Question> =
                data::load(&config.data, 42, 0, &|_, _, _| unreachable!("generated")).unwrap().questions;
            let notes = gate::test(&rewards, &config.reward, Frame::new(&config, &prior), &questions, 42, 8).unwrap();
            assert_eq!(notes, Vec::<String>::new(), "{} {ppe}", preset.name);
        }
    }
}
