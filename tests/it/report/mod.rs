//! Reports: all sections exist, the same input gives the same bytes, text is escaped, and findings are only those that the
//! statistics support.

mod arms;
mod controls;
mod internalized;
mod tuning;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rft::data::decontaminate::{Contamination, Overlap};
use rft::disk::hash::{sha256, sha256_file};
use rft::eval::asked::QuestionRecord;
use rft::eval::folder::{BenchRecord, EvalFolder, GradeRecord, Identity, SampleRecord};
use rft::eval::grade::Grade;
use rft::eval::profile::{Extraction, Profile, Style};
use rft::eval::score::{BenchmarkScores, SampleLengths, ShareEstimate};
use rft::math::Verdict;
use rft::report::Report;
use rft::report::load::load;
use rft::report::paper::Published;
use rft::report::sections::report;
use rft::rng::{Purpose, Stream};
use rft::run::manifest::{PromptIdentity, SourceRecord};
use rft::run::{CompletionRecord, GroupRecord, Manifest, RunDir, RunSession};
use rft::stats::{accuracy_interval, mean};
use serde_json::{Value, json};

/// The completion of every question.
const HOSTILE: &str = "<think>2 | 3 `x`</think></pre><script>alert(1)</script>\n| \u{1b}[31m \\boxed{4}";

/// A folder with made-up runs and evaluations, so that no model has to be trained.
pub struct Lab {
    pub folder: tempfile::TempDir,
    questions: usize,
    benchmarks: Vec<&'static str>,
    /// The completions of trained models without a prompt.
    without_prompt: &'static str,
}

impl Lab {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            questions: 40,
            benchmarks: vec!["easy", "hard"],
            without_prompt: HOSTILE,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run with the prior prompt `prompt`, of which `made` steps are done, with an increasing reward.
    pub fn run(&self, name: &str, prompt: &str, seed: u64, made: usize) -> PathBuf {
        let run = RunDir::create(&self.path("runs"), Some(name), "tiny").unwrap();
        let config = format!("[prompt]\nppe = \"{prompt}\"\n[train]\nsteps = 20\nepochs = 1\nseed = {seed}\n");
        fs::write(run.config(), config).unwrap();
        let source = |path: &str| SourceRecord {
            path: path.into(),
            revision: None,
            files: BTreeMap::from([("all".into(), sha256(path.as_bytes()))]),
        };
        let home = format!("{}home/whoever/secret.toml", '/');
        let session = RunSession {
            started: format!("2026-01-02T03:04:{seed:02}Z"),
            command: ["rft", "train", "--config", &home, "--seed", &seed.to_string()].map(str::to_owned).to_vec(),
            ..RunSession::start(jiff::Timestamp::UNIX_EPOCH, "cpu", 1, None)
        };
        let manifest = Manifest {
            seed,
            steps: 20,
            model: source("tiny"),
            data: source("arithmetic"),
            prompt: PromptIdentity {
                name: prompt.into(),
                wording: "rft".into(),
                sha256: sha256(prompt.as_bytes()),
                mixture: vec![],
            },
            distilled: None,
            template: None,
            init_adapter: None,
            difficulty: None,
            held_out: None,
            files: BTreeMap::new(),
            sessions: vec![session],
        };
        manifest.write(&run).unwrap();
        let line = |step: usize| {
            let reward = 0.2 + 0.02 * step as f64 + 0.01 * seed as f64;
            let time = 1.0 + seed as f64;
            json!({ "step": step, "reward": reward, "completions/mean_length": 30.0, "frac_reward_zero_std": 0.9,
                    "epoch": step as f64 / 20.0, "step_time": time })
            .to_string()
        };
        let lines: Vec<String> = (1..=made).map(line).collect();
        fs::write(run.metrics(), lines.join("\n") + "\n").unwrap();
        fs::create_dir(run.adapter()).unwrap();
        fs::write(run.adapter().join("adapter_model.safetensors"), name).unwrap();
        fs::create_dir_all(run.checkpoint(made)).unwrap();
        run.path().to_owned()
    }

    fn identity(&self, adapter: Option<&Path>, prompt: &str) -> Identity {
        let name = adapter.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        let weights = adapter.map(|path| sha256_file(&path.join("adapter/adapter_model.safetensors")).unwrap());
        Identity {
            model: "tiny".into(),
            model_sha256: "aa".into(),
            adapter: name,
            adapter_sha256: weights,
            engine: "cpu".into(),
            ppe: prompt.into(),
            wording: "rft".into(),
            mix: vec![],
            prompt_sha256: "bb".into(),
            prefill: false,
            template_sha256: "cc".into(),
            tokenizer_sha256: "dd".into(),
            profile: "study".into(),
            temperature: 0.6,
            top_p: 0.95,
            top_k: 0,
            min_p: 0.0,
            seed: 42,
        }
    }

