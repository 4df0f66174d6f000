//! `rft eval --bench ...`: draw the samples that are missing, and score them.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::super::config_args::ConfigArgs;
use super::super::download;
use super::super::trained::{Trained, prior_prompt};
use super::{OutputFormat, table};
use crate::config::{self, RunConfig};
use crate::device::{Device, Extent, Loaded};
use crate::disk::hash::{sha256, sha256_file};
use crate::eval::asked::{Asked, Asking};
use crate::eval::bench::{self, Benchmark, Origin, Set};
use crate::eval::endpoint::Endpoint;
use crate::eval::engine::Draw;
use crate::eval::folder::{EvalFolder, Identity};
use crate::eval::grade::Grader;
use crate::eval::local::Local;
use crate::eval::profile::{Profile, Style};
use crate::eval::run::{Ended, Evaluation, Progress, Show, evaluate};
use crate::eval::score::Scores;
use crate::model::lora::Adapter;
use crate::model::source::{Source, TokenizerSource};
use crate::prompt::PriorPrompt;
use crate::rollout::Sampling;
use crate::rollout::policy::Policy;
use crate::run::Stop;
use crate::server::Options;
use crate::train::state::load_adapter;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Benchmarks by name (`rft eval list` tells them), or data files; with commas between
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', required = true)]
    bench: Vec<String>,

    /// How they are asked: `study`, `lighteval` or `evalplus`
    #[arg(long, value_name = "NAME", default_value = "study")]
    profile: Profile,

    /// Run directory, or folder with an adapter; a run also gives the model and the prior prompt
    #[arg(long, value_name = "RUN|DIR")]
    adapter: Option<PathBuf>,

    /// Prior prompt: a name or a file; `none` asks bare questions [default: the run's, else the configuration's]
    #[arg(long, value_name = "NAME|FILE")]
    ppe: Option<String>,

    /// Model: `tiny` (embedded), a hub id, a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Ask a server with OpenAI's completions protocol (vLLM, SGLang, llama.cpp) instead of computing here
    ///
    /// `--model` still names the model, for its tokenizer and chat template; an adapter has to be loaded by the server. The key
    /// is read from RFT_ENDPOINT_KEY or OPENAI_API_KEY.
    #[arg(long, value_name = "URL", conflicts_with_all = ["device", "threads"], help_heading = "Server")]
    endpoint: Option<String>,

    /// The model's name at the server [default: the only one it serves]
    #[arg(long, value_name = "NAME", requires = "endpoint", help_heading = "Server")]
    served_model: Option<String>,

    /// Requests in flight at a time
    #[arg(long, value_name = "N", default_value_t = 16, requires = "endpoint", help_heading = "Server")]
    concurrency: usize,

    /// Worker threads [default: one for each core]; the result does not depend on them
    #[arg(long, value_name = "N")]
    threads: Option<i64>,

    /// Samples of each question [default: the profile's]
    #[arg(long, value_name = "K")]
    samples: Option<usize>,

    /// 0 takes the most probable token [default: the profile's]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,

    /// Draw from the most probable tokens that make up this share [default: the profile's]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,

    /// Longest answer, in tokens [default: the profile's, or what the model's context leaves]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,

    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Ask only the first questions of each benchmark
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Folder with data files, looked at before the hub
    #[arg(long, value_name = "DIR", env = "RFT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Column with the question, for a data file
    #[arg(long, value_name = "NAME")]
    question_column: Option<String>,

    /// Column with the answer, for a data file
    #[arg(long, value_name = "NAME")]
    answer_column: Option<String>,

    /// File with the words around a question instead of the profile's: `{question}`, and `{options}` where there are any
    #[arg(long, value_name = "FILE")]
    prompt_template: Option<PathBuf>,

    /// Folder to write to [default: one under `evals` whose name says what is asked]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Run programs even where no sandbox holds them in (`rft doctor` tells whether one does)
    #[arg(long)]
    unsafe_local_exec: bool,

    /// Download without asking
    #[arg(long)]
    yes: bool,

    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,

    #[command(flatten)]
    config: ConfigArgs,
}

/// Where completions come from.
enum Place {
    Here(Device),
    Server(Endpoint),
}

/// The same, ready to complete.
enum Model {
    Here { loaded: Box<Loaded>, adapter: Option<Adapter> },
    Server(Endpoint),
}

