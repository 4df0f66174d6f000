//! HumanEval+: the reference solutions pass, other programs do not, and the sanitizer finds the code in a completion.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use rft::code::{CodeTask, CodeVerdict, Tasks, TestStatus, grade, sanitize, solution};
use rft::eval::asked::QuestionRecord;
use rft::eval::bench::{QuestionOrigin, find};
use rft::eval::grade::Grader;
use rft::eval::profile::Extraction;
use rft::sandbox::Sandbox;
use serde_json::{Value, json};

use crate::cli;
use crate::require::{data, evalplus_verdicts, require};
use crate::stub_server::{Behavior, Stub, like_tiny};

/// The sandbox, or none and the test is skipped.
pub fn sandbox() -> Option<&'static Sandbox> {
    static SANDBOX: LazyLock<anyhow::Result<Sandbox>> = LazyLock::new(|| Sandbox::probe(false));
    require("sandbox", SANDBOX.as_ref())
}

fn tasks() -> Option<Tasks> {
    let folder = data()?;
    let QuestionOrigin::Hub(set) = find("humaneval+").unwrap().origin else { panic!("HumanEval+ is a set of the hub") };
    Some(Tasks::read(&set.find(Some(&folder)).unwrap()).unwrap())
}

/// The verdicts of one program per task, several at a time.
fn grade_all(sandbox: &Sandbox, tasks: &Tasks, program: impl Fn(&CodeTask) -> String + Sync) -> Vec<CodeVerdict> {
    tasks.tasks.par_iter().map(|task| grade(sandbox, task, &program(task)).unwrap()).collect()
}

#[test]
fn all_reference_solutions_pass() {
    let (Some(sandbox), Some(tasks)) = (sandbox(), tasks()) else { return };
    assert_eq!(tasks.tasks.len(), 164);
    for time in ["with expected outputs computed or cached", "with cached expected outputs"] {
        let verdicts = grade_all(sandbox, &tasks, |task| format!("{}{}", task.prompt, task.canonical_solution));
        for (task, verdict) in tasks.tasks.iter().zip(&verdicts) {
            assert_eq!(
                (verdict.base, verdict.plus),
                (TestStatus::Passed, TestStatus::Passed),
                "{}, {time}: {verdict:?}",
                task.id
            );
        }
    }
}

#[test]
fn programs_without_a_solution_do_not_pass() {
    let (Some(sandbox), Some(tasks)) = (sandbox(), tasks()) else { return };
    for body in ["pass", "return None", "return 'rft'"] {
        let program = |task: &CodeTask| format!("{}\n    {body}\n", task.prompt);
        for (task, verdict) in tasks.tasks.iter().zip(grade_all(sandbox, &tasks, program)) {
            assert_ne!(verdict.base, TestStatus::Passed, "{} with `{body}`", task.id);
            assert_ne!(verdict.plus, TestStatus::Passed, "{} with `{body}`", task.id);
        }
    }
}

