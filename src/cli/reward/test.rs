//! `rft reward test`: the reward bench, as a table or JSON.

use std::time::Duration;

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::cli::config_args::ConfigArgs;
use crate::cli::output;
use crate::cli::output_format::TableFormat;
use crate::config::{self, RunConfig};
use crate::data;
use crate::model::hub;
use crate::prompt::{Mixture, PriorPrompt};
use crate::reward::RewardSet;
use crate::reward::bench::{self, BenchReport, CaseKind, CaseTally, Frame, PassLimits};

/// Maximum number of failures printed below the table.
const SHOWN: usize = 10;
/// Maximum length of a printed completion excerpt, in characters.
const SHOWN_LENGTH: usize = 160;

/// Test the reward on the gold answers of a data set
///
/// Rewrites each gold answer in ways that must be accepted (spelling, separators, units, layout), and derives near misses and
/// attacks that must be rejected (off by one, hedges, every option, echoes, giant numbers, code). Each is scored as a whole
/// completion by all rules of the reward; custom commands are not called. Exits with 1 if an error rate is above its limit.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft reward test
  rft reward test --data train.jsonl --question-column problem --answer-column solution
  rft reward test --data openai/gsm8k --ppe planning --set reward.accuracy.scope=answer
  rft reward test --data train.jsonl --limit 5000 --output-format json > bench.json")]
pub struct RewardTestArgs {
    /// Questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a Hub data set id
    #[arg(long, value_name = "DATA")]
    data: Option<String>,

    /// Column with the questions, if it cannot be detected
    #[arg(long, value_name = "COLUMN")]
    question_column: Option<String>,

    /// Column with the gold answers, if it cannot be detected
    #[arg(long, value_name = "COLUMN")]
    answer_column: Option<String>,

    /// Prior prompt (a name or a file), which determines the format of a completion
    #[arg(long, value_name = "NAME|FILE")]
    ppe: Option<String>,

    /// Maximum number of gold answers to test, selected at random
    #[arg(long, value_name = "N", default_value_t = 500)]
    limit: usize,

    /// Random seed of the selection and of the near misses
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Maximum share of wrong answers that are accepted
    #[arg(long, value_name = "SHARE", default_value_t = PassLimits::default().false_accept)]
    max_false_accept: f64,

    /// Maximum share of right answers that are rejected
    #[arg(long, value_name = "SHARE", default_value_t = PassLimits::default().false_reject)]
    max_false_reject: f64,

    /// Maximum share of right answers that are undecided
    #[arg(long, value_name = "SHARE", default_value_t = PassLimits::default().undecided)]
    max_undecided: f64,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output_format: TableFormat,

    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: RewardTestArgs) -> Result<()> {
    let config = resolve(&args)?;
    let mixture = Mixture::of_config(&config.prompt)?;
    let prompts: Vec<&PriorPrompt> = mixture.prompts().collect();
    let rewards = RewardSet::for_prompts(&config.reward, &prompts, config.rollout.max_completion_length)?;
    let fetch = |id: &str, revision: &str, split: &str| hub::dataset_files(id, revision, split);
    let loaded = data::load(&config.data, args.seed, 0, &fetch)?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let questions = loaded.questions;
    let limits = PassLimits {
        false_accept: args.max_false_accept,
        false_reject: args.max_false_reject,
        undecided: args.max_undecided,
        unreadable: config.data.max_unreadable,
    };
    let (mut texts, mut values, mut breaches) = (Vec::new(), Vec::new(), Vec::new());
    for prompt in prompts {
        let report = bench::run(&rewards, Frame::new(&config, prompt), &questions, args.limit, args.seed);
        let breach = report.breach(&limits);
        texts.push(text(&report, &config, &prompt.name, &rewards.names()));
        values.push(as_json(&report, &config, &prompt.name, breach.is_none()));
        breaches.extend(breach);
    }
    match (args.output_format, &values[..]) {
        (TableFormat::Table, _) => print!("{}", texts.join("\n")),
        (TableFormat::Json, [one]) => output::json(one),
        (TableFormat::Json, each) => output::json(&each),
    }
    match breaches.first() {
        None => Ok(()),
        Some(breach) => bail!("the reward failed the test: {breach}"),
    }
}

