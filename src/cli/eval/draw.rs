//! `rft eval --bench ...`: generate the missing samples, and score them.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::super::config_args::ConfigArgs;
use super::super::download;
use super::table;
use crate::cli::output;
use crate::cli::output_format::OutputFormat;
use crate::config::{self, RunConfig};
use crate::device;
use crate::eval::folder::EvalFolder;
use crate::eval::profile::Profile;
use crate::eval::run::{EvalOutcome, EvalProgress, Show};
use crate::eval::score::BenchmarkScores;
use crate::eval::session::{EvalRequest, EvalSession, Server};
use crate::run::Stop;
use crate::run::terminal::status_line;
use crate::run::trained::Trained;

#[derive(clap::Args, Debug)]
pub struct EvalDrawArgs {
    /// Comma-separated benchmark names (`rft eval list` prints them) or data files
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', required = true)]
    bench: Vec<String>,

    /// Prompting, sampling and answer extraction: `study`, `lighteval` or `evalplus`
    #[arg(long, value_name = "NAME", default_value = "study")]
    profile: Profile,

    /// Run directory or adapter folder; a run also sets the model and the prior prompt
    #[arg(long, value_name = "RUN|DIR")]
    adapter: Option<PathBuf>,

    /// Prior prompt: a name or a file; `none` sends only the question [default: the run's, else the configuration's]
    #[arg(long, value_name = "NAME|FILE")]
    ppe: Option<String>,

    /// Model: `tiny` (embedded), a Hub id, a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Get completions from a server that supports OpenAI's completions API (vLLM, SGLang, llama.cpp)
    ///
    /// `--model` is still needed, for the tokenizer and the chat template. The server has to load the adapter. The API key is
    /// read from RFT_ENDPOINT_KEY or OPENAI_API_KEY.
    #[arg(long, value_name = "URL", conflicts_with_all = ["device", "threads"], help_heading = "Server")]
    endpoint: Option<String>,

    /// Name of the model on the server [default: the only one it serves]
    #[arg(long, value_name = "NAME", requires = "endpoint", help_heading = "Server")]
    served_model: Option<String>,

    /// Maximum number of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 16, requires = "endpoint", help_heading = "Server")]
    concurrency: usize,

    /// Worker threads; the result does not depend on their number [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<i64>,

    /// Samples per question [default: the profile's]
    #[arg(long, value_name = "K")]
    samples: Option<usize>,

    /// Sampling temperature; 0 is greedy [default: the profile's]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,

    /// Sample only from the most probable tokens with this total probability [default: the profile's]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,

    /// Maximum completion length in tokens [default: the profile's, or what the model's context allows]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,

    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Evaluate only the first N questions of each benchmark
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Folder with data files, searched before the Hub
    #[arg(long, value_name = "DIR", env = "RFT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Column with the questions, for a data file
    #[arg(long, value_name = "NAME")]
    question_column: Option<String>,

    /// Column with the answers, for a data file
    #[arg(long, value_name = "NAME")]
    answer_column: Option<String>,

    /// File with the text around a question, instead of the profile's: `{question}`, and `{options}` for multiple choice
    #[arg(long, value_name = "FILE")]
    prompt_template: Option<PathBuf>,

    /// Folder to write to [default: a folder under `evals`, named after the settings]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Run programs even if the sandbox does not work (see `rft doctor`)
    #[arg(long)]
    unsafe_local_exec: bool,

    /// Download without asking
    #[arg(long)]
    yes: bool,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,

    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: &EvalDrawArgs) -> Result<ExitCode> {
    let mut layers = args.config.layers();
    let trained = args.adapter.as_deref().map(Trained::find).transpose()?;
    if let Some(trained) = &trained {
        trained.configure(&mut layers);
    }
    layers.prompt_flag(args.ppe.as_deref());
    layers.flag("model.path", args.model.clone(), "--model");
    layers.flag("run.device", args.device.clone(), "--device");
    layers.flag("train.threads", args.threads, "--threads");
    let config = config::resolve(&layers)?.config;
    device::use_threads(config.train.threads)?;
    let fetch = |config: &RunConfig| download::confirm(config, args.yes);
    let mut session = EvalSession::open(&args.request(), &config, trained.as_ref(), &fetch)?;
    for warning in &session.warnings {
        eprintln!("warning: {warning}");
    }
    let stop =
        Stop::on_signals(|_| eprintln!("stopping; finished samples are kept (interrupt again to stop immediately)"))?;
    let mut all = Vec::new();
    for (place, name) in session.benchmarks().iter().enumerate() {
        let mut bar = Bar::new(name, &stop);
        let ended = session.evaluate(place, &mut bar)?;
        let speed = bar.finish();
        match ended {
            EvalOutcome::Complete(scores) => all.push((*scores, speed)),
            EvalOutcome::Ungraded => {
                eprintln!(
                    "PARTIAL `{name}`: all samples are there, but not graded\n\
                     hint: run the same command again to grade them"
                );
                break;
            }
            EvalOutcome::Partial { samples, wanted } => {
                eprintln!(
                    "PARTIAL `{name}`: {samples} of {wanted} samples; scores are computed only when no sample is missing\n\
                     hint: run the same command again to resume"
                );
                break;
            }
        }
    }
    print(args.output_format, &session.folder, &all)?;
    Ok(stop.requested().map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code() as u8)))
}