#[test]
fn completions_are_graded() {
    let (Some(_), Some(tasks)) = (sandbox(), tasks()) else { return };
    let folder = data();
    let grader = |name| Grader::new(name, Extraction::Fenced, folder.as_deref(), false).unwrap();
    let (plus, base) = (grader("humaneval+"), grader("humaneval"));
    assert!(plus.layers().is_some_and(|layers| layers.seccomp));
    let task = &tasks.tasks[0];
    let question = QuestionRecord {
        id: task.id.clone(),
        question: task.prompt.clone(),
        gold: task.canonical_solution.clone(),
        options: Vec::new(),
        order: Vec::new(),
        needs_judge: false,
        ppe: None,
        prompt_text: String::new(),
        prompt_sha256: String::new(),
    };
    let program = format!("{}{}", task.prompt, task.canonical_solution);
    let fenced = format!("<think>easy</think>\n<answer>\n```python\n{program}```\n</answer>");
    let grade = plus.grade(Extraction::Fenced, &question, &fenced).unwrap();
    assert!(grade.is_right() && grade.base == Some(true) && grade.answer.is_some(), "{grade:?}");
    let opened = plus.grade(Extraction::Opened, &question, &format!("{program}\n")).unwrap();
    assert_eq!(opened, grade, "the prompt opened the block");

    // Two numbers apart by exactly the threshold are not closer: only the extra tests ask for that.
    let careless = fenced.replace("< threshold", "<= threshold");
    assert_ne!(careless, fenced);
    let (of_plus, of_base) = (
        plus.grade(Extraction::Fenced, &question, &careless).unwrap(),
        base.grade(Extraction::Fenced, &question, &careless).unwrap(),
    );
    assert_eq!((of_plus.base, of_base.base), (Some(of_base.is_right()), Some(of_base.is_right())));
    assert!(!of_plus.is_right() && of_plus.how.contains("tests: wrong: True instead of False"), "{of_plus:?}");

    let none = plus.grade(Extraction::Fenced, &question, "I would sort the numbers first.").unwrap();
    assert!(none.unparsable && none.answer.is_none() && none.base == Some(false), "{none:?}");
    let foreign = QuestionRecord { id: "HumanEval/999".into(), ..question };
    assert!(plus.grade(Extraction::Fenced, &foreign, &fenced).is_err());
}

/// A task that needs no data.
fn own_task(file: &str) -> CodeTask {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.jsonl");
    std::fs::write(&path, file).unwrap();
    Tasks::read(&path).unwrap().tasks.remove(0)
}

fn halves() -> CodeTask {
    own_task(
        r#"{"task_id": "own/0", "prompt": "def half(x):\n    \"\"\"Half of x.\"\"\"\n", "entry_point": "half",
            "canonical_solution": "    return [y / 2 for y in x]\n", "contract": "", "atol": 0,
            "base_input": [[[1, 2]], [[3]]], "plus_input": [[[]], [[0.3, 123456789012345678901234567890]]]}"#
            .replace('\n', " ")
            .as_str(),
    )
}

#[test]
fn a_program_passes_base_and_plus_or_base_only_or_neither() {
    let Some(sandbox) = sandbox() else { return };
    let task = halves();
    use TestStatus::*;
    for (program, base, plus) in [
        ("def half(x): return [y / 2 for y in x]", Passed, Passed),
        ("def half(x): return [y * 0.5 + 1e-9 for y in x]", Passed, Passed),
        ("def half(x): return [y / 2 + 1e-5 for y in x]", Wrong, Wrong),
        ("def half(x): return tuple(y / 2 for y in x)", Wrong, Wrong),
        ("def half(x): return x and [x[0] / 2] + [y / 2 for y in x[1:]] or None", Passed, Wrong),
        ("def half(x): return [x[0] / 2] + [y / 2 for y in x[1:]]", Passed, Raised),
        ("def half(x):\n    while not x: pass\n    return [y / 2 for y in x]", Passed, TimedOut),
        ("import os\ndef half(x):\n    if not x: os._exit(0)\n    return [y / 2 for y in x]", Passed, Died),
        ("def other(x): return x", Raised, Raised),
        ("def half(x: return x", Raised, Raised),
    ] {
        let verdict = grade(sandbox, &task, program).unwrap();
        assert_eq!((verdict.base, verdict.plus), (base, plus), "{program}: {verdict:?}");
        assert_eq!(verdict.detail.is_none(), plus == Passed, "{verdict:?}");
    }
    let wrong = grade(sandbox, &task, "def half(x): return 3").unwrap();
    assert!(wrong.detail.unwrap().starts_with("3 instead of ["));
}