    /// An evaluation with an accuracy of about `accuracy`, of the adapter of a run or of the untrained model.
    pub fn eval(&self, name: &str, adapter: Option<&Path>, prompt: &str, accuracy: f64, draw: u64) -> PathBuf {
        let path = self.path("evals").join(name);
        let folder = EvalFolder::start(&path, &self.identity(adapter, prompt)).unwrap();
        let text = if adapter.is_some() && prompt == "none" { self.without_prompt } else { HOSTILE };
        for (place, benchmark) in self.benchmarks.iter().enumerate() {
            self.bench(&folder, benchmark, accuracy, &Stream::new(draw, Purpose::Test, &[place as u64]), text);
        }
        path
    }

    fn bench(&self, folder: &EvalFolder, name: &str, accuracy: f64, stream: &Stream, text: &str) {
        let style = Style {
            profile: Profile::Study,
            template: "{question}".into(),
            prefill: None,
            stop: vec![],
            extraction: Extraction::Math,
            temperature: 0.6,
            top_p: 0.95,
            max_tokens: 100,
            samples: 2,
        };
        let record = BenchRecord { benchmark: name.into(), data_sha256: sha256(name.as_bytes()), style, notes: vec![] };
        let files = folder.bench(name);
        let question = |q: usize| QuestionRecord {
            id: format!("{name}/{q}"),
            question: format!("What is {q} <b>less</b> {q}?"),
            gold: "4|5".into(),
            options: vec![],
            order: vec![],
            needs_judge: false,
            ppe: None,
            prompt_text: format!("What is {q}?"),
            prompt_sha256: "ee".into(),
        };
        files.prepare(&record, &(0..self.questions).map(question).collect::<Vec<_>>()).unwrap();
        let (mut samples, mut grades, mut right) = (Vec::new(), Vec::new(), vec![0.0; self.questions]);
        for (q, right) in right.iter_mut().enumerate() {
            for sample in 0..2 {
                // Every third question is easy, for every model.
                let ease = if q % 3 == 0 { 0.25 } else { -0.1 };
                let solved = stream.f64((2 * q + sample) as u64) < accuracy + ease;
                *right += f64::from(u8::from(solved)) / 2.0;
                let question_id = format!("{name}/{q}");
                let verdict = if solved { Verdict::Correct } else { Verdict::Wrong };
                let (text, tokens) = (text.to_owned(), 20 + q);
                samples.push(SampleRecord {
                    question_id: question_id.clone(),
                    sample,
                    ppe: None,
                    key: "k".into(),
                    text,
                    tokens,
                    finish: "length".into(),
                });
                let grade = Grade { answer: Some("<i>4</i>".into()), ..Grade::new(verdict, "the last box") };
                grades.push(GradeRecord { question_id, sample, grade });
            }
        }
        files.settle(&samples).unwrap();
        files.write_grades(&grades).unwrap();
        let scores = BenchmarkScores {
            benchmark: name.into(),
            profile: "study".into(),
            questions: self.questions,
            of: self.questions,
            samples: 2,
            max_tokens: 100,
            accuracy: ShareEstimate { value: mean(&right), interval: accuracy_interval(&right, 2, 0) },
            by_prompt: BTreeMap::new(),
            pass_at: BTreeMap::new(),
            majority: None,
            base_accuracy: None,
            letter_accuracy: None,
            truncated: 0.25,
            no_answer: 0.0,
            undecided: 0.0,
            unparsable: None,
            tokens: SampleLengths { mean: 39.5, p10: 20.0, median: 39.0, p90: 55.0, max: 59 },
            sandbox: None,
            grader: "1".into(),
            notes: vec![],
            does_not_fit: vec![],
            warnings: vec![],
        };
        files.write_results(&scores).unwrap();
    }

