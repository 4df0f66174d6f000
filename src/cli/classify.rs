//! `rft classify`: the behaviors in completions, as a table, JSON, spans and a heat map.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::behavior::agreement::ConfusionCounts;
use crate::behavior::judge::{ModelJudge, Opinion};
use crate::behavior::samples::{self, Response, ResponseColumns};
use crate::behavior::summary::{ClassEstimate, ResponseCounts, Summary};
use crate::behavior::{BehaviorSpan, Class, Classifier};
use crate::cli::output;
use crate::cli::output_format::TableFormat;
use crate::disk::atomic::{self, write_error};
use crate::disk::files;
use crate::report::chart::behavior_changes;
use crate::server::ServerOptions;

/// Maximum number of concurrent requests to the judge.
const JUDGE_WORKERS: usize = 8;

/// Find behaviors in completions: verification, backtracking, planning, code ...
///
/// Finds nine behaviors with rules, without a network: the share of completions that show each, spans per completion and
/// spans per 1,000 tokens, with 95 % intervals over questions. A class is marked `low confidence` if the rules do not agree
/// well enough with the labeled set.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft classify runs/tiny-null-example-1
  rft classify base.jsonl trained.jsonl --heatmap change.svg
  rft classify answers.jsonl --text-column completion --question-column problem --spans spans.jsonl
  rft classify runs/a --endpoint http://localhost:8000/v1 --judge-model Qwen2.5-32B-Instruct

The judge's API key is read from RFT_ENDPOINT_KEY, else OPENAI_API_KEY.")]
pub struct ClassifyArgs {
    /// Run directories, or files with one JSON object per line
    #[arg(required = true, value_name = "RUN|FILE")]
    inputs: Vec<PathBuf>,

    /// Column with the completions, for files [default: text]
    #[arg(long, value_name = "COLUMN")]
    text_column: Option<String>,

    /// Column with the prompt, to ignore text copied from it [default: prompt_text]
    #[arg(long, value_name = "COLUMN")]
    prompt_column: Option<String>,

    /// Column with the questions [default: question]
    #[arg(long, value_name = "COLUMN")]
    question_column: Option<String>,

    /// File with rules to use instead of the built-in ones
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,

    /// Write every span to this file
    #[arg(long, value_name = "FILE")]
    spans: Option<PathBuf>,

    /// Draw the shares of several inputs, and their change from the first, to this file
    #[arg(long, value_name = "FILE.svg")]
    heatmap: Option<PathBuf>,

    /// Also ask a model on this OpenAI-compatible server, and measure its agreement with the rules
    #[arg(long, value_name = "URL", requires = "judge_model")]
    endpoint: Option<String>,

    /// Model to ask; use a version that does not change
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    judge_model: Option<String>,

    /// Maximum number of completions per input to judge, spread evenly; each takes nine requests
    #[arg(long, value_name = "N", default_value_t = 200, requires = "endpoint")]
    judge_limit: usize,

    /// Folder that caches the judge's replies
    #[arg(long, value_name = "DIR", default_value = "runs/judge-cache", requires = "endpoint")]
    judge_cache: PathBuf,

    /// Random seed of the intervals
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output_format: TableFormat,
}

/// One input and the behaviors found in it.
struct Classified {
    name: String,
    responses: Vec<Response>,
    /// The spans of each completion.
    spans: Vec<Vec<BehaviorSpan>>,
    summary: Summary,
    judge: Option<JudgeSummary>,
}

