//! The section about learning rates that trials chose, its warnings, and strategies whose wordings have different ones.

use super::*;

/// The record of a candidate with one trial of 64 questions.
fn candidate(value: f64, correct: Option<usize>) -> Value {
    let trial = match correct {
        Some(correct) => {
            json!({ "run": "t", "seed": 101, "correct": correct, "questions": 64, "questions_sha256": "aa" })
        }
        None => json!({ "run": "t", "seed": 101, "error": "weights of the adapter became infinite" }),
    };
    let share = correct.map(|it| it as f64 / 64.0);
    let interval = share.map(|it| json!({ "low": it - 0.1, "high": it + 0.1 }));
    json!({ "value": value, "accuracy": share, "interval": interval, "trials": [trial] })
}

fn tuned(arm: &str, steps: usize, candidates: &[(f64, Option<usize>)], choice: f64) -> Value {
    let candidates: Vec<Value> = candidates.iter().map(|(value, correct)| candidate(*value, *correct)).collect();
    json!({ "arm": arm, "steps": steps, "questions": 64, "candidates": candidates, "choice": choice,
            "reason": "the highest held-out accuracy" })
}

/// A sweep with an arm per prompt, its learning rate and the accuracy of its runs.
fn sweep(lab: &Lab, arms: &[(&str, f64, f64)], record: &[Value]) -> Report {
    let benches = ["easy", "hard"];
    let (mut runs, mut evals) = (Vec::new(), Vec::new());
    for (at, (arm, rate, accuracy)) in arms.iter().enumerate() {
        for seed in 1..=2 {
            let name = format!("{arm}-s{seed}");
            let run = lab.run(&name, arm, seed, 20);
            let config = fs::read_to_string(run.join("config.toml")).unwrap();
            let config = config.replace("[train]\n", &format!("[train]\nlearning_rate = {rate:?}\n"));
            fs::write(run.join("config.toml"), config).unwrap();
            lab.eval(&name, Some(&run), arm, *accuracy, 10 * at as u64 + seed);
            runs.push(json!({ "name": name, "arm": arm, "seed": seed, "varies": {} }));
            evals.push(json!({ "name": name, "run": name, "test_prompt": arm, "benches": benches }));
        }
    }
    let written = json!({ "name": "tuned", "runs": runs, "evals": evals });
    fs::write(lab.path("sweep.json"), written.to_string()).unwrap();
    if !record.is_empty() {
        let record = json!({ "rft": "0", "key": "train.learning_rate", "arms": record });
        fs::write(lab.path("tune.json"), record.to_string()).unwrap();
    }
    lab.report(&[lab.folder.path().to_owned()])
}

fn has(report: &Report, warning: &str) {
    assert!(report.warnings.iter().any(|line| line == warning), "no `{warning}` in {:#?}", report.warnings);
}