    /// Arms with given true accuracies, trained with `seeds` seeds, and the untrained model under their prompts.
    pub fn study(&self, arms: &[(&str, f64)], seeds: u64) -> Vec<PathBuf> {
        let mut runs = Vec::new();
        for (at, (prompt, accuracy)) in arms.iter().enumerate() {
            self.eval(&format!("base-{prompt}"), None, prompt, 0.3, 900 + at as u64);
            for seed in 1..=seeds {
                let run = self.run(&format!("{prompt}-{seed}"), prompt, seed, 20);
                let draw = 10 * at as u64 + seed;
                self.eval(&format!("{prompt}-{seed}-own"), Some(&run), prompt, *accuracy, draw);
                if *prompt != "none" {
                    self.eval(&format!("{prompt}-{seed}-none"), Some(&run), "none", accuracy - 0.1, 100 + draw);
                }
                runs.push(run);
            }
        }
        runs
    }

    fn report(&self, inputs: &[PathBuf]) -> Report {
        report(&load(inputs, &self.path("evals")).unwrap(), None, &[])
    }
}

/// The four files of a report.
fn written(report: &Report) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    report.write(folder.path()).unwrap();
    let names = ["index.html", "report.md", "tables.csv", "report.json"];
    names.iter().map(|name| (name.to_string(), fs::read_to_string(folder.path().join(name)).unwrap())).collect()
}

#[test]
fn all_sections_exist_and_the_same_input_gives_the_same_bytes() {
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.4), ("reasoning", 0.45), ("null-example", 0.5)], 3);
    let files = written(&lab.report(&runs));
    assert_eq!(files, written(&lab.report(&runs)), "the same input, the same bytes");

    let page = &files["index.html"];
    for id in ["summary", "warnings", "results", "comparisons", "untrained", "matrix", "paper", "training", "lengths"] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    for id in ["behaviors", "questions", "completions", "repeat"] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    let data: Value = serde_json::from_str(&files["report.json"]).unwrap();
    assert_eq!(data["results"]["rows"].as_array().unwrap().len(), 6);
    assert_eq!(data["comparisons"].as_array().unwrap().len(), 3 * 3);
    assert_eq!(data["untrained"].as_array().unwrap().len(), 3 * 3);
    // The page loads nothing, and the files contain neither times nor folders of the runs.
    assert!(
        !page.contains("http://")
            || page.matches("http://").count() == page.matches("http://www.w3.org/2000/svg").count()
    );
    assert!(!page.contains("https://") && !page.contains("src=") && !page.contains("@import"));
    for (name, text) in &files {
        assert!(!text.contains("2026-01-02") && !text.contains("whoever"), "{name}");
        assert!(!text.contains(lab.folder.path().to_str().unwrap()), "{name}");
    }
    assert!(files["report.md"].contains("--config secret.toml"));
}

#[test]
fn markup_in_texts_is_escaped() {
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.4), ("a|`b`<i>", 0.5)].map(|(name, it)| (name, it)), 2);
    let files = written(&lab.report(&runs));
    let page = &files["index.html"];
    assert!(!page.contains("<script>alert") && !page.contains("</pre><script>") && !page.contains("<i>"));
    assert!(!page.contains("<think>") && !page.contains('\u{1b}'));
    assert!(page.contains("<b class=\"tag\">&lt;think&gt;</b>"));
    let markdown = &files["report.md"];
    // Lines outside fences contain no markup, and all rows of a table have the same number of columns.
    let mut fence = None;
    let mut columns = 0;
    for line in markdown.lines() {
        let ticks = line.chars().take_while(|&c| c == '`').count();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            Some(open) if ticks == open && line.len() == ticks => fence = None,
            None => {
                // Markdown does not interpret text in backquotes.
                let bare: String = line.replace("\\`", "").split('`').step_by(2).collect();
                assert!(!bare.contains("<script") && !bare.contains("<b>") && !bare.contains("<i>"), "{line}");
                let bars = line.replace("\\|", "").matches('|').count();
                if line.starts_with('|') {
                    assert!(columns == 0 || bars == columns, "{line}");
                    columns = bars;
                } else {
                    columns = 0;
                }
            }
            _ => {}
        }
    }
    assert_eq!(fence, None);
    let mut rows = csv::Reader::from_reader(files["tables.csv"].as_bytes());
    assert!(rows.records().all(|row| row.unwrap().len() == 9));
}