#[test]
fn a_completion_contains_a_program_or_is_unparsable() {
    let Some(sandbox) = sandbox() else { return };
    let task = halves();
    let grade = |response: &str| match solution(sandbox, &task, response, Some("answer")).unwrap() {
        Some(program) => grade(sandbox, &task, &program).unwrap().plus,
        None => TestStatus::Unparsable,
    };
    let right = "def half(x):\n    return [y / 2 for y in x]";
    use TestStatus::*;
    for (response, status) in [
        (format!("<think>hm</think><answer>\n```python\n{right}\n```\n</answer>"), Passed),
        (format!("<answer>It is simple.</answer>\n```\n{right}\n```"), Passed),
        (format!("<answer>\n{right}\n\nprint(half([1]))\n</answer>"), Passed),
        // A continuation of the prompt.
        ("<answer>\n```python\n    return [y / 2 for y in x]\n```\n</answer>".to_owned(), Passed),
        ("<answer>\n```python\ndef half(x):\n    return x\n```\n</answer>".to_owned(), Wrong),
        ("<answer>\n```python\ndef half(x:\n    return x\n```\n</answer>".to_owned(), Unparsable),
        ("<answer>\n```python\ndef other(x):\n    return x\n```\n</answer>".to_owned(), Unparsable),
        ("The answer is 7.".to_owned(), Unparsable),
        (String::new(), Unparsable),
    ] {
        assert_eq!(grade(&response), status, "{response}");
    }
}

#[test]
fn any_zero_passes_the_oracle_of_find_zero() {
    let Some(sandbox) = sandbox() else { return };
    let task = own_task(
        r#"{"task_id": "own/1", "prompt": "", "entry_point": "find_zero", "canonical_solution": "def find_zero(xs): return 1.0", "atol": 0.0001, "base_input": [[[-1, 0, 1]]], "plus_input": []}"#,
    );
    for (zero, status) in [
        ("1.0", TestStatus::Passed),
        ("-1.0", TestStatus::Passed),
        ("1.1", TestStatus::Wrong),
        ("None", TestStatus::Wrong),
    ] {
        let verdict = grade(sandbox, &task, &format!("def find_zero(xs): return {zero}")).unwrap();
        assert_eq!(verdict.plus, status, "{zero}");
    }
}

#[test]
fn the_sanitizer_keeps_imports_and_what_the_function_needs() {
    let Some(sandbox) = sandbox() else { return };
    let text = "Here you are:\n\nimport math\nfrom os import path\nLIMIT = 3\nOTHER = 4\ndef helper(x):\n    return x + LIMIT\n\
                def silent(x):\n    print(x)\ndef f(x):\n    return helper(x)\ndef f(x):\n    return 7\n\nprint(f(1))\n\nBye, then!";
    let (code, defines) = sanitize(sandbox, text, "f").unwrap().unwrap();
    assert_eq!(
        code,
        "import math\nfrom os import path\nLIMIT = 3\ndef helper(x):\n    return x + LIMIT\ndef f(x):\n    return helper(x)"
    );
    assert!(defines);
    assert!(!sanitize(sandbox, "no code at all", "f").unwrap().unwrap().1);
    // No part of the text is executed.
    let (_, defines) = sanitize(sandbox, "import os\nos._exit(0)\ndef f(x):\n    return 1", "f").unwrap().unwrap();
    assert!(defines);
}

/// A row of the output of tests/oracle/evalplus.py.
#[derive(serde::Deserialize)]
struct Row {
    task_id: String,
    kind: String,
    solution: String,
    base: String,
    plus: String,
    text: Option<String>,
    sanitized: Option<String>,
}

/// A kind of mutation in `tests/oracle/evalplus.py`.
const EQUALS_ALL: &str = "returns one that equals all";

