//! `rft reward check`: the verdict on one answer, or on a file of answers.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, ValueEnum};
use serde_json::value::to_raw_value;

use crate::cli::output;
use crate::data::row::Row;
use crate::data::{cell, read};
use crate::math::{Graded, Scope, Verdict, check_for, explain, grade, grade_lenient_for, prepare_for, solution_answer};

/// The answer tag of the shipped prior prompts.
const ANSWER_TAG: &str = "answer";

/// Check an answer, or a file of answers, against the gold answer
///
/// By default, an answer is a whole completion, and its last box counts, as in training. With `--bare`, it is the answer
/// itself. Each row of a file has the fields `gold` and `answer`, and optionally `question`: if that asks for a percentage,
/// `60%` answers the gold answer 60. It is printed with the added fields `verdict`, `reason` and
/// `extracted`, and in mode `eval` also `rule`, which found the answer.
#[derive(clap::Args, Debug)]
#[command(
    group = ArgGroup::new("what").required(true).args(["gold", "jsonl"]),
    after_help = r#"Examples:
  rft reward check --gold '\frac{1}{2}' --answer 'so it is \boxed{0.5}'
  rft reward check --gold '(1, 2]' --answer '1 < x \le 2' --bare --explain
  rft reward check --jsonl answers.jsonl --bare > verdicts.jsonl
  rft reward check --jsonl completions.jsonl --mode eval
  zcat completions.jsonl.gz | rft reward check --jsonl - --scope answer"#
)]
pub struct RewardCheckArgs {
    /// Gold answer, which counts as right
    #[arg(long, value_name = "GOLD", requires = "answer", allow_hyphen_values = true)]
    gold: Option<String>,

    /// Completion to check, or the answer itself with `--bare`
    #[arg(long, value_name = "TEXT", requires = "gold", allow_hyphen_values = true)]
    answer: Option<String>,

    /// Show how both answers were parsed, and the rule that decided
    #[arg(long, requires = "gold")]
    explain: bool,

    /// Check every row of this file; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,

    /// Treat the answer as it is, without extraction from a completion
    #[arg(long)]
    bare: bool,

    /// How the answer is found in a completion
    #[arg(long, value_name = "MODE", default_value = "reward", conflicts_with = "bare")]
    mode: Mode,

    /// Where in a completion the box may be, in mode `reward` [default: response]
    #[arg(long, value_name = "SCOPE", conflicts_with = "bare")]
    scope: Option<Where>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Only the last box, as in training
    Reward,
    /// The announced or boxed answer, else the last formula or number; comparable with other evaluations
    Eval,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    /// Anywhere
    Response,
    /// In the last closed `<answer>` element
    Answer,
}

pub fn run(args: RewardCheckArgs) -> Result<()> {
    ensure!(
        args.mode == Mode::Reward || args.scope.is_none(),
        "--scope cannot be used with mode `eval`, which finds an answer anywhere\nhint: use --mode reward"
    );
    match (&args.gold, &args.answer, &args.jsonl) {
        (Some(gold), Some(answer), _) => one(&args, gold, answer),
        (.., Some(file)) => rows(&args, file),
        _ => bail!("no answers to check\nhint: pass --gold and --answer, or --jsonl"),
    }
}

/// Extracts the answer, unless it is bare, and checks it. The gold answer may be a worked solution, as in a data file.
fn judge(args: &RewardCheckArgs, question: &str, gold: &str, answer: &str) -> Graded {
    let solution = solution_answer(gold);
    let gold = solution.as_deref().unwrap_or(gold);
    if args.bare {
        let verdict = check_for(question, gold, answer);
        return Graded { answer: Some(answer.trim().to_owned()), verdict, missing: None, rule: None };
    }
    if args.mode == Mode::Eval {
        return grade_lenient_for(question, answer, gold);
    }
    let scope = match args.scope {
        None | Some(Where::Response) => Scope::Response,
        Some(Where::Answer) => Scope::Answer,
    };
    match prepare_for(question, gold) {
        Ok(gold) => gold.grade(answer, scope, Some(ANSWER_TAG)),
        Err(_) => grade(answer, gold, scope, Some(ANSWER_TAG)),
    }
}