/// Writes the held-out questions of a run. Those for which `right` is true are solved.
fn held_out(run: &Path, step: usize, kind: &str, right: impl Fn(usize) -> bool) {
    let line = |q: usize| {
        let verdict = if right(q) { Verdict::Correct } else { Verdict::Wrong };
        let solved = Some(f32::from(u8::from(right(q))));
        let completion = CompletionRecord {
            text: HOSTILE.into(),
            tokens: 10 + step,
            finish: "stop".into(),
            rewards: BTreeMap::from([("accuracy".into(), solved), ("format".into(), Some(1.0))]),
            reward: 0.5,
            verdict,
            answer: None,
            note: Some("no <think>".into()),
            advantage: 0.0,
        };
        let group = GroupRecord {
            step,
            question_id: format!("held-out-{q}"),
            question: format!("What is {q}?"),
            gold: "4".into(),
            ppe: None,
            prompt_sha256: "ff".into(),
            completions: vec![completion],
        };
        serde_json::to_string(&group).unwrap() + "\n"
    };
    fs::create_dir_all(run.join("eval")).unwrap();
    fs::write(run.join(format!("eval/step-{step:06}-{kind}.jsonl")), (0..90).map(line).collect::<String>()).unwrap();
}

#[test]
fn held_out_accuracy_is_reported_before_and_after_training() {
    let lab = Lab::new();
    let runs: Vec<PathBuf> = (1..=3).map(|seed| lab.run(&format!("r-{seed}"), "reasoning", seed, 20)).collect();
    for (seed, run) in runs.iter().enumerate() {
        held_out(run, 0, "sampled", |q| q % 3 == 0);
        held_out(run, 20, "sampled", |q| q % 3 < 2 || q == seed);
        held_out(run, 0, "greedy", |q| q % 2 == 0);
        held_out(run, 20, "greedy", |_| true);
    }
    let report = lab.report(&runs);
    let told = "`reasoning` is higher than `reasoning, before training` on `held-out questions` by 33.";
    // What was measured comes first, then what follows from it.
    let known = "`reasoning`: accuracy on 90 held-out questions 33.3 % [23.3, 43.3] before training, 67.0 % [57.0, 76.7] after (3 seeds).";
    assert_eq!(report.summary[0], known);
    assert!(report.summary[1].starts_with(told), "{:?}", report.summary);
    assert!(report.summary.iter().any(|line| line.starts_with("There are no evaluations")), "{:?}", report.summary);
    let files = written(&report);
    let row = files["report.md"].lines().find(|line| line.starts_with("| reasoning | 3 | 33.3 ")).expect("a row");
    for part in ["| 67.0 ", "| 50.0 → 100.0 |", "| 100.0 → 100.0 |", "| 10.0 → 30.0 |"] {
        assert!(row.contains(part), "no `{part}` in {row}");
    }
    assert!(files["index.html"].contains("reasoning, before training") && !files["index.html"].contains(HOSTILE));
    assert_eq!(report.data["completions"]["of"], 90);

    let single = lab.report(&runs[..1]);
    assert_eq!(single.summary[1], "No verdict on the difference from before training.");
    assert!(single.summary[2].starts_with("It comes from a single seed"), "{:?}", single.summary);
    assert!(single.warnings[0].starts_with("One training seed: `reasoning` was"), "{:?}", single.warnings);
    assert!(!single.warnings.iter().any(|line| line.starts_with("Underpowered")), "{:?}", single.warnings);
    assert!(written(&single)["report.md"].contains("| no verdict: one seed |"));

    // Other held-out questions; and a run without completions before training.
    let other = lab.run("r-4", "reasoning", 4, 20);
    held_out(&other, 20, "sampled", |_| true);
    assert!(lab.report(std::slice::from_ref(&other)).data.get("held-out").is_none());
    for step in [0, 20] {
        held_out(&other, step, "sampled", |_| true);
        let path = other.join(format!("eval/step-{step:06}-sampled.jsonl"));
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("held-out-", "other-")).unwrap();
    }
    let mixed = lab.report(&[runs[0].clone(), other]);
    assert!(mixed.warnings.iter().any(|line| line.contains("held out different questions")), "{:?}", mixed.warnings);
}