pub fn run(args: ClassifyArgs) -> Result<()> {
    ensure!(
        args.heatmap.is_none() || args.inputs.len() > 1,
        "--heatmap: expected two or more inputs, found 1\nhint: pass several runs or files; the others are compared with the first"
    );
    let loaded = args.rules.as_deref().map(Classifier::load).transpose()?;
    let classifier = loaded.as_ref().unwrap_or_else(|| Classifier::built_in());
    let judge = match (&args.endpoint, &args.judge_model) {
        (Some(endpoint), Some(model)) => Some(ModelJudge::new(
            &ServerOptions { concurrency: JUDGE_WORKERS, ..ServerOptions::new(endpoint) },
            model,
            &args.judge_cache,
        )?),
        _ => None,
    };
    let columns =
        ResponseColumns { text: args.text_column, prompt: args.prompt_column, question: args.question_column };
    let mut all = Vec::new();
    for input in &args.inputs {
        let responses = samples::read(input, &columns)?;
        let spans: Vec<Vec<BehaviorSpan>> =
            responses.iter().map(|response| classifier.classify(&response.prompt, &response.text)).collect();
        let counted: Vec<ResponseCounts> = responses
            .iter()
            .zip(&spans)
            .map(|(response, spans)| ResponseCounts::new(&response.question_id, response.tokens, spans))
            .collect();
        let summary = Summary::new(&counted, args.seed);
        let judge =
            judge.as_ref().map(|judge| JudgeSummary::ask(judge, &responses, &spans, args.judge_limit)).transpose()?;
        all.push(Classified { name: input.display().to_string(), responses, spans, summary, judge });
    }
    if let Some(path) = &args.spans {
        write_spans(path, &all)?;
    }
    if let Some(path) = &args.heatmap {
        let rows: Vec<(String, Summary)> = all.iter().map(|it| (it.name.clone(), it.summary.clone())).collect();
        let heads = Class::ALL.map(|class| class.title().to_owned());
        atomic::write(path, behavior_changes(&rows, &heads).as_bytes())?;
    }
    match args.output_format {
        TableFormat::Table => print!("{}", text(&all, classifier)),
        TableFormat::Json => output::json(&as_json(&all, classifier)),
    }
    Ok(())
}

fn text(all: &[Classified], classifier: &Classifier) -> String {
    let mut text = String::new();
    for it in all {
        let Summary { questions, responses, tokens, .. } = &it.summary;
        let tokens = tokens.map_or_else(String::new, |tokens| format!(", {tokens} tokens"));
        text += &format!("{}: {responses} completions of {questions} questions{tokens}\n", it.name);
        text += &format!("{}\n\n", table(it, classifier));
    }
    if Class::ALL.iter().any(|&class| classifier.is_doubtful(class)) {
        text += "low confidence: the rules do not agree well enough with the labels, or this was not measured; see docs/behaviors.md\n";
    }
    text
}