/// A benchmark with its questions, ready to be asked.
struct Ready {
    benchmark: Benchmark,
    style: Style,
    set: Set,
    grader: Grader,
    asked: Vec<Asked>,
    limit: usize,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut layers = args.config.layers();
    let trained = args.adapter.as_deref().map(Trained::find).transpose()?;
    if let Some(trained) = &trained {
        trained.configure(&mut layers);
    }
    layers.flag("prompt.ppe", args.ppe.clone(), "--ppe");
    layers.flag("model.path", args.model.clone(), "--model");
    layers.flag("run.device", args.device.clone(), "--device");
    layers.flag("train.threads", args.threads, "--threads");
    let config = config::resolve(&layers)?.config;
    if let Some(threads) = config.train.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("start the worker threads")?;
    }
    let prior = prior_prompt(trained.as_ref(), &config, args.ppe.is_some())?;
    // All that can be refused is looked at before a model is loaded.
    let sets = args.bench.iter().map(|name| load(args, name)).collect::<Result<Vec<_>>>()?;

    let server = args.endpoint.as_ref().map(|url| connect(args, url)).transpose()?;
    let source = match server {
        Some(_) => Source::open_texts(&config.model.path, &config.model.revision)?,
        None => {
            download::confirm(&config, args.yes)?;
            Source::open(&config.model.path, &config.model.revision)?
        }
    };
    let mut policy = Policy::load(&source, &config)?;
    let mut ready = Vec::new();
    for (benchmark, style, set, grader) in sets {
        let asking =
            Asking { policy: &policy, prior: &prior, prefill: config.prompt.prefill, style: &style, seed: args.seed };
        let asked = asking.all(&set, benchmark.kind).with_context(|| format!("ask `{}`", benchmark.name))?;
        let limit = args.limit.unwrap_or(asked.len()).min(asked.len());
        let context = source.config.max_position_embeddings;
        let style = within(style, args.max_tokens.is_some(), &asked[..limit], context, &benchmark.name)?;
        ready.push(Ready { benchmark, style, set, grader, asked, limit });
    }

    let place = match server {
        Some(server) => Place::Server(server),
        None => Place::Here(Device::choose(&config.run.device)?),
    };
    let identity = identity(args, &config, &source, &policy, &prior, trained.as_ref(), &place, &ready[0].style)?;
    let out = args.out.clone().map_or_else(|| default_folder(&identity), Ok)?;
    let folder = EvalFolder::start(&out, &identity)?;
    let mut model = match place {
        Place::Server(server) => Model::Server(server),
        Place::Here(device) => {
            let adapter: Option<Adapter> =
                trained.as_ref().map(|trained| load_adapter(&trained.folder, &source.config, None)).transpose()?;
            let extent = Extent {
                positions: positions(&ready),
                max_rows: config.rollout.max_rows,
                working_bytes: None,
                keep: None,
            };
            let loaded = Loaded::load(device, &source, adapter.as_ref(), &extent)?;
            if let Some(warning) = loaded.keep_products(&out.join("products.json"))? {
                eprintln!("warning: {warning}");
            }
            Model::Here { loaded: Box::new(loaded), adapter }
        }
    };
    drop(source);

    let stop = Stop::on_signals(|_| eprintln!("stopping; what was drawn is kept (again to stop at once)"))?;
    let own_stop_strings = policy.stop_strings.clone();
    let mut all = Vec::new();
    for Ready { benchmark, style, set, grader, asked, limit } in &ready {
        policy.stop_strings = own_stop_strings.iter().chain(&style.stop).cloned().collect();
        let draw = Draw {
            sampling: sampling(style, &config),
            max_tokens: style.max_tokens,
            stop: policy.stop_strings.clone(),
            seed: args.seed,
        };
        let evaluation = Evaluation {
            folder: &folder,
            benchmark,
            style,
            asked,
            limit: *limit,
            data_sha256: &set.sha256,
            notes: &set.notes,
            grader,
        };
        let mut bar = Bar::new(&benchmark.name, &stop);
        let ended = match &mut model {
            Model::Server(server) => evaluate(&evaluation, server, &draw, &mut bar)?,
            Model::Here { loaded, adapter } => {
                let mut local = Local { engine: loaded.engine(), adapter: adapter.as_ref(), policy: &policy };
                evaluate(&evaluation, &mut local, &draw, &mut bar)?
            }
        };
        let speed = bar.finish();
        match ended {
            Ended::Complete(scores) => all.push((*scores, speed)),
            Ended::Partial { samples, wanted } => {
                eprintln!(
                    "PARTIAL `{}`: {samples} of {wanted} samples; no score can be told from a part of them\n\
                     hint: the same command goes on from here",
                    benchmark.name
                );
                break;
            }
        }
    }
    print(args.output_format, &identity, &all, &folder.path)?;
    Ok(stop.requested().map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code() as u8)))
}

