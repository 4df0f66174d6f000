//! Pass rates of training questions: the same whether measured at once or in parts, and training on a band of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use rft::train::pass_rates::PassRate;
use tempfile::TempDir;

use crate::cli::{error, folder, rft};

const DATA: [&str; 4] = ["--model=tiny", "--ppe=none", "--set=data.max_questions=24", "--set=eval.questions=0"];

fn measure(folder: &Path, args: &[&str]) -> String {
    let output = rft(folder).arg("difficulty").args(DATA).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const OUT: [&str; 4] = ["--samples=4", "--out=rates.jsonl", "--threads=1", "--set=rollout.max_rows=8"];

/// A folder with the pass rates of 24 questions.
fn measured() -> &'static Path {
    static MEASURED: OnceLock<TempDir> = OnceLock::new();
    let folder = MEASURED.get_or_init(|| {
        let folder = folder();
        let said = measure(folder.path(), &OUT);
        assert!(said.starts_with("24 questions, ") && said.ends_with("pass rates  rates.jsonl\n"), "{said}");
        folder
    });
    folder.path()
}

fn copy() -> TempDir {
    let folder = folder();
    for name in ["rates.jsonl", "rates.jsonl.settings.json"] {
        fs::copy(measured().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn rates(folder: &Path) -> Vec<PassRate> {
    let text = fs::read_to_string(folder.join("rates.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_interrupted_measurement_resumes_to_the_same_bytes() {
    let whole = fs::read(measured().join("rates.jsonl")).unwrap();
    let counts = rates(measured());
    assert_eq!(counts.len(), 24);
    assert!(counts.iter().all(|rate| rate.samples == 4 && rate.right <= 4));
    assert!(counts.iter().any(|rate| rate.right > 0) && counts.iter().any(|rate| rate.right < 4), "{counts:?}");
    // In the middle of a line.
    for kept in [whole.len() / 3, whole.len() - 5] {
        let folder = copy();
        fs::write(folder.path().join("rates.jsonl"), &whole[..kept]).unwrap();
        // The parts and the threads do not change the samples.
        measure(folder.path(), &["--samples=4", "--out=rates.jsonl", "--threads=2", "--set=rollout.max_rows=3"]);
        assert!(fs::read(folder.path().join("rates.jsonl")).unwrap() == whole, "after {kept} bytes");
    }
}

#[test]
fn other_settings_and_other_questions_are_an_error() {
    let folder = copy();
    for other in ["--samples=5", "--seed=1", "--set=rollout.temperature=0.5"] {
        let args = [&["difficulty"][..], &DATA, &["--samples=4", "--out=rates.jsonl", other]].concat();
        let args: Vec<&str> = args.into_iter().filter(|arg| other != "--samples=5" || *arg != "--samples=4").collect();
        let said = error(&folder, &args);
        assert!(said.contains("`rates.jsonl` was measured with another model or other settings\nhint: "), "{said}");
    }
    let fewer = ["--model=tiny", "--ppe=none", "--set=data.max_questions=20", "--set=eval.questions=0"];
    let said = error(&folder, &[&["difficulty"][..], &fewer, &["--samples=4", "--out=rates.jsonl"]].concat());
    assert!(said.contains("which is not in the data\nhint: use another --out"), "{said}");
}

const BAND: [&str; 2] = ["--set=data.difficulty=rates.jsonl", "--set=data.pass_rate=[0.0, 0.5]"];
const SMALL: [&str; 6] = [
    "--threads=1",
    "--set=rollout.prompts_per_step=4",
    "--set=rollout.num_generations=2",
    "--set=rollout.max_completion_length=8",
    "--set=train.save_steps=1",
    "--steps=2",
];

fn manifest(run: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(run.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn training_uses_only_the_questions_in_the_band() {
    let folder = copy();
    let train = |more: &[&str]| {
        let output = rft(folder.path()).arg("train").args(DATA).args(SMALL).args(more).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let inside: BTreeSet<String> = rates(folder.path())
        .into_iter()
        .filter(|rate| 2 * rate.right <= rate.samples)
        .map(|rate| rate.question_id)
        .collect();
    assert!((1..24).contains(&inside.len()), "the band does not separate the questions");
    let said = train(&[BAND[0], BAND[1], "--name=band"]);
    let note = format!("note     {} of 24 training questions have a pass rate from 0 to 0.5\n", inside.len());
    assert!(said.contains(&note), "{said}");
    let run = folder.path().join("runs/band");
    let log = fs::read_to_string(run.join("completions.jsonl")).unwrap();
    for line in log.lines() {
        let group: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(inside.contains(group["question_id"].as_str().unwrap()), "{line}");
    }

    // The band is a part of the data's hash, and the file is an input.
    train(&["--name=all"]);
    let (band, all) = (manifest(&run), manifest(&folder.path().join("runs/all")));
    assert_ne!(band["data"]["files"]["all"], all["data"]["files"]["all"]);
    let hash = rft::disk::hash::sha256_file(&folder.path().join("rates.jsonl")).unwrap();
    assert_eq!(band["difficulty"]["files"]["rates.jsonl"].as_str(), Some(hash.as_str()));
    fs::remove_dir_all(run.join("checkpoints/step-000002")).unwrap();
    fs::remove_dir_all(run.join("adapter")).unwrap();
    let resume = ["train", "--resume=runs/band", "--threads=1"];
    rft(folder.path()).args(resume).assert().success();
    fs::remove_dir_all(run.join("checkpoints/step-000002")).unwrap();
    fs::remove_dir_all(run.join("adapter")).unwrap();
    let text = fs::read_to_string(folder.path().join("rates.jsonl")).unwrap();
    fs::write(folder.path().join("rates.jsonl"), text.replacen("\"samples\":4", "\"samples\":5", 1)).unwrap();
    let said = error(&folder, &resume);
    assert!(said.contains("file of pass rates `rates.jsonl` (SHA-256"), "{said}");
}

#[test]
fn a_file_for_other_questions_is_an_error() {
    let folder = copy();
    let said = error(&folder, &[&["train"][..], &DATA, &SMALL, &BAND, &["--seed=7"]].concat());
    assert!(
        said.contains("select by `data.pass_rate`: `rates.jsonl` has no pass rate of the training question"),
        "{said}"
    );
    assert!(said.contains("it was measured on other questions\nhint: "), "{said}");
}
