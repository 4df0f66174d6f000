//! `rft runs`, `rft compare` and `rft report` on the command line.

use std::fs;

use serde_json::Value;

use crate::cli::{error, folder, rft};
use crate::report::Lab;

fn json(output: &[u8]) -> Value {
    serde_json::from_slice(output).unwrap()
}

#[test]
fn runs_are_listed_with_their_state() {
    let lab = Lab::new();
    lab.run("whole", "none", 1, 20);
    lab.run("half", "reasoning", 2, 7);
    fs::remove_dir_all(lab.run("early", "reasoning", 3, 3).join("checkpoints")).unwrap();
    fs::write(lab.run("torn", "reasoning", 4, 3).join("manifest.json"), "{").unwrap();
    let output = rft(&lab.path("")).args(["runs", "--output-format", "json"]).output().unwrap();
    let found = json(&output.stdout);
    let told: Vec<(&str, &str, u64)> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (run["name"].as_str().unwrap(), run["state"].as_str().unwrap(), run["step"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("whole", "done", 20), ("half", "interrupted", 7), ("early", "interrupted", 3)]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("warning: skipping `runs/torn`"));

    let table = rft(&lab.path("")).arg("runs").output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("7 of 20") && table.contains("interrupted") && table.contains("0.610"), "{table}");

    // A run directory, and a folder before the first run.
    let one = rft(&lab.path("")).args(["runs", "runs/half", "--output-format", "json"]).output().unwrap();
    assert_eq!(json(&one.stdout).as_array().unwrap().len(), 1);
    let none = rft(folder().path()).args(["runs", "--output-format", "json"]).output().unwrap();
    assert_eq!((none.status.code(), json(&none.stdout)), (Some(0), serde_json::json!([])));
    assert!(String::from_utf8(none.stderr).unwrap().contains("no runs yet"));
    let said = error(&folder(), &["runs", "elsewhere"]);
    assert!(said.starts_with("error: read the runs in `elsewhere`"), "{said}");
}

#[test]
fn two_runs_are_compared() {
    let lab = Lab::new();
    lab.study(&[("none", 0.3), ("reasoning", 0.6)], 1);
    let compare = |more: &[&str]| {
        let output =
            rft(&lab.path("")).args(["compare", "runs/none-1", "runs/reasoning-1"]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let found = json(&compare(&["--output-format", "json"]));
    assert_eq!(found["config"], serde_json::json!({ "prompt.ppe": ["none", "reasoning"] }));
    let reward = &found["metrics"]["reward"];
    // Steps 1 and 2, then 19 and 20, at seed 1.
    assert!(
        (reward[0][0].as_f64().unwrap() - 0.24).abs() < 1e-9 && (reward[1][1].as_f64().unwrap() - 0.6).abs() < 1e-9
    );
    // Both under their own prompts, and both under none.
    let prompts: Vec<&Value> = found["evaluations"].as_array().unwrap().iter().map(|it| &it["prompts"]).collect();
    assert_eq!(prompts, [&serde_json::json!(["none", "none"]), &serde_json::json!(["none", "reasoning"])]);
    assert_eq!(found["evaluations"][0]["benchmarks"].as_array().unwrap().len(), 2);

    let text = String::from_utf8(compare(&[])).unwrap();
    assert!(text.contains("prompt.ppe") && text.contains("A evaluated under `none`, B under `reasoning`"), "{text}");

    let said = error(&folder(), &["compare", ".", "."]);
    assert!(said.contains("has no manifest.json") && said.contains("hint: "), "{said}");
}

/// A report without any result would look like a result.
#[test]
fn a_failed_run_has_no_report() {
    let lab = Lab::new();
    lab.run("half", "none", 1, 7);
    let said = error(&lab.folder, &["report", "runs/half"]);
    assert_eq!(said, "error: nothing to report: The run `half` is left out: it is interrupted after step 7 of 20\n");
    assert!(!lab.path("runs/half/report").exists());
}

#[test]
fn a_report_is_written_to_the_given_folder() {
    let lab = Lab::new();
    lab.study(&[("none", 0.3), ("reasoning", 0.6)], 2);
    let runs = ["runs/none-1", "runs/none-2", "runs/reasoning-1", "runs/reasoning-2"];
    let output = rft(&lab.path("")).arg("report").args(runs).args(["--out", "told"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("No verdict on ") || said.contains("is higher"), "{said}");
    assert!(said.contains("warning: Truncated"), "{said}");
    for name in ["index.html", "report.md", "tables.csv", "report.json"] {
        assert!(lab.path("told").join(name).is_file(), "{name}");
    }
    let paper =
        rft(&lab.path("")).args(["report", "--published", "paper", "--output-format", "json"]).output().unwrap();
    let wrong = &json(&paper.stdout)["published"]["wrong_averages"];
    assert_eq!((wrong.as_array().unwrap().len(), wrong[0]["row"].as_str()), (1, Some("No PP")));
    assert!(lab.path("report/index.html").is_file());

    // The runs' report does not replace the one of the paper.
    let said = error(&lab.folder, &["report", runs[0], runs[2]]);
    assert!(said.contains("`report` has a report of other runs") && said.contains("hint: choose another"), "{said}");
    assert!(fs::read_to_string(lab.path("report/index.html")).unwrap().contains("Analysis of the published figures"));
    rft(&lab.path("")).args(["report", runs[0], runs[2], "--force"]).assert().success();
    rft(&lab.path("")).args(["report", runs[2], runs[0]]).assert().success();
    rft(&lab.path("")).args(["report", runs[1]]).assert().success();
    assert!(lab.path("runs/none-2/report/index.html").is_file());

    let said = error(&lab.folder, &["report", runs[0], "--baseline", "nonne"]);
    assert!(said.contains("--baseline: unknown arm `nonne`") && said.contains("hint: use one of `none`"), "{said}");

    let said = error(&folder(), &["report", "."]);
    assert!(
        said.contains("is neither a run nor an evaluation") && said.contains("hint: pass run directories"),
        "{said}"
    );
}