fn connect(args: &Args, url: &str) -> Result<Endpoint> {
    let options = Options { concurrency: args.concurrency, ..Options::new(url) };
    Endpoint::connect(&options, args.served_model.as_deref())
}

/// The questions that `name` means, how they are asked and what grades the answers.
fn load(args: &Args, name: &str) -> Result<(Benchmark, Style, Set, Grader)> {
    let mut benchmark = bench::find(name)?;
    if let Origin::File(file) = &mut benchmark.origin {
        file.question_column.clone_from(&args.question_column);
        file.answer_column.clone_from(&args.answer_column);
    }
    let mut style = Style::new(args.profile, &benchmark)?;
    style.samples = args.samples.unwrap_or(style.samples);
    style.temperature = args.temperature.unwrap_or(style.temperature);
    style.top_p = args.top_p.unwrap_or(style.top_p);
    style.max_tokens = args.max_tokens.unwrap_or(style.max_tokens);
    ensure!(style.samples > 0, "`--samples` must be 1 or more");
    ensure!(style.temperature >= 0.0 && style.temperature.is_finite(), "`--temperature` must be 0 or more");
    ensure!(style.top_p > 0.0 && style.top_p <= 1.0, "`--top-p` must be above 0 and not above 1");
    ensure!(style.max_tokens > 0 && args.limit != Some(0), "`--max-tokens` and `--limit` must be 1 or more");
    if style.temperature == 0.0 && style.samples > 1 {
        bail!(
            "{} samples at temperature 0 would all be the same\nhint: give --samples 1, or a --temperature above 0",
            style.samples
        );
    }
    if let Some(path) = &args.prompt_template {
        let text = std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
        ensure!(
            text.matches("{question}").count() == 1,
            "`{}` has to hold `{{question}}` once: that is where the question goes",
            path.display()
        );
        style.template = text.strip_suffix('\n').unwrap_or(&text).to_owned();
    }
    let set = benchmark.load(args.data_dir.as_deref())?;
    let data_dir = args.data_dir.as_deref();
    let grader = Grader::new(&benchmark.name, style.extraction, data_dir, args.unsafe_local_exec)?;
    Ok((benchmark, style, set, grader))
}

/// The style with the longest answer that the model's context leaves room for.
fn within(style: Style, asked_for: bool, asked: &[Asked], context: usize, name: &str) -> Result<Style> {
    let longest = asked.iter().map(|it| it.prompt.ids.len()).max().unwrap_or(0);
    let room = context.saturating_sub(longest);
    ensure!(
        room > 0 && (!asked_for || style.max_tokens <= room),
        "the longest prompt of `{name}` has {longest} tokens, which leaves {room} of the model's {context} for an answer\n\
         hint: {}",
        if room > 0 { format!("lower --max-tokens to {room}") } else { "the model is too small for it".to_owned() }
    );
    Ok(Style { max_tokens: style.max_tokens.min(room), ..style })
}

/// Positions that the longest prompt and answer need.
fn positions(ready: &[Ready]) -> usize {
    let longest = |it: &Ready| {
        let prompt = it.asked[..it.limit].iter().map(|asked| asked.prompt.ids.len()).max().unwrap_or(0);
        prompt + it.style.max_tokens
    };
    ready.iter().map(longest).max().unwrap_or(0)
}

fn sampling(style: &Style, config: &RunConfig) -> Sampling {
    Sampling {
        temperature: style.temperature as f32,
        top_p: style.top_p as f32,
        top_k: config.rollout.top_k,
        min_p: config.rollout.min_p as f32,
    }
}