#[test]
fn the_summary_claims_only_significant_differences() {
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.1), ("reasoning", 0.75)], 5);
    let found = lab.report(&runs);
    let told = found.summary.iter().find(|line| line.starts_with("`reasoning` is higher than `none` on"));
    assert!(told.is_some_and(|line| line.contains("on the average over the benchmarks by")), "{:?}", found.summary);
    assert!(found.data["comparisons"][2]["verdict"] == "higher", "{}", found.data["comparisons"]);

    // One seed: no verdict, and a warning.
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.1), ("reasoning", 0.75)], 1);
    let single = lab.report(&runs);
    assert!(!single.summary.iter().any(|line| line.contains("is higher")), "{:?}", single.summary);
    assert!(single.warnings[0].starts_with("One training seed"), "{:?}", single.warnings);

    // Everything is solved, so no benchmark distinguishes the arms.
    let lab = Lab::new();
    let runs = lab.study(&[("none", 2.0), ("reasoning", 2.0)], 2);
    let easy = lab.report(&runs);
    let told =
        easy.warnings.iter().filter(|line| line.starts_with("At the end of the scale: 2 of 2 arms have at least 99 %"));
    assert_eq!(told.count(), 2, "{:?}", easy.warnings);

    // No difference: no verdict, and the other warnings.
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.5), ("reasoning", 0.5)], 3);
    let none = lab.report(&runs);
    assert!(!none.warnings.iter().any(|line| line.starts_with("At the end of the scale")), "{:?}", none.warnings);
    let nothing = "No verdict on any of the 3 differences between arms";
    assert!(none.summary.iter().any(|line| line.starts_with(nothing)), "{:?}", none.summary);
    for start in ["Truncated", "Reward saturated"] {
        assert!(none.warnings.iter().any(|line| line.starts_with(start)), "{start}: {:?}", none.warnings);
    }
}

#[test]
fn incomplete_evaluations_are_named_and_give_no_number() {
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.4), ("reasoning", 0.5)], 3);
    fs::remove_file(lab.path("evals/reasoning-3-own/hard/results.json")).unwrap();
    let unfinished = lab.run("late", "reasoning", 9, 7);
    let found = lab.report(&[runs.clone(), vec![unfinished]].concat());
    let told = |text: &str| found.warnings.iter().any(|line| line.contains(text));
    assert!(told("The benchmark `hard` of the evaluation `reasoning-3-own` is left out"), "{:?}", found.warnings);
    assert!(told("`reasoning-3-own` is left out of the tables: it does not have `hard`"), "{:?}", found.warnings);
    assert!(told("The run `late` is left out: it is interrupted after step 7 of 20"), "{:?}", found.warnings);
    let rows = found.data["results"]["rows"].as_array().unwrap();
    let reasoning = rows.iter().find(|row| row["name"] == "reasoning" && row["model"] == "trained").unwrap();
    assert_eq!(reasoning["seeds"], 2);

    // A file that cannot be read is left out, and the reason does not contain a folder.
    fs::write(lab.path("evals/none-2-own/easy/grades.jsonl"), "{\n").unwrap();
    let found = lab.report(&runs);
    let torn = "The benchmark `easy` of the evaluation `none-2-own` is left out: `EOF while parsing";
    assert!(found.warnings.iter().any(|line| line.starts_with(torn)), "{:?}", found.warnings);

    // Grades that do not match the results are left out too.
    let grades = lab.path("evals/none-1-own/easy/grades.jsonl");
    let text = fs::read_to_string(&grades).unwrap();
    fs::write(&grades, text.replacen("\"wrong\"", "\"correct\"", 1)).unwrap();
    let found = lab.report(&runs);
    assert!(found.warnings.iter().any(|line| line.contains("do not match its grades")), "{:?}", found.warnings);
}

#[test]
fn scores_leave_out_questions_that_training_used() {
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.4), ("reasoning", 0.5)], 2);
    for run in &runs {
        let ids: Vec<String> = (0..10).map(|q| format!("easy/{q}")).collect();
        let of = |overlapping| Overlap { questions: 40, overlapping, ..Overlap::default() };
        let found = Contamination {
            n: 8,
            share: 0.7,
            rows: 100,
            decontaminated: false,
            removed: 0,
            removed_rows: vec![],
            benchmarks: BTreeMap::from([("easy".into(), of(ids)), ("other".into(), of(vec!["x".into()]))]),
            not_checked: BTreeMap::from([("hard".into(), "it is not on this disk".into())]),
        };
        fs::write(run.join("contamination.json"), serde_json::to_vec(&found).unwrap()).unwrap();
    }
    let found = lab.report(&runs);
    let warning = "Contaminated: 10 of 40 questions of `easy`";
    assert!(found.warnings.iter().any(|line| line.starts_with(warning)), "{:?}", found.warnings);
    let unchecked = "The training data was not checked for questions of `hard`: `it is not on this disk`.";
    assert!(found.warnings.iter().any(|line| line == unchecked), "{:?}", found.warnings);
    let (whole, clean) = (&found.data["results"], &found.data["results"]["without_overlap"]);
    for (whole, clean) in whole["rows"].as_array().unwrap().iter().zip(clean["rows"].as_array().unwrap()) {
        assert_eq!(whole["cells"][1], clean["cells"][1], "`hard` keeps all its questions");
        assert_ne!(whole["cells"][0], clean["cells"][0]);
    }
}