fn table(it: &Classified, classifier: &Classifier) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let mut header = vec!["", "completions", "share of completions, %", "per completion", "per 1,000 tokens"];
    if it.judge.is_some() {
        header.extend(["judge: share, %", "unparsable", "kappa"]);
    }
    table.set_header(header);
    for class in &it.summary.classes {
        let doubt = if classifier.is_doubtful(class.class) { " (low confidence)" } else { "" };
        let mut row = vec![
            format!("{}{doubt}", class.class.title()),
            class.responses.to_string(),
            figure(&class.presence, 100.0, 1),
            figure(&class.count, 1.0, 2),
            class.per_1000_tokens.map_or_else(|| "-".to_owned(), |rate| figure(&rate, 1.0, 2)),
        ];
        if let Some(judge) = &it.judge {
            let opinion = &judge.classes[class.class as usize];
            let share = opinion.share().map_or_else(|| "-".to_owned(), |share| format!("{:.1}", 100.0 * share));
            let kappa = opinion.tally.kappa().map_or_else(|| "-".to_owned(), |kappa| format!("{kappa:.2}"));
            row.extend([share, opinion.unparsable.to_string(), kappa]);
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn figure(estimate: &ClassEstimate, scale: f64, digits: usize) -> String {
    let [value, low, high] =
        [estimate.value, estimate.interval.low, estimate.interval.high].map(|it| format!("{:.digits$}", scale * it));
    format!("{value} [{low}, {high}]")
}

fn as_json(all: &[Classified], classifier: &Classifier) -> serde_json::Value {
    let inputs = all.iter().map(|it| json!({ "input": it.name, "summary": it.summary, "judge": it.judge }));
    let doubtful: Vec<Class> = Class::ALL.into_iter().filter(|&class| classifier.is_doubtful(class)).collect();
    json!({
        "rules": classifier.version,
        "low_confidence": doubtful,
        "measured": classifier.measured,
        "inputs": inputs.collect::<Vec<_>>(),
    })
}

fn write_spans(path: &Path, all: &[Classified]) -> Result<()> {
    let file = files::create(path).map_err(|error| write_error(path, &error))?;
    let mut out = BufWriter::new(file);
    for it in all {
        for (index, (response, spans)) in it.responses.iter().zip(&it.spans).enumerate() {
            for span in spans {
                let line = json!({
                    "input": it.name,
                    "response": index,
                    "question_id": response.question_id,
                    "class": span.class,
                    "start": span.start,
                    "end": span.end,
                    "rule": span.rule,
                    "text": response.text[span.start..span.end],
                });
                writeln!(out, "{line}").map_err(|error| write_error(path, &error))?;
            }
        }
    }
    out.flush().map_err(|error| write_error(path, &error))
}

/// The judge's results for an input.
#[derive(Debug, Serialize)]
struct JudgeSummary {
    responses: usize,
    classes: Vec<JudgeClassSummary>,
}

#[derive(Debug, Serialize)]
struct JudgeClassSummary {
    class: Class,
    /// Number of the judge's spans, summed over all replies that could be parsed.
    count: usize,
    unparsable: usize,
    kappa: Option<f64>,
    /// The rules compared with the judge, which counts as correct here.
    tally: ConfusionCounts,
}

impl JudgeClassSummary {
    /// The share of completions that show the class, among those whose reply could be parsed.
    fn share(&self) -> Option<f64> {
        let ConfusionCounts { true_positives, false_positives, false_negatives, true_negatives } = self.tally;
        let read = true_positives + false_positives + false_negatives + true_negatives;
        (read > 0).then(|| (true_positives + false_negatives) as f64 / read as f64)
    }
}

impl JudgeSummary {
    fn ask(judge: &ModelJudge, responses: &[Response], spans: &[Vec<BehaviorSpan>], limit: usize) -> Result<Self> {
        let n = limit.min(responses.len());
        let chosen: Vec<usize> = (0..n).map(|index| index * responses.len() / n).collect();
        let tasks: Vec<(usize, Class)> =
            chosen.iter().flat_map(|&index| Class::ALL.map(|class| (index, class))).collect();
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let opinions: Vec<Mutex<Option<Opinion>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            for _ in 0..JUDGE_WORKERS.min(tasks.len()) {
                scope.spawn(|| {
                    while let Some((at, &(index, class))) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, tasks.get(at)?)))
                    {
                        match judge.ask(class, &responses[index].question, &responses[index].text) {
                            Ok(opinion) => *opinions[at].lock().expect("no worker panics") = Some(opinion),
                            Err(error) => {
                                // Stop the other workers too: the same error would occur there.
                                next.store(tasks.len(), Ordering::Relaxed);
                                failed.lock().expect("no worker panics").get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().expect("no worker panics") {
            return Err(error);
        }
        let mut classes: Vec<JudgeClassSummary> = Class::ALL
            .map(|class| JudgeClassSummary {
                class,
                count: 0,
                unparsable: 0,
                kappa: None,
                tally: ConfusionCounts::default(),
            })
            .into();
        for ((index, class), opinion) in tasks.into_iter().zip(opinions) {
            let judge = &mut classes[class as usize];
            match opinion.into_inner().expect("no worker panics").context("a request to the judge was not sent")? {
                Opinion::Unparsable => judge.unparsable += 1,
                Opinion::Count(count) => {
                    judge.count += count;
                    judge.tally.add(spans[index].iter().any(|span| span.class == class), count > 0);
                }
            }
        }
        classes.iter_mut().for_each(|judge| judge.kappa = judge.tally.kappa());
        Ok(Self { responses: n, classes })
    }
}