#[test]
fn verdicts_are_those_of_evalplus() {
    let (Some(path), Some(sandbox), Some(tasks)) = (evalplus_verdicts(), sandbox(), tasks()) else { return };
    let rows: Vec<Row> =
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() >= 200);
    let differences: Vec<String> = rows
        .par_iter()
        .flat_map_iter(|row| {
            let task = tasks.tasks.iter().find(|task| task.id == row.task_id).unwrap();
            let verdict = grade(sandbox, task, &row.solution).unwrap();
            let passes = (verdict.base == TestStatus::Passed, verdict.plus == TestStatus::Passed);
            let theirs = (row.base == "pass", row.base == "pass" && row.plus == "pass");
            let verdicts = (passes != theirs).then(|| {
                format!("{} ({}): evalplus {}/{}, here {verdict:?}", row.task_id, row.kind, row.base, row.plus)
            });
            let (text, theirs) = (row.text.as_deref(), row.sanitized.as_deref());
            let sanitized = text.and_then(|text| {
                let ours = sanitize(sandbox, text, &task.entry_point).unwrap().unwrap().0;
                (Some(ours.as_str()) != theirs)
                    .then(|| format!("{}: sanitized differently: {ours:?}, evalplus {theirs:?}", row.task_id))
            });
            verdicts.into_iter().chain(sanitized)
        })
        .collect();
    println!("{} programs, {} texts:", rows.len(), rows.iter().filter(|row| row.text.is_some()).count());
    differences.iter().for_each(|it| println!("{it}"));
    // If the comparison runs in the program's process, an object that equals everything passes; here it never does.
    let (fooled, others): (Vec<&String>, Vec<&String>) = differences.iter().partition(|it| it.contains(EQUALS_ALL));
    assert!(fooled.iter().all(|it| it.contains("plus: Wrong")));
    assert!(others.len() as f64 <= 0.02 * rows.len() as f64, "{} differences", others.len());
}

/// Writes 164 tasks in the form in which evalplus publishes them: `add` adds the task's number.
pub fn write_humaneval(folder: &Path) {
    let file = fs::File::create(folder.join("HumanEvalPlus.jsonl.gz")).unwrap();
    let mut file = GzEncoder::new(file, Compression::fast());
    for i in 0..164 {
        let task = json!({
            "task_id": format!("HumanEval/{i}"), "entry_point": "add",
            "prompt": format!("def add(x):\n    \"\"\"Adds {i} to x.\"\"\"\n"), "canonical_solution": format!("    return x + {i}\n"),
            "test": "", "contract": "", "atol": 0, "base_input": [[1]], "plus_input": [[1], [-1000]],
        });
        writeln!(file, "{task}").unwrap();
    }
    file.finish().unwrap();
}

/// The identity of a task selects its tests, so a score other than 0 or an error shows that it was read.
#[test]
fn humaneval_in_its_published_form_is_scored() {
    let Some(_) = sandbox() else { return };
    let folder = cli::folder();
    write_humaneval(folder.path());
    let behavior = like_tiny();
    // Right on all inputs, right on those of the base tests, and wrong.
    for (body, base, plus) in
        [("x + N", "100.0", "100.0"), ("max(x, 0) + N", "100.0", "0.0"), ("x - N - 1", "0.0", "0.0")]
    {
        let text = Arc::new(move |request: &Value| {
            let prompt = request["prompt"].to_string();
            let number = prompt.split("Adds ").nth(1).and_then(|it| it.split(' ').next()).unwrap_or("0").to_owned();
            format!("```python\ndef add(x):\n    return {}\n```", body.replace('N', &number))
        });
        let stub = Stub::start(Behavior { text, ..behavior.clone() });
        for (bench, score) in [("humaneval", base), ("humaneval+", plus)] {
            let mut command = cli::rft(folder.path());
            command.args(["eval", "--data-dir=.", "--samples=1", "--max-tokens=40", "--bench", bench, "--out"]);
            command.arg(format!("{bench}-{}", body.len())).args([
                "--set=rollout.max_prompt_length=500",
                "--endpoint",
                &stub.url,
            ]);
            let output = command.output().unwrap();
            let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            assert!(
                output.status.success() && table.contains(&format!(" {score} % [")),
                "{bench} {body}: {table}{said}"
            );
        }
    }
}