fn resolve(args: &RewardTestArgs) -> Result<RunConfig> {
    let mut layers = args.config.layers();
    layers.flag("data.path", args.data.clone(), "--data");
    layers.flag("data.question_column", args.question_column.clone(), "--question-column");
    layers.flag("data.answer_column", args.answer_column.clone(), "--answer-column");
    layers.prompt_flag(args.ppe.as_deref());
    Ok(config::resolve(&layers)?.config)
}

fn text(report: &BenchReport, config: &RunConfig, prompt: &str, components: &[&str]) -> String {
    let mut text = format!(
        "data     {}: {} gold answers, {} of them unreadable\nprompt   {}\nreward   {}\n\n",
        config.data.path,
        report.golds,
        report.unreadable.len(),
        prompt,
        components.join(", ")
    );
    text += &table(report).to_string();
    text.push('\n');
    if !report.unreadable.is_empty() {
        text += "\ngold answers that cannot be read:\n";
        for it in report.unreadable.iter().take(SHOWN) {
            text += &format!("  question {}: {}: {}\n", it.id, shown(&it.gold), it.reason);
        }
        text += &more(report.unreadable.len());
    }
    if !report.failures.is_empty() {
        text += "\nfailures:\n";
        for it in report.failures.iter().take(SHOWN) {
            text += &format!("  {} of {} ({}), question {}\n", it.fault, it.component, it.kind.name(), it.id);
            text += &format!("    gold        {}\n    completion  {}\n", shown(&it.gold), shown(&it.response));
            text += &format!("    verdict     {}\n", it.verdict);
        }
        text += &more(report.failures.len());
    }
    text
}

/// The number of items beyond those that are printed.
fn more(count: usize) -> String {
    match count.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("  and {more} more; --output-format json lists them all\n"),
    }
}

/// On one line, in quotation marks, without control characters.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_LENGTH).collect();
    // Not escaped like a Rust string, which would double every backslash of LaTeX.
    let plain: String = start
        .chars()
        .flat_map(|c| match c {
            '\n' => "\\n".chars().collect::<Vec<_>>(),
            _ if c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) => c.escape_unicode().collect(),
            _ => vec![c],
        })
        .collect();
    let end = if start.len() < text.len() { " ..." } else { "" };
    format!("`{plain}`{end}")
}

fn table(report: &BenchReport) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "cases", "false accepts", "false rejects", "undecided", "median", "max"]);
    let mut row = |name: &str, rewriting: Option<bool>, tally: &CaseTally| {
        // A right answer cannot be a false accept, and a wrong one cannot be a false reject; a format case can be either.
        let count =
            |count: usize, possible: bool| if possible || count > 0 { count.to_string() } else { "-".to_owned() };
        table.add_row([
            name.to_owned(),
            tally.cases.to_string(),
            count(tally.false_accepts, rewriting != Some(true)),
            count(tally.false_rejects, rewriting != Some(false)),
            count(tally.undecided, rewriting != Some(false)),
            micros(tally.median()),
            micros(tally.max()),
        ]);
    };
    for (kind, tally) in &report.tallies {
        let side = if *kind == CaseKind::BrokenTags { None } else { Some(kind.is_rewriting()) };
        row(kind.name(), side, tally);
    }
    row("all", None, &report.total());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

fn as_json(report: &BenchReport, config: &RunConfig, prompt: &str, passed: bool) -> serde_json::Value {
    let microseconds = |time: Duration| (time.as_secs_f64() * 1e7).round() / 10.0;
    let counts = |tally: &CaseTally| {
        json!({
            "cases": tally.cases,
            "false_accepts": tally.false_accepts,
            "false_rejects": tally.false_rejects,
            "undecided": tally.undecided,
            "median_microseconds": microseconds(tally.median()),
            "max_microseconds": microseconds(tally.max()),
        })
    };
    let kinds = report.tallies.iter().map(|(kind, tally)| {
        let mut row = json!({ "kind": kind, "must_pass": kind.is_rewriting() });
        if let (Some(row), serde_json::Value::Object(counts)) = (row.as_object_mut(), counts(tally)) {
            row.extend(counts);
        }
        row
    });
    let shares = report.shares();
    json!({
        "data": config.data.path,
        "prompt": prompt,
        "golds": report.golds,
        "passed": passed,
        "shares": {
            "false_accept": shares.false_accept,
            "false_reject": shares.false_reject,
            "undecided": shares.undecided,
            "unreadable": shares.unreadable,
        },
        "all": counts(&report.total()),
        "kinds": kinds.collect::<Vec<_>>(),
        "unreadable": report.unreadable,
        "failures": report.failures,
    })
}
