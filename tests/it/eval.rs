//! Evaluations: a killed one resumes to the same bytes, a part of the samples gives no score, and prompts differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tempfile::TempDir;

use rft::config::{ConfigLayers, resolve};
use rft::data::Question;
use rft::data::arithmetic::{MAX_LEVEL, Operation, Problem, Split, problems};
use rft::eval::asked::{Asking, EvalQuestion};
use rft::eval::bench::{self, AnswerKind, QuestionOrigin, Set, golds_sha256};
use rft::eval::profile::{Profile, Style};
use rft::model::source::ModelSource;
use rft::prompt::{self, Mixture, PriorPrompt};
use rft::rng::{Cursor, Purpose, Stream};
use rft::rollout::policy::Policy;

use crate::cli::{error, folder, rft, rft_path};
use crate::progress::until;
use crate::require::data;

/// A small evaluation: 48 questions, two samples each.
const SMALL: [&str; 9] = [
    "eval",
    "--bench=arithmetic-1",
    "--limit=24",
    "--samples=2",
    "--ppe=null-example",
    "--out=e",
    "--max-tokens=60",
    "--threads=1",
    "--seed=7",
];

/// The files that must be equal, by name.
fn files(evaluation: &Path) -> BTreeMap<String, String> {
    let bench = evaluation.join("arithmetic-1");
    let names = ["samples.jsonl", "grades.jsonl", "results.json", "questions.jsonl", "benchmark.json"];
    names.iter().map(|name| (name.to_string(), fs::read_to_string(bench.join(name)).unwrap())).collect()
}

/// An evaluation that writes more for its samples than for anything else: two questions with 40 samples each, two rows at a
/// time, so that samples end one by one while the process runs.
fn long(folder: &Path) -> Command {
    let questions = "{\"question\": \"What is 3 + 4?\", \"answer\": \"7\"}\n{\"question\": \"What is 9 - 4?\", \"answer\": \"5\"}\n";
    fs::write(folder.join("own.jsonl"), questions).unwrap();
    let mut command = Command::new(rft_path());
    command.args(["eval", "--bench=own.jsonl", "--samples=40", "--ppe=null-example", "--out=e", "--max-tokens=60"]);
    command.args(["--threads=1", "--seed=7", "--set=rollout.max_rows=2"]);
    command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn samples_len(folder: &Path) -> u64 {
    fs::metadata(folder.join("e/own/samples.jsonl")).map_or(0, |it| it.len())
}

/// Limits files to `bytes`. The kernel kills the process (SIGXFSZ) in the write that exceeds it, which leaves an incomplete line.
fn killed_at_length(folder: &Path, bytes: u64) {
    let mut command = long(folder);
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::Fsize, limit)?));
    }
    let status = command.status().unwrap();
    assert_eq!(status.signal(), Some(Signal::XFSZ.as_raw()), "at {bytes} bytes: {status}");
    assert_eq!(samples_len(folder), bytes);
}