impl EvalDrawArgs {
    fn request(&self) -> EvalRequest {
        EvalRequest {
            bench: self.bench.clone(),
            profile: self.profile,
            default_prompt: self.ppe.is_none(),
            server: self.endpoint.as_ref().map(|url| Server {
                url: url.clone(),
                model: self.served_model.clone(),
                concurrency: self.concurrency,
            }),
            samples: self.samples,
            temperature: self.temperature,
            top_p: self.top_p,
            max_tokens: self.max_tokens,
            seed: self.seed,
            limit: self.limit,
            data_dir: self.data_dir.clone(),
            question_column: self.question_column.clone(),
            answer_column: self.answer_column.clone(),
            prompt_template: self.prompt_template.clone(),
            out: self.out.clone(),
            unsafe_local_exec: self.unsafe_local_exec,
        }
    }
}

fn print(format: OutputFormat, folder: &EvalFolder, all: &[(BenchmarkScores, Option<f64>)]) -> Result<()> {
    let (identity, folder) = (&folder.identity, &folder.path);
    match format {
        OutputFormat::Json => {
            let scores: Vec<&BenchmarkScores> = all.iter().map(|(scores, _)| scores).collect();
            let report = serde_json::json!({ "folder": folder, "identity": identity, "scores": scores });
            output::json(&report);
        }
        OutputFormat::Text => {
            if !all.is_empty() {
                println!("{}", table::report(identity, all));
                if let Some(layers) = all.iter().find_map(|(scores, _)| scores.sandbox.as_ref()) {
                    println!("programs ran with {layers}");
                }
            }
            eprintln!("the samples are in `{}`; `rft eval show` prints them", folder.display());
        }
    }
    Ok(())
}

/// A progress bar if stderr is a terminal, else occasional lines.
struct Bar<'a> {
    name: &'a str,
    stop: &'a Stop,
    bar: Option<ProgressBar>,
    started: Instant,
    shown: Instant,
    last: EvalProgress,
}

impl<'a> Bar<'a> {
    fn new(name: &'a str, stop: &'a Stop) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} {pos}/{len} {bar:30.cyan/dim} {wide_msg}")
                .expect("a valid template")
                .progress_chars("━━─");
            let bar = ProgressBar::with_draw_target(Some(0), status_line()).with_style(style);
            let bar = bar.with_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        Self { name, stop, bar, started: now, shown: now, last: EvalProgress::default() }
    }

    fn line(&self) -> String {
        let mut parts = Vec::new();
        if let Some((right, all)) = self.last.correct.filter(|(_, all)| *all > 0) {
            parts.push(format!("{:.1} % correct so far", 100.0 * right as f64 / all as f64));
        }
        if let Some(speed) = self.speed() {
            parts.push(format!("{speed:.0} tokens/s"));
        }
        parts.join("  ")
    }

    /// Tokens per second; None if nothing was generated.
    fn speed(&self) -> Option<f64> {
        (self.last.tokens > 0).then(|| self.last.tokens as f64 / self.started.elapsed().as_secs_f64())
    }

    fn finish(self) -> Option<f64> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.speed()
    }
}

impl Show for Bar<'_> {
    fn progress(&mut self, progress: &EvalProgress) {
        self.last = *progress;
        let every = if self.bar.is_some() { Duration::from_millis(100) } else { Duration::from_secs(15) };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        match &self.bar {
            Some(bar) => {
                bar.set_length(progress.wanted as u64);
                bar.set_position(progress.samples as u64);
                bar.set_message(self.line());
            }
            None => eprintln!("{} {}/{} samples  {}", self.name, progress.samples, progress.wanted, self.line()),
        }
    }

    fn cancelled(&mut self) -> bool {
        self.stop.requested().is_some()
    }
}