#[test]
fn a_sweep_is_read_from_its_definition() {
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.4), ("reasoning", 0.5)], 2);
    let sweep = lab.path("");
    let member = |run: &PathBuf| {
        let name = run.file_name().unwrap().to_str().unwrap();
        let (prompt, seed) = name.rsplit_once('-').unwrap();
        json!({ "name": name, "arm": format!("arm of {prompt}"), "seed": seed.parse::<u64>().unwrap(),
                "varies": { "prompt.ppe": prompt } })
    };
    let benches = ["easy", "hard"];
    let mut evals: Vec<Value> = runs
        .iter()
        .map(|run| {
            let name = run.file_name().unwrap().to_str().unwrap();
            let (prompt, _) = name.rsplit_once('-').unwrap();
            json!({ "name": format!("{name}-own"), "run": name, "arm": null, "seed": null, "test_prompt": prompt, "benches": benches })
        })
        .collect();
    let base = |name: &str, prompt: &str| json!({ "name": name, "run": null, "arm": null, "seed": null, "test_prompt": prompt, "benches": benches });
    evals.extend([base("base-none", "none"), base("base-later", "reasoning")]);
    let mut members: Vec<Value> = runs.iter().map(member).collect();
    for prompt in ["none", "reasoning"] {
        let (name, arm) = (format!("{prompt}-3"), format!("arm of {prompt}"));
        members.push(json!({ "name": name, "arm": arm, "seed": 3, "varies": {} }));
    }
    let plan = json!({ "rft": "0.1.0", "name": "small <study>", "demonstration": true,
        "notes": ["This demonstrates the tool. It is not evidence about prompts."], "seeds": [1, 2, 3],
        "runs": members, "evals": evals });
    fs::write(sweep.join("sweep.json"), plan.to_string()).unwrap();

    let found = lab.report(&[sweep]);
    let files = written(&found);
    assert!(files["index.html"].contains("<p class=\"note\">This demonstrates the tool"));
    assert!(files["index.html"].contains("<h1>Report of small &lt;study&gt;</h1>"));
    let told = "2 runs are left out, each because it has not been started: `none-3`, `reasoning-3`.";
    assert!(found.warnings.iter().any(|line| line == told), "{:?}", found.warnings);
    assert!(found.warnings.iter().any(|line| line.contains("`base-later` is left out: it has not been run yet")));
    let names: Vec<&str> =
        found.data["results"]["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "arm of none", "arm of reasoning"]);
}

#[test]
fn a_folder_that_is_not_a_run_is_an_error_with_a_hint() {
    let lab = Lab::new();
    fs::create_dir(lab.path("empty")).unwrap();
    let error = load(&[lab.path("empty")], &lab.path("evals")).err().unwrap().to_string();
    assert!(error.contains("is neither a run nor an evaluation\nhint: "), "{error}");
}

#[test]
fn an_evaluation_of_other_weights_is_not_attributed_to_the_run() {
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.4)], 1);
    fs::write(runs[0].join("adapter/adapter_model.safetensors"), "trained again").unwrap();
    let named = vec![runs[0].clone(), lab.path("evals/none-1-own")];
    let found = lab.report(&named);
    let told = "The evaluation `none-1-own` is left out: its adapter `none-1` does not belong to any of the runs.";
    assert!(found.warnings.iter().any(|line| line == told), "{:?}", found.warnings);
}

#[test]
fn errors_in_the_published_table_are_found() {
    let found = report(&Default::default(), Some(&Published::of_the_paper()), &[]);
    let files = written(&found);
    let wrong = "Qwen2.5-7B, No PP: the printed average is 45.41, but the mean of the row is 45.89.";
    assert!(files["index.html"].contains(wrong) && files["report.md"].contains(wrong));
    let differences = found.data["published"]["differences"].as_array().unwrap();
    let beyond = |it: &&Value| it["difference"]["noise"] == "beyond" && it["difference"]["reference"] == "pPE Think";
    let of_main = differences.iter().filter(|it| it["model"] == "Qwen2.5-7B");
    assert_eq!(of_main.filter(beyond).count(), 0, "no difference between the arms is beyond noise");
    assert!(differences.iter().any(|it| it["difference"]["noise"] == "beyond"));
}