/// Kills the process as soon as it has written another sample, or at a later sample if this process has to wait for a processor.
fn killed_after_a_sample(folder: &Path) {
    let before = samples_len(folder);
    let mut child = long(folder).spawn().unwrap();
    while samples_len(folder) <= before && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The evaluation is killed 20 times, each time after a given number of bytes.
#[test]
fn killed_evaluation_resumes_to_the_same_bytes() {
    let files = |folder: &Path| ["samples", "grades", "questions"].map(|it| read(folder, &format!("e/own/{it}.jsonl")));
    let whole = folder();
    assert!(long(whole.path()).status().unwrap().success());
    let length = samples_len(whole.path());
    let results = read(whole.path(), "e/own/results.json");
    let whole = files(whole.path());
    let first = (whole[2].len() + results.len()) as u64;
    assert!(first < length / 4, "{first} of {length} bytes are written before the first sample");

    let broken = folder();
    let moments = Stream::new(11, Purpose::Test, &[]);
    let mut cut = 0;
    for kill in 0..20 {
        if kill % 2 == 1 {
            killed_after_a_sample(broken.path());
            continue;
        }
        let span = (length - first) / 20;
        let next = first + span * kill + moments.below(kill, span);
        // The kill before may have come late, when more than this was written.
        if next > samples_len(broken.path()) {
            killed_at_length(broken.path(), next);
            cut += 1;
        }
    }
    assert!(cut > 0);
    assert!(long(broken.path()).status().unwrap().success());
    assert_eq!(files(broken.path()), whole);
    assert_eq!(read(broken.path(), "e/own/results.json"), results);
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn incomplete_samples_give_no_score() {
    let folder = folder();
    rft(folder.path()).args(SMALL).assert().success();
    let samples = folder.path().join("e/arithmetic-1/samples.jsonl");
    let text = fs::read_to_string(&samples).unwrap();
    let whole = files(&folder.path().join("e"));

    // Only missing samples are generated again.
    let kept: Vec<&str> = text.lines().enumerate().filter(|(at, _)| at % 3 != 1).map(|(_, line)| line).collect();
    fs::write(&samples, kept.join("\n") + "\n").unwrap();
    fs::remove_file(folder.path().join("e/arithmetic-1/results.json")).unwrap();
    let wrong = rft(folder.path()).args(["eval", "regrade", "e"]).output().unwrap();
    assert!(!wrong.status.success(), "samples are missing");
    rft(folder.path()).args(SMALL).assert().success();
    assert_eq!(files(&folder.path().join("e")), whole);

    let regraded = rft(folder.path()).args(["eval", "regrade", "e"]).output().unwrap();
    let said = String::from_utf8(regraded.stderr).unwrap();
    assert!(regraded.status.success() && said.contains("0 of 48 verdicts changed"), "{said}");
    assert_eq!(files(&folder.path().join("e")), whole);
}

#[test]
fn an_interrupted_evaluation_gives_no_score() {
    let folder = folder();
    // Far more samples than are generated before the signal.
    let args = ["eval", "--bench=arithmetic", "--samples=100", "--out=e", "--set=rollout.max_rows=2", "--threads=1"];
    let child = Command::new(rft_path())
        .args(args)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let samples = folder.path().join("e/arithmetic/samples.jsonl");
    until("some samples", || fs::metadata(&samples).ok().filter(|it| it.len() >= 500));
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(output.stdout.is_empty(), "no table for an incomplete evaluation");
    assert!(said.contains("PARTIAL `arithmetic`"), "{said}");
    assert!(!folder.path().join("e/arithmetic/results.json").exists());
}

#[test]
fn two_evaluations_are_compared_question_by_question() {
    let folder = folder();
    rft(folder.path()).args(SMALL).assert().success();
    let others = SMALL.map(|arg| match arg {
        "--out=e" => "--out=f",
        "--ppe=null-example" => "--ppe=planning",
        arg => arg,
    });
    rft(folder.path()).args(others).assert().success();
    let output = rft(folder.path()).args(["eval", "compare", "e", "f", "--output-format=json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let accuracy = |name: &str| -> f64 {
        let results = fs::read_to_string(folder.path().join(name).join("arithmetic-1/results.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&results).unwrap()["accuracy"]["value"].as_f64().unwrap()
    };
    let got = &report[0];
    assert_eq!(got["questions"], 24);
    assert_eq!((got["first"].as_f64().unwrap(), got["second"].as_f64().unwrap()), (accuracy("e"), accuracy("f")));
    let difference = got["difference"].as_f64().unwrap();
    assert!((difference - (accuracy("f") - accuracy("e"))).abs() < 1e-12);
    let (low, high) = (got["interval"]["low"].as_f64().unwrap(), got["interval"]["high"].as_f64().unwrap());
    assert!(low <= difference && difference <= high);

    // The output shows the completions, without control characters.
    let shown = rft(folder.path()).args(["eval", "show", "e", "--wrong"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let wrong = fs::read_to_string(folder.path().join("e/arithmetic-1/grades.jsonl")).unwrap();
    assert_eq!(shown.matches("── answer:").count(), wrong.matches(r#""verdict":"wrong""#).count());
    assert!(!shown.contains('\u{1b}'));
}

#[test]
fn samples_of_another_prompt_are_not_mixed() {
    let folder = folder();
    rft(folder.path()).args(SMALL).assert().success();
    let others = SMALL.map(|arg| if arg == "--ppe=null-example" { "--ppe=planning" } else { arg });
    let said = error(&folder, &others);
    assert!(said.contains("contains an evaluation with another `ppe`"), "{said}");
    let longer = SMALL.map(|arg| if arg == "--max-tokens=60" { "--max-tokens=61" } else { arg });
    let said = error(&folder, &longer);
    assert!(said.contains("with other settings"), "{said}");
    // With more samples it is the same evaluation, and existing samples are kept.
    let before = fs::read_to_string(folder.path().join("e/arithmetic-1/samples.jsonl")).unwrap();
    let more = SMALL.map(|arg| if arg == "--samples=2" { "--samples=3" } else { arg });
    rft(folder.path()).args(more).assert().success();
    let after = fs::read_to_string(folder.path().join("e/arithmetic-1/samples.jsonl")).unwrap();
    let lines: BTreeSet<&str> = after.lines().collect();
    assert!(before.lines().all(|line| lines.contains(line)) && lines.len() == 72);
}

#[test]
fn mistakes_are_reported_in_one_line() {
    let folder = folder();
    fs::write(folder.path().join("q.jsonl"), "{\"text\": \"1 + 1?\", \"solution\": \"2\"}\n").unwrap();
    let said = |args: &[&str]| error(&folder, &[&["eval"], args].concat());
    insta::assert_snapshot!(said(&["--bench=aime204"]), @r"
    error: unknown benchmark `aime204`
    hint: did you mean `aime2024`? use a name that `rft eval list` prints, or the path of a data file
");
    insta::assert_snapshot!(said(&["--bench=q.jsonl"]), @r"
    error: load the questions of `q`: `q.jsonl` has no column `question` or `problem` or `prompt`; found: text, solution
    hint: set the columns with --question-column and --answer-column
");
    insta::assert_snapshot!(said(&["--bench=arithmetic", "--temperature=0", "--samples=4"]), @r"
    error: all 4 samples at temperature 0 would be the same
    hint: set --samples 1, or a --temperature above 0
");
    insta::assert_snapshot!(said(&["--bench=math500", "--profile=evalplus"]), @r"
    error: the profile evalplus only supports `humaneval` and `humaneval+`, found `math500`
    hint: use `--profile study` or `--profile lighteval`
");
    insta::assert_snapshot!(said(&["--bench=arithmetic", "--max-tokens=100000"]), @r"
    error: the longest prompt of `arithmetic` has 159 tokens, which leaves 353 of the model's 512 for a completion
    hint: lower --max-tokens to 353, or omit it
");
    insta::assert_snapshot!(said(&["--bench=humaneval+"]), @r"
    error: load the questions of `humaneval+`: the questions of evalplus/humanevalplus are not on this machine
    hint: download `humanevalplus-inputs.jsonl.gz` or `HumanEvalPlus.jsonl.gz` or `HumanEvalPlus-v0.1.10.jsonl.gz` from https://github.com/evalplus/humanevalplus_release/releases to a folder, and pass the folder with --data-dir or RFT_DATA_DIR
");
    insta::assert_snapshot!(said(&["show", "q.jsonl"]), @r"
    error: `q.jsonl` is not an evaluation: it has no `eval.json`
    hint: pass the folder that `rft eval` printed
");
    let unset = Some(PathBuf::from("no-such-folder"));
    assert!(bench::find("aime2024").unwrap().load(unset.as_deref()).is_err());
}

/// The questions of `benchmark`, or made-up ones if it needs files.
fn set(benchmark: &bench::Benchmark) -> Set {
    if let QuestionOrigin::Arithmetic { .. } = benchmark.origin {
        return benchmark.load(None).unwrap();
    }
    let question = |i: usize| {
        let mut extra = serde_json::Map::new();
        for wrong in 1..=3 {
            extra.insert(format!("Incorrect Answer {wrong}"), format!("{i}.{wrong} m").into());
        }
        let text = format!("def f{i}(x):\n    \"\"\"What is {i} + {i}?\"\"\"\n");
        Question { id: format!("q/{i}"), text, gold: format!("{}", 2 * i), source: "test".into(), extra }
    };
    Set { questions: (0..8).map(question).collect(), notes: Vec::new(), sha256: String::new() }
}

fn asked(policy: &Policy, prior: &PriorPrompt, profile: Profile, benchmark: &bench::Benchmark) -> Vec<EvalQuestion> {
    let style = Style::new(profile, benchmark).unwrap();
    let mixture = Mixture::from(prior.clone());
    let asking = Asking { policy, mixture: &mixture, prefill: false, style: &style, seed: 3 };
    asking.all(&set(benchmark), benchmark.kind).unwrap()
}

fn policy() -> Policy {
    let config = resolve(&ConfigLayers::default()).unwrap().config;
    Policy::load(&ModelSource::open("tiny", "main").unwrap(), &config).unwrap()
}

#[test]
fn the_base_model_and_every_prior_prompt_get_different_tokens_on_every_benchmark() {
    let policy = policy();
    for benchmark in bench::all() {
        let mut seen = BTreeSet::new();
        for prior in prompt::shipped() {
            let asked = asked(&policy, prior, Profile::Study, &benchmark);
            for it in &asked {
                assert!(it.prompt.text.contains(&it.text), "{}: the question is not in the prompt", benchmark.name);
                assert!(
                    seen.insert(it.prompt.ids.clone()),
                    "{} under `{}`: the same tokens as another prompt",
                    benchmark.name,
                    prior.name
                );
            }
        }
    }
}

#[test]
fn other_profiles_do_not_use_a_prior_prompt() {
    let policy = policy();
    let (none, planning) = (prompt::find("none").unwrap(), prompt::find("planning").unwrap());
    for (profile, name) in
        [(Profile::Lighteval, "aime2024"), (Profile::Lighteval, "gpqa-diamond"), (Profile::Evalplus, "humaneval+")]
    {
        let benchmark = bench::find(name).unwrap();
        let ids =
            |prior| asked(&policy, prior, profile, &benchmark).into_iter().map(|it| it.prompt.ids).collect::<Vec<_>>();
        assert_eq!(ids(&none), ids(&planning), "{name}");
    }
    let humaneval = asked(&policy, &none, Profile::Evalplus, &bench::find("humaneval").unwrap());
    assert!(humaneval[0].prompt.text.ends_with("```python\n"), "the prompt does not open a block");
}

#[test]
fn the_order_of_options_depends_only_on_question_and_seed() {
    let benchmark = bench::find("gpqa:diamond").unwrap();
    assert_eq!(benchmark.kind, AnswerKind::Choice);
    let set = set(&benchmark);
    let order = |seed, question: &Question| bench::AnswerOptions::of(question, seed).unwrap();
    let mut places = BTreeSet::new();
    for question in &set.questions {
        let choices = order(1, question);
        assert_eq!(choices, order(1, question));
        assert_eq!(choices.options[choices.right], question.gold);
        let mut texts = choices.options.clone();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 4);
        places.insert(choices.right);
    }
    assert!(places.len() > 1, "the right answer is always in the same position");
    assert!(set.questions.iter().any(|it| order(1, it) != order(2, it)));
    let mut incomplete = set.questions[0].clone();
    incomplete.extra.remove("Incorrect Answer 2");
    assert!(bench::AnswerOptions::of(&incomplete, 1).unwrap_err().to_string().contains("Incorrect Answer 2"));
}

#[test]
fn published_files_match_the_recorded_sets() {
    let Some(folder) = data() else { return };
    for name in ["aime2024", "amc12", "math500", "gsm8k"] {
        let benchmark = bench::find(name).unwrap();
        let QuestionOrigin::Hub(known) = &benchmark.origin else { panic!("{name} is not on the Hub") };
        let set = benchmark.load(Some(&folder)).unwrap();
        assert_eq!(set.questions.len(), known.rows, "{name}");
        assert_eq!(Some(golds_sha256(&set.questions).as_str()), known.golds_sha256, "{name}");
        assert!(set.notes.is_empty(), "{name}: {:?}", set.notes);
    }
    // A file with one row too few is not the benchmark.
    let short = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(folder.join("aime2024.jsonl")).unwrap();
    let cut = text.lines().skip(1).collect::<Vec<_>>().join("\n");
    fs::write(short.path().join("aime2024.jsonl"), cut).unwrap();
    let said = format!("{:#}", bench::find("aime2024").unwrap().load(Some(short.path())).err().unwrap());
    assert!(said.contains("has 29 questions, but HuggingFaceH4/aime_2024 has 30"), "{said}");
}

/// By default a completion may use the context that the longest prompt leaves, also if that question is not evaluated.
#[test]
fn an_evaluation_of_the_first_questions_continues_with_all() {
    let folder = folder();
    let long = "What is 1 + 1? ".repeat(8);
    let rows = format!(
        "{{\"question\": \"What is 3 + 4?\", \"answer\": \"7\"}}\n{{\"question\": \"{long}\", \"answer\": \"2\"}}\n"
    );
    fs::write(folder.path().join("own.jsonl"), rows).unwrap();
    let evaluate = |more: &[&str]| {
        let args = ["eval", "--bench=own.jsonl", "--samples=1", "--ppe=null-example", "--out=e"];
        rft(folder.path()).args(args).args(more).assert().success();
        let samples = fs::read_to_string(folder.path().join("e/own/samples.jsonl")).unwrap();
        samples.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = evaluate(&["--limit=1"]);
    let both = evaluate(&[]);
    assert_eq!((first.len(), both.len()), (1, 2));
    assert_eq!(both[0], first[0]);
}

/// The solution in the longest style of the texts that the embedded model learned from.
fn longest_solution(problem: &Problem) -> String {
    let step = |(i, (before, step, after)): (usize, (i64, Operation, i64))| {
        let (verb, sign, by) = match step {
            Operation::Add(by) => ("add", '+', by),
            Operation::Subtract(by) => ("subtract", '-', by),
            Operation::Multiply(by) => ("multiply", '*', by),
        };
        format!("Step {}: {verb}, {before}{sign}{by}={after}.", i + 1)
    };
    let steps: Vec<String> = problem.trace().into_iter().enumerate().map(step).collect();
    format!("<plan> {} </plan> <answer> \\boxed{{{}}} </answer><|im_end|>", steps.join(" "), problem.answer)
}

/// The largest level is the last one at which every question of the benchmark fits the embedded model with its solution.
#[test]
fn the_longest_arithmetic_still_fits_the_embedded_model() {
    let policy = policy();
    let context = ModelSource::open("tiny", "main").unwrap().config.max_position_embeddings;
    let longest = |problems: &[Problem]| {
        let benchmark = bench::find("arithmetic").unwrap();
        let style = Style::new(Profile::Study, &benchmark).unwrap();
        let question = |(i, problem): (usize, &Problem)| Question {
            id: i.to_string(),
            text: problem.text.clone(),
            gold: problem.answer.to_string(),
            source: "test".into(),
            extra: serde_json::Map::new(),
        };
        let questions = problems.iter().enumerate().map(question).collect();
        let set = Set { questions, notes: Vec::new(), sha256: String::new() };
        let solutions: Vec<usize> =
            problems.iter().map(|it| policy.tokenizer.encode(&longest_solution(it)).len()).collect();
        let of_prompt = |prior: &PriorPrompt| {
            let mixture = Mixture::from(prior.clone());
            let asking = Asking { policy: &policy, mixture: &mixture, prefill: false, style: &style, seed: 3 };
            let asked = asking.all(&set, benchmark.kind).unwrap();
            asked.iter().zip(&solutions).map(|(it, solution)| it.prompt.ids.len() + solution).max().unwrap()
        };
        prompt::shipped().iter().map(of_prompt).max().unwrap()
    };
    let last = problems(Split::HeldOut, 0, &[MAX_LEVEL], 256).unwrap();
    let mut draws = Cursor::new(Stream::new(0, Purpose::Test, &[]));
    let next: Vec<Problem> = (0..256).map(|_| Problem::draw(&mut draws, MAX_LEVEL + 1)).collect();
    let (last, next) = (longest(&last), longest(&next));
    println!("{last} tokens at level {MAX_LEVEL}, {next} at level {}", MAX_LEVEL + 1);
    assert!(last <= context && next > context, "{last} and {next} tokens");
}

#[test]
fn the_list_shows_what_a_benchmark_detects() {
    let output = rft(folder().path()).args(["eval", "list"]).env("COLUMNS", "300").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(&format!("│ {name} "))).unwrap_or_else(|| panic!("{text}"));
        let cells: Vec<&str> = line.trim_matches('│').split('┆').map(str::trim).collect();
        (cells[2].to_owned(), cells[6].to_owned(), cells[7].to_owned())
    };
    let cells = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    // For GSM8K: 2.80 √(0.9 · 0.1 / 1319). For MATH-500: 2.80 √(0.75 · 0.25 (0.4 + 0.6 / 4) / 500).
    assert_eq!(row("gsm8k"), cells("1319", "90 %", "2.3"));
    assert_eq!(row("math500"), cells("500", "75 %", "4.0"));
    assert_eq!(row("aime2024"), cells("30", "15 %", "12.1, near the floor"));
    assert_eq!(row("amo-bench-p"), cells("39", "2 %", "4.2, near the floor"));
    assert_eq!(row("arithmetic-14"), cells("256", "-", "-"));
}

/// With fewer than five right or wrong answers, the score has a warning.
#[test]
fn a_score_near_an_end_of_the_scale_has_a_warning() {
    let folder = folder();
    let run = |args: &[&str]| {
        let mut command = rft(folder.path());
        command.args(["eval", "--threads=1", "--temperature=0.6", "--samples=1"]).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["--bench=arithmetic-1", "--limit=20", "--max-tokens=2", "--out=floor"]);
    let warning = "near the floor: 0.0 of 20 answers are right, and with fewer than 5 the score shows little about differences \
                   between models";
    assert!(text.contains(&format!("\nwarning: `arithmetic-1`: {warning}\n")), "{text}");
    let results = read(folder.path(), "floor/arithmetic-1/results.json");
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["warnings"][0], warning);
    let text = run(&["--bench=arithmetic-1", "--limit=100", "--max-tokens=60", "--out=between"]);
    assert!(!text.contains("warning"), "{text}");
}

/// A file of 30 questions under the name of a benchmark's file. Those with the numbers 2 and 4 are too long for the embedded
/// model, and the others leave room for a shorter completion than the default.
fn with_long_questions() -> TempDir {
    let folder = folder();
    let row = |i: usize| {
        let text = if i == 2 || i == 4 { "What is 3 + 4? ".repeat(60) } else { "What is 3 + 4?".to_owned() };
        format!("{{\"id\": \"q{i}\", \"problem\": \"{text}\", \"answer\": \"7\"}}\n")
    };
    fs::write(folder.path().join("aime2024.jsonl"), (0..30).map(row).collect::<String>()).unwrap();
    folder
}

#[test]
fn questions_that_do_not_fit_count_as_wrong_and_are_named() {
    let folder = with_long_questions();
    let args = ["eval", "--bench=aime2024", "--data-dir=.", "--samples=2", "--limit=4", "--threads=1", "--out=e"];
    let run = || rft(folder.path()).args(args).output().unwrap();
    let output = run();
    let (text, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}");
    let outside = "`aime2024`: 2 of 30 questions count as wrong, because their prompts leave fewer than 128 of the model's 512 \
                   tokens for a completion: q2, q4";
    assert!(said.contains(&format!("warning: {outside}")), "{said}");
    assert!(text.contains(&format!("note: {outside}")), "{text}");
    let results: serde_json::Value = serde_json::from_str(&read(folder.path(), "e/aime2024/results.json")).unwrap();
    let length = results["max_tokens"].as_u64().unwrap();
    assert!((128..8_192).contains(&length));
    assert!(
        text.contains(&format!("note: `aime2024`: completions have at most {length} tokens instead of 8192")),
        "{text}"
    );
    // Of the first four questions, one does not fit.
    assert_eq!(results["does_not_fit"], serde_json::json!(["q2"]));
    assert_eq!((&results["questions"], &results["of"]), (&4.into(), &30.into()));
    let samples = read(folder.path(), "e/aime2024/samples.jsonl");
    let samples: Vec<serde_json::Value> = samples.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(samples.len(), 8);
    for sample in samples.iter().filter(|it| it["question_id"] == "q2") {
        assert_eq!((&sample["text"], &sample["finish"]), (&"".into(), &"the prompt does not fit".into()));
    }
    let grades = read(folder.path(), "e/aime2024/grades.jsonl");
    assert_eq!(grades.lines().filter(|line| line.contains("\"q2\"") && line.contains("\"wrong\"")).count(), 2);

    // Again: nothing changes.
    let before = read(folder.path(), "e/aime2024/results.json");
    assert!(run().status.success());
    assert_eq!(read(folder.path(), "e/aime2024/results.json"), before);
}

#[test]
fn a_given_length_that_does_not_fit_is_an_error() {
    let folder = with_long_questions();
    let said = |args: &[&str]| error(&folder, &[&["eval", "--bench=aime2024", "--data-dir=."], args].concat());
    let text = said(&["--max-tokens=500", "--limit=2"]);
    assert!(text.contains("of the model's 512 for a completion") && text.contains(", or omit it"), "{text}");
    let text = said(&["--max-tokens=1"]);
    assert!(text.contains("leaves 0 of the model's 512 for a completion\n"), "{text}");
    assert!(text.contains("hint: omit --max-tokens; questions whose prompts do not fit then count as wrong"), "{text}");
    let all: String =
        (0..30).map(|_| format!("{{\"problem\": \"{}\", \"answer\": \"7\"}}\n", "3 + 4 ".repeat(400))).collect();
    fs::write(folder.path().join("aime2024.jsonl"), all).unwrap();
    assert!(said(&[]).contains("no prompt of `aime2024` leaves 128 of the model's 512 tokens for a completion"));
}