#[allow(clippy::too_many_arguments, reason = "all that a sample depends on")]
fn identity(
    args: &Args,
    config: &RunConfig,
    source: &Source,
    policy: &Policy,
    prior: &PriorPrompt,
    trained: Option<&Trained>,
    place: &Place,
    style: &Style,
) -> Result<Identity> {
    let adapter_file = trained.map(|trained| trained.folder.join("adapter_model.safetensors"));
    let hash = |path: &PathBuf| sha256_file(path).with_context(|| format!("read `{}`", path.display()));
    let tokenizer_sha256 = match &source.tokenizer {
        TokenizerSource::Json(bytes) => sha256(bytes),
        TokenizerSource::Gguf(_) => source.hash.clone(),
    };
    Ok(Identity {
        model: source.name.clone(),
        model_sha256: match place {
            Place::Here(_) => source.hash.clone(),
            Place::Server(server) => server.model().to_owned(),
        },
        adapter: trained.map(|trained| trained.name.clone()),
        adapter_sha256: adapter_file.as_ref().map(hash).transpose()?,
        engine: match place {
            Place::Here(Device::Cpu) => "cpu".to_owned(),
            Place::Here(Device::Cuda(_)) => "cuda".to_owned(),
            Place::Server(_) => "endpoint".to_owned(),
        },
        ppe: if style.takes_prior_prompt() { prior.name.clone() } else { "none".to_owned() },
        wording: prior.wording.clone(),
        prompt_sha256: sha256(&serde_json::to_vec(&(&prior.text, &prior.tag, &prior.answer_tag, &prior.role))?),
        prefill: config.prompt.prefill,
        template_sha256: sha256(policy.template.source().as_bytes()),
        tokenizer_sha256,
        profile: args.profile.name().to_owned(),
        temperature: style.temperature,
        top_p: style.top_p,
        top_k: config.rollout.top_k,
        min_p: config.rollout.min_p,
        seed: args.seed,
    })
}

/// `evals/MODEL[-ADAPTER]-PROMPT-PROFILE-HASH`: the same command finds the same folder again.
fn default_folder(identity: &Identity) -> Result<PathBuf> {
    let model = Path::new(&identity.model).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let parts = [Some(model), identity.adapter.clone(), Some(identity.ppe.clone()), Some(identity.profile.clone())];
    let name = parts.into_iter().flatten().collect::<Vec<_>>().join("-").to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    Ok(Path::new("evals").join(format!("{name}-{}", identity.short_hash()?)))
}

fn print(format: OutputFormat, identity: &Identity, all: &[(Scores, Option<f64>)], folder: &Path) -> Result<()> {
    match format {
        OutputFormat::Json => {
            let scores: Vec<&Scores> = all.iter().map(|(scores, _)| scores).collect();
            let report = serde_json::json!({ "folder": folder, "identity": identity, "scores": scores });
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
        OutputFormat::Text => {
            if !all.is_empty() {
                println!("{}\n{}", table::title(identity), table::scores(all));
                if let Some(layers) = all.iter().find_map(|(scores, _)| scores.sandbox.as_ref()) {
                    println!("programs ran on {layers}");
                }
            }
            eprintln!("every sample is in `{}`; `rft eval show` reads them", folder.display());
        }
    }
    Ok(())
}

/// A bar where stderr is a terminal; elsewhere a line now and then.
struct Bar<'a> {
    name: &'a str,
    stop: &'a Stop,
    bar: Option<ProgressBar>,
    started: Instant,
    shown: Instant,
    last: Progress,
}

impl<'a> Bar<'a> {
    fn new(name: &'a str, stop: &'a Stop) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} {pos}/{len} {bar:30.cyan/dim} {wide_msg}")
                .expect("a valid template")
                .progress_chars("━━─");
            let bar = ProgressBar::new(0).with_style(style).with_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        Self { name, stop, bar, started: now, shown: now, last: Progress::default() }
    }

    fn line(&self) -> String {
        let mut parts = Vec::new();
        if let Some((right, all)) = self.last.correct.filter(|(_, all)| *all > 0) {
            parts.push(format!("{:.1} % right so far", 100.0 * right as f64 / all as f64));
        }
        if let Some(speed) = self.speed() {
            parts.push(format!("{speed:.0} tokens/s"));
        }
        parts.join("  ")
    }

    /// Tokens a second; none where nothing was drawn.
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
    fn progress(&mut self, progress: &Progress) {
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