/// The reason for a verdict that is not `correct`, if there is one.
fn reason(graded: &Graded) -> Option<&str> {
    match &graded.verdict {
        Verdict::Undecided(reason) => Some(reason),
        _ => graded.missing.as_deref(),
    }
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Correct => "correct",
        Verdict::Wrong => "wrong",
        Verdict::Undecided(_) => "undecided",
    }
}

fn one(args: &RewardCheckArgs, gold: &str, response: &str) -> Result<()> {
    let graded = judge(args, "", gold, response);
    let mut lines = vec![("extracted", graded.answer.as_deref().unwrap_or("-").to_owned())];
    if let Some(rule) = graded.rule {
        lines.push(("found by", serde_json::to_value(rule)?.as_str().unwrap_or_default().to_owned()));
    }
    if let Some(answer) = graded.answer.as_deref().filter(|_| args.explain) {
        let solution = solution_answer(gold);
        let explained = explain(solution.as_deref().unwrap_or(gold), answer);
        lines.extend([("gold", explained.gold), ("answer", explained.answer), ("rule", explained.rule)]);
    }
    lines.push(("verdict", name(&graded.verdict).to_owned()));
    lines.extend(reason(&graded).map(|reason| ("reason", reason.to_owned())));
    for (what, text) in lines {
        // A tree has several lines.
        let text = text.trim_end().replace('\n', "\n           ");
        println!("{what:<9}  {text}");
    }
    Ok(())
}

/// Checks row by row, so that memory use does not grow with the file, only with its longest line.
fn rows(args: &RewardCheckArgs, file: &Path) -> Result<()> {
    let (name, mut reader): (String, Box<dyn BufRead>) = match file.to_str() {
        Some("-") => ("stdin".to_owned(), Box::new(stdin().lock())),
        _ => {
            let name = file.display().to_string();
            let opened = File::open(file).with_context(|| format!("read `{name}`"))?;
            (name, Box::new(BufReader::new(opened)))
        }
    };
    let (mut line, mut number) = (String::new(), 0);
    loop {
        number += 1;
        line.clear();
        if reader.read_line(&mut line).with_context(|| format!("read `{name}`: line {number}"))? == 0 {
            return Ok(());
        }
        if line.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']).is_empty() {
            continue;
        }
        let text = line.trim_start_matches('\u{feff}');
        let row = judged(args, text).with_context(|| format!("`{name}`: line {number}"))?;
        output::json_line(&row);
        if output::is_closed() {
            return Ok(());
        }
    }
}

/// A row with its verdict added.
fn judged(args: &RewardCheckArgs, line: &str) -> Result<Row> {
    let mut row = Row::from_json(line.trim()).map_err(|error| read::in_line(&error)).context("not a JSON object")?;
    let question = if row.get("question").is_some() { field(&row, "question")? } else { String::new() };
    let graded = judge(args, &question, &field(&row, "gold")?, &field(&row, "answer")?);
    row.set("verdict", to_raw_value(name(&graded.verdict))?);
    row.set("reason", to_raw_value(&reason(&graded))?);
    if args.mode == Mode::Eval {
        row.set("rule", to_raw_value(&graded.rule)?);
    }
    row.set("extracted", to_raw_value(&graded.answer)?);
    Ok(row)
}

/// Text, or a number with the digits of the file: integer answers are often written as numbers.
fn field(row: &Row, name: &str) -> Result<String> {
    let Some(raw) = row.get(name) else {
        bail!("missing field `{name}`; found: {}\nhint: a row has the fields `gold` and `answer`", row.listed())
    };
    match raw.get().bytes().next() {
        Some(b'"') => serde_json::from_str(raw.get()).with_context(|| format!("`{name}`")),
        Some(b'-' | b'0'..=b'9') => Ok(cell::number(raw.get())),
        _ => bail!("`{name}` is not text or a number"),
    }
}