#[test]
fn the_candidates_the_budget_and_the_choice_of_each_arm_are_shown() {
    let lab = Lab::new();
    let three = [(1e-4, Some(20)), (1e-3, Some(50)), (1e-2, None)];
    let arms = [("reasoning", 1e-3, 0.7), ("code", 1e-3, 0.5), ("none", 5e-3, 0.3), ("recall", 1e-4, 0.3)];
    let record = [
        tuned("reasoning", 10, &three, 1e-3),
        tuned("code", 20, &[(1e-4, Some(30)), (1e-3, Some(31))], 1e-3),
        tuned("recall", 10, &three, 1e-4),
    ];
    let report = sweep(&lab, &arms, &record);
    has(
        &report,
        "Not tuned alike: `train.learning_rate` was chosen by trials for some arms but not for `none`, so a difference \
                  between them may come from the tuning.",
    );
    has(
        &report,
        "Not tuned alike: the trials of the arms have different candidates: `reasoning` 0.0001, 0.001, 0.01; `code` 0.0001, \
                  0.001; `recall` 0.0001, 0.001, 0.01.",
    );
    has(
        &report,
        "Not tuned alike: the trials of the arms have different steps: `reasoning` 10; `code` 20; `recall` 10.",
    );
    // The trials of `recall` say that 0.001 is better.
    has(&report, "Not the chosen value: `train.learning_rate` of `recall` does not follow from its trials.");
    has(
        &report,
        "Failed trials: a trial with `train.learning_rate` ended with an error: `reasoning` (0.01), `recall` (0.01).",
    );
    has(
        &report,
        "At the edge: the chosen `train.learning_rate` is the smallest or the largest candidate, so a value outside the \
                  candidates may be better: `code` (0.001), `recall` (0.0001).",
    );
    has(
        &report,
        "Within noise: the interval of other candidates of `train.learning_rate` overlaps with that of the choice, so they may \
                  be as good: `code` (0.001 and 0.0001).",
    );
    let files = written(&report);
    assert!(files["index.html"].contains("<section id=\"tuning\">"));
    let text = &files["report.md"];
    for line in [
        "## How the learning rates were chosen",
        "| reasoning | 0.0001, 0.001, 0.01 | 3 × 10 × 64 | 0.001 | the highest held-out accuracy |",
        "| reasoning | 0.001 | 1 | 78.1 \\[68.1, 88.1\\] | chosen |",
        "| reasoning | 0.01 | 1 | – | failed: weights of the adapter became infinite |",
        "Not tuned: `none`.",
    ] {
        assert!(text.lines().any(|it| it == line), "no line `{line}` in\n{text}");
    }
    assert!(
        files["tables.csv"]
            .contains("code,,code,tuning,\"accuracy, train.learning_rate = 0.0001\",0.46875,0.36875,0.56875,64")
    );
    assert_eq!(report.data["tuning"]["untuned"], json!(["none"]));
}

#[test]
fn arms_that_were_tuned_alike_have_no_warning() {
    let lab = Lab::new();
    let candidates = [(1e-4, Some(20)), (1e-3, Some(60)), (1e-2, Some(10))];
    let record = ["reasoning", "none"].map(|arm| tuned(arm, 10, &candidates, 1e-3));
    let report = sweep(&lab, &[("reasoning", 1e-3, 0.7), ("none", 1e-3, 0.3)], &record);
    for start in ["Not tuned", "Not the", "Failed trials", "At the edge", "Within noise"] {
        assert!(!report.warnings.iter().any(|line| line.starts_with(start)), "{:#?}", report.warnings);
    }
    let lab = Lab::new();
    let report = sweep(&lab, &[("reasoning", 1e-3, 0.7), ("none", 1e-3, 0.3)], &[]);
    assert!(report.data.get("tuning").is_none());
}

/// Wordings with different learning rates are one strategy only if trials chose them.
#[test]
fn wordings_may_differ_in_a_learning_rate_that_trials_chose() {
    let arms =
        [("reasoning", 1e-3, 0.7), ("reasoning@1", 1e-4, 0.6), ("planning", 1e-3, 0.5), ("planning@1", 1e-3, 0.5)];
    let [low, high] = [[(1e-4, Some(50)), (1e-3, Some(20))], [(1e-4, Some(20)), (1e-3, Some(50))]];
    let record = |first: &[(f64, Option<usize>)]| {
        [
            tuned("reasoning", 10, first, 1e-3),
            tuned("reasoning@1", 10, &low, 1e-4),
            tuned("planning", 10, &high, 1e-3),
            tuned("planning@1", 10, &high, 1e-3),
        ]
    };
    let text = |record: &[Value]| written(&sweep(&Lab::new(), &arms, record))["report.md"].clone();
    let told = text(&record(&high));
    assert!(
        told.contains("Strategies with several wordings: `reasoning` (2 wordings), `planning` (2 wordings)."),
        "{told}"
    );
    let values = "Trials chose different values of `train.learning_rate` for the wordings of `reasoning`: `reasoning` 0.001, \
                  `reasoning@1` 0.0001.";
    assert!(told.contains(values) && !told.contains("for the wordings of `planning`"), "{told}");
    // Without trials, and with trials from which the choice does not follow.
    for record in [Vec::new(), record(&low).to_vec()] {
        let told = text(&record);
        assert!(!told.contains("`reasoning` (2 wordings)") && told.contains("`planning` (2 wordings)"), "{told}");
    }
}
