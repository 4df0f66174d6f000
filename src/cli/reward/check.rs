//! `rft reward check`: the verdict on one answer, or on a file of them.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, ValueEnum};
use serde_json::{Map, Value};

use crate::math::{Graded, Scope, Verdict, check, explain, grade, grade_lenient};

/// The answer element of the shipped prior prompts.
const ANSWER_TAG: &str = "answer";

/// Check an answer, or a file of answers, against the gold answer
///
/// An answer is a whole response, of which the last box counts, as in training; with `--bare` it is the answer itself. In
/// a file, each row has the fields `gold` and `answer`, and comes back on stdout with `verdict`, `reason` and `extracted`,
/// in the mode `eval` also with the `rule` that found the answer.
#[derive(clap::Args, Debug)]
#[command(
    group = ArgGroup::new("what").required(true).args(["gold", "jsonl"]),
    after_help = r#"Examples:
  rft reward check --gold '\frac{1}{2}' --answer 'so it is \boxed{0.5}'
  rft reward check --gold '(1, 2]' --answer '1 < x \le 2' --bare --explain
  rft reward check --jsonl answers.jsonl --bare > verdicts.jsonl
  rft reward check --jsonl responses.jsonl --mode eval
  zcat responses.jsonl.gz | rft reward check --jsonl - --scope answer"#
)]
pub struct Args {
    /// The answer that counts as right
    #[arg(long, value_name = "GOLD", requires = "answer", allow_hyphen_values = true)]
    gold: Option<String>,

    /// The response to check, or with `--bare` the answer itself
    #[arg(long, value_name = "TEXT", requires = "gold", allow_hyphen_values = true)]
    answer: Option<String>,

    /// Show how both answers were understood, and the rule that decided
    #[arg(long, requires = "gold")]
    explain: bool,

    /// Check every row of this file; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,

    /// The answer stands by itself: take nothing out of a response
    #[arg(long)]
    bare: bool,

    /// How the answer is found in a response
    #[arg(long, value_name = "MODE", default_value = "reward", conflicts_with = "bare")]
    mode: Mode,

    /// Where in a response the box may stand, in the mode `reward` [default: response]
    #[arg(long, value_name = "SCOPE", conflicts_with = "bare")]
    scope: Option<Where>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The last box and nothing else, as in training
    Reward,
    /// What is announced as the answer or boxed, or else the last formula or number; comparable with other evaluations
    Eval,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    /// Anywhere
    Response,
    /// In the last closed `<answer>` element
    Answer,
}

pub fn run(args: Args) -> Result<()> {
    ensure!(
        args.mode == Mode::Reward || args.scope.is_none(),
        "in the mode `eval` an answer may stand anywhere\nhint: --scope goes with --mode reward"
    );
    match (&args.gold, &args.answer, &args.jsonl) {
        (Some(gold), Some(answer), _) => one(&args, gold, answer),
        (.., Some(file)) => rows(&args, file),
        _ => bail!("there is nothing to check\nhint: give --gold and --answer, or --jsonl"),
    }
}

/// Finds the answer, unless it is bare, and checks it.
fn judge(args: &Args, gold: &str, answer: &str) -> Graded {
    if args.bare {
        let verdict = check(gold, answer);
        return Graded { answer: Some(answer.trim().to_owned()), verdict, missing: None, rule: None };
    }
    if args.mode == Mode::Eval {
        return grade_lenient(answer, gold);
    }
    let scope = match args.scope {
        None | Some(Where::Response) => Scope::Response,
        Some(Where::Answer) => Scope::Answer,
    };
    grade(answer, gold, scope, Some(ANSWER_TAG))
}

/// Why the verdict is not `correct`, as far as there is more to say.
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

fn one(args: &Args, gold: &str, response: &str) -> Result<()> {
    let graded = judge(args, gold, response);
    let mut lines = vec![("extracted", graded.answer.as_deref().unwrap_or("-").to_owned())];
    if let Some(rule) = graded.rule {
        lines.push(("found by", serde_json::to_value(rule)?.as_str().unwrap_or_default().to_owned()));
    }
    if let Some(answer) = graded.answer.as_deref().filter(|_| args.explain) {
        let explained = explain(gold, answer);
        lines.extend([("gold", explained.gold), ("answer", explained.answer), ("rule", explained.rule)]);
    }
    lines.push(("verdict", name(&graded.verdict).to_owned()));
    lines.extend(reason(&graded).map(|reason| ("reason", reason.to_owned())));
    for (what, text) in lines {
        // A tree takes several lines.
        let text = text.trim_end().replace('\n', "\n           ");
        writeln!(stdout(), "{what:<9}  {text}")?;
    }
    Ok(())
}

/// Row after row, so that a file of any length takes the memory of its longest line.
fn rows(args: &Args, file: &Path) -> Result<()> {
    let (name, mut reader): (String, Box<dyn BufRead>) = match file.to_str() {
        Some("-") => ("stdin".to_owned(), Box::new(stdin().lock())),
        _ => {
            let name = file.display().to_string();
            let opened = File::open(file).with_context(|| format!("read `{name}`"))?;
            (name, Box::new(BufReader::new(opened)))
        }
    };
    let (mut line, mut number) = (String::new(), 0);
    let mut output = stdout().lock();
    loop {
        number += 1;
        line.clear();
        if reader.read_line(&mut line).with_context(|| format!("read `{name}`: line {number}"))? == 0 {
            return Ok(());
        }
        if line.trim().is_empty() {
            continue;
        }
        let row = judged(args, &line).with_context(|| format!("`{name}`: line {number}"))?;
        match serde_json::to_writer(&mut output, &row).map_err(Into::into).and_then(|()| output.write_all(b"\n")) {
            // Whoever read on has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
}

/// A row with its verdict.
fn judged(args: &Args, line: &str) -> Result<Map<String, Value>> {
    let mut row: Map<String, Value> = serde_json::from_str(line).context("not a JSON object")?;
    let graded = judge(args, &field(&row, "gold")?, &field(&row, "answer")?);
    row.insert("verdict".to_owned(), name(&graded.verdict).into());
    row.insert("reason".to_owned(), reason(&graded).into());
    if args.mode == Mode::Eval {
        row.insert("rule".to_owned(), serde_json::to_value(graded.rule)?);
    }
    row.insert("extracted".to_owned(), graded.answer.into());
    Ok(row)
}

/// Text, or a number as text: an integer answer is often written as one.
fn field(row: &Map<String, Value>, name: &str) -> Result<String> {
    match row.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => bail!("`{name}` is neither text nor a number"),
        None => {
            let found = row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            bail!("there is no `{name}`; found: {found}\nhint: a row has the fields `gold` and `answer`")
        }
    }
}
