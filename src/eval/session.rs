//! `rft eval --bench ...` without its output: loads and checks a model and benchmarks, and evaluates them one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::asked::{Asking, EvalQuestion};
use super::bench::{self, Benchmark, QuestionOrigin, Set};
use super::endpoint::Endpoint;
use super::engine::Draw;
use super::folder::{EvalFolder, Identity};
use super::grade::Grader;
use super::local::Local;
use super::profile::{Profile, Style};
use super::room;
use super::run::{BenchmarkRun, EvalOutcome, Show, evaluate};
use crate::config::{RolloutSection, RunConfig};
use crate::device::{Device, Extent, LoadedModel};
use crate::disk::hash::{sha256, sha256_file};
use crate::model::lora::Adapter;
use crate::model::source::{ModelSource, TokenizerSource};
use crate::prompt::{Mixture, PriorPrompt, text_file};
use crate::rollout::Sampling;
use crate::rollout::policy::Policy;
use crate::run::trained::{Trained, prior_prompts};
use crate::server::ServerOptions;

/// The request, in addition to the configuration.
pub struct EvalRequest {
    /// Benchmarks by name, or data files.
    pub bench: Vec<String>,
    pub profile: Profile,
    /// The user did not set a prior prompt, so the training prompt of the adapter's run is used.
    pub default_prompt: bool,
    /// A server that generates the completions instead of this process.
    pub server: Option<Server>,
    /// Default: the profile's. This also applies to the next three.
    pub samples: Option<usize>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub max_tokens: Option<usize>,
    pub seed: u64,
    /// Evaluate only this number of first questions of each benchmark.
    pub limit: Option<usize>,
    /// Folder with data files, which is searched before the Hub.
    pub data_dir: Option<PathBuf>,
    /// Columns of a data file.
    pub question_column: Option<String>,
    pub answer_column: Option<String>,
    /// A file with a template for questions, instead of the profile's.
    pub prompt_template: Option<PathBuf>,
    /// Output folder. Default: a folder in `evals`, named after the model and the settings.
    pub out: Option<PathBuf>,
    pub unsafe_local_exec: bool,
}

/// A server with OpenAI's completions API.
pub struct Server {
    pub url: String,
    /// Default: the only model of the server.
    pub model: Option<String>,
    /// Maximum number of requests in flight.
    pub concurrency: usize,
}

/// The source of completions.
enum CompletionSource {
    Here(Device),
    Server(Endpoint),
}

/// The loaded source of completions.
enum LoadedCompleter {
    Here { loaded: Box<LoadedModel>, adapter: Option<Adapter> },
    Server(Endpoint),
}

/// A benchmark with its rendered questions.
struct Ready {
    benchmark: Benchmark,
    style: Style,
    set: Set,
    grader: Grader,
    asked: Vec<EvalQuestion>,
    limit: usize,
}

/// An evaluation that is ready to start: the model is loaded, and all prompts are rendered.
pub struct EvalSession {
    model: LoadedCompleter,
    policy: Policy,
    own_stop_strings: Vec<String>,
    rollout: RolloutSection,
    seed: u64,
    ready: Vec<Ready>,
    pub folder: EvalFolder,
    /// Warnings about prompts that do not fit, about the adapter's base model, and about the matrix product algorithms on a GPU.
    pub warnings: Vec<String>,
}

impl EvalSession {
    /// Checks everything that can be checked without the model, then loads the model. `fetch` downloads the configured model if it
    /// is not in the cache, or returns an error.
    pub fn open(
        request: &EvalRequest,
        config: &RunConfig,
        trained: Option<&Trained>,
        fetch: &dyn Fn(&RunConfig) -> Result<()>,
    ) -> Result<Self> {
        let mixture = prior_prompts(trained, config, !request.default_prompt)?;
        let benchmarks = request.bench.iter().map(|name| bench::find(name)).collect::<Result<Vec<_>>>()?;
        distinct(&request.bench, &benchmarks)?;
        let sets = benchmarks.into_iter().map(|it| load(request, it)).collect::<Result<Vec<_>>>()?;
        let server = request.server.as_ref().map(connect).transpose()?;
        let source = match server {
            Some(_) => ModelSource::open_texts(&config.model.path, &config.model.revision)?,
            None => {
                fetch(config)?;
                ModelSource::open(&config.model.path, &config.model.revision)?
            }
        };
        let policy = Policy::load(&source, config)?;
        let (mut ready, mut warnings) = (Vec::new(), Vec::new());
        for (benchmark, mut style, mut set, grader) in sets {
            let prefill = config.prompt.prefill;
            let asking = Asking { policy: &policy, mixture: &mixture, prefill, style: &style, seed: request.seed };
            let mut asked = asking
                .all(&set, benchmark.kind)
                .with_context(|| format!("render the questions of `{}`", benchmark.name))?;
            let limit = request.limit.unwrap_or(asked.len()).min(asked.len());
            let context = source.config.max_position_embeddings;
            let name = &benchmark.name;
            if request.max_tokens.is_some() {
                room::check(style.max_tokens, &asked[..limit], context, name)?;
            } else {
                // Not only for the limited questions, so that their samples are a part of those without a limit.
                let notes = room::fit(&mut style, &mut asked, context, name)?;
                warnings.extend(notes.does_not_fit.iter().map(|it| format!("`{name}`: {it}")));
                set.notes.extend(notes.length);
                set.notes.extend(notes.does_not_fit);
            }
            ready.push(Ready { benchmark, style, set, grader, asked, limit });
        }

        let place = match server {
            Some(server) => CompletionSource::Server(server),
            None => CompletionSource::Here(Device::choose(&config.run.device)?),
        };
        let identity = identity(request, config, &source, &policy, &mixture, trained, &place, &ready[0].style)?;
        let out = request.out.clone().map_or_else(|| default_folder(&identity), Ok)?;
        let folder = EvalFolder::start(&out, &identity)?;
        if let (CompletionSource::Here(_), Some(trained)) = (&place, trained) {
            warnings.extend(trained.base_warning(&source));
        }
        let model = match place {
            CompletionSource::Server(server) => LoadedCompleter::Server(server),
            CompletionSource::Here(device) => {
                let adapter = trained.map(|trained| trained.adapter(&source)).transpose()?;
                let extent = Extent {
                    positions: positions(&ready),
                    max_rows: config.rollout.max_rows,
                    working_bytes: None,
                    keep: None,
                    taught: false,
                };
                let loaded = LoadedModel::load(device, &source, adapter.as_ref(), &extent)?;
                warnings.extend(loaded.keep_products(&out.join("products.json"))?);
                LoadedCompleter::Here { loaded: Box::new(loaded), adapter }
            }
        };
        let own_stop_strings = policy.stop_strings.clone();
        Ok(Self {
            model,
            policy,
            own_stop_strings,
            rollout: config.rollout.clone(),
            seed: request.seed,
            ready,
            folder,
            warnings,
        })
    }

    /// The names of the benchmarks, in their order.
    pub fn benchmarks(&self) -> Vec<String> {
        self.ready.iter().map(|ready| ready.benchmark.name.clone()).collect()
    }

    /// Generates missing samples of the benchmark with the index `place`, and scores them.
    pub fn evaluate(&mut self, place: usize, show: &mut dyn Show) -> Result<EvalOutcome> {
        let Ready { benchmark, style, set, grader, asked, limit } = &self.ready[place];
        self.policy.stop_strings = self.own_stop_strings.iter().chain(&style.stop).cloned().collect();
        let draw = Draw {
            sampling: sampling(style, &self.rollout),
            max_tokens: style.max_tokens,
            stop: self.policy.stop_strings.clone(),
            seed: self.seed,
        };
        let evaluation = BenchmarkRun {
            folder: &self.folder,
            benchmark,
            style,
            asked,
            limit: *limit,
            data_sha256: &set.sha256,
            notes: &set.notes,
            grader,
        };
        match &mut self.model {
            LoadedCompleter::Server(server) => evaluate(&evaluation, server, &draw, show),
            LoadedCompleter::Here { loaded, adapter } => {
                let mut local = Local { engine: loaded.engine(), adapter: adapter.as_ref(), policy: &self.policy };
                evaluate(&evaluation, &mut local, &draw, show)
            }
        }
    }
}

fn connect(server: &Server) -> Result<Endpoint> {
    let options = ServerOptions { concurrency: server.concurrency, ..ServerOptions::new(&server.url) };
    Endpoint::connect(&options, server.model.as_deref())
}

/// Checks that each benchmark has its own name, because the name selects the folder of its samples.
fn distinct(given: &[String], benchmarks: &[Benchmark]) -> Result<()> {
    for (at, benchmark) in benchmarks.iter().enumerate() {
        if let Some(before) = benchmarks[..at].iter().position(|it| it.name == benchmark.name) {
            bail!(
                "`{}` and `{}` are benchmarks with the same name, `{}`\n\
                 hint: pass each benchmark once, and rename one of two files, or evaluate them into different folders (--out)",
                given[before],
                given[at],
                benchmark.name
            );
        }
    }
    Ok(())
}

/// A benchmark with its questions, its settings and its grader.
fn load(request: &EvalRequest, mut benchmark: Benchmark) -> Result<(Benchmark, Style, Set, Grader)> {
    if let QuestionOrigin::File(file) = &mut benchmark.origin {
        file.question_column.clone_from(&request.question_column);
        file.answer_column.clone_from(&request.answer_column);
    }
    let mut style = Style::new(request.profile, &benchmark)?;
    style.samples = request.samples.unwrap_or(style.samples);
    style.temperature = request.temperature.unwrap_or(style.temperature);
    style.top_p = request.top_p.unwrap_or(style.top_p);
    style.max_tokens = request.max_tokens.unwrap_or(style.max_tokens);
    ensure!(style.samples > 0, "`--samples` must be at least 1");
    ensure!(style.temperature >= 0.0 && style.temperature.is_finite(), "`--temperature` must be at least 0");
    ensure!(style.top_p > 0.0 && style.top_p <= 1.0, "`--top-p` must be above 0 and at most 1");
    ensure!(style.max_tokens > 0 && request.limit != Some(0), "`--max-tokens` and `--limit` must be at least 1");
    if style.temperature == 0.0 && style.samples > 1 {
        bail!(
            "all {} samples at temperature 0 would be the same\nhint: set --samples 1, or a --temperature above 0",
            style.samples
        );
    }
    if let Some(path) = &request.prompt_template {
        let text = text_file::read(path).with_context(|| format!("read `{}`", path.display()))?;
        ensure!(
            text.matches("{question}").count() == 1,
            "`{}` must contain `{{question}}` exactly once, at the position of the question",
            path.display()
        );
        style.template = text.strip_suffix('\n').unwrap_or(&text).to_owned();
    }
    let set = benchmark.load(request.data_dir.as_deref())?;
    let data_dir = request.data_dir.as_deref();
    let grader = Grader::new(&benchmark.name, style.extraction, data_dir, request.unsafe_local_exec)?;
    grader.check_questions(&set.questions)?;
    Ok((benchmark, style, set, grader))
}

/// Number of positions for the longest prompt and its completion.
fn positions(ready: &[Ready]) -> usize {
    let longest = |it: &Ready| {
        let fitting = it.asked[..it.limit].iter().filter(|asked| asked.fits);
        let prompt = fitting.map(|asked| asked.prompt.ids.len()).max().unwrap_or(0);
        prompt + it.style.max_tokens
    };
    ready.iter().map(longest).max().unwrap_or(0)
}

fn sampling(style: &Style, rollout: &RolloutSection) -> Sampling {
    Sampling {
        temperature: style.temperature as f32,
        top_p: style.top_p as f32,
        top_k: rollout.top_k,
        min_p: rollout.min_p as f32,
    }
}

#[allow(clippy::too_many_arguments, reason = "everything that a sample depends on")]
fn identity(
    request: &EvalRequest,
    config: &RunConfig,
    source: &ModelSource,
    policy: &Policy,
    mixture: &Mixture,
    trained: Option<&Trained>,
    place: &CompletionSource,
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
            CompletionSource::Here(_) => source.hash.clone(),
            CompletionSource::Server(server) => server.model().to_owned(),
        },
        adapter: trained.map(|trained| trained.name.clone()),
        adapter_sha256: adapter_file.as_ref().map(hash).transpose()?,
        engine: match place {
            CompletionSource::Here(Device::Cpu) => "cpu".to_owned(),
            CompletionSource::Here(Device::Cuda(_)) => "cuda".to_owned(),
            CompletionSource::Server(_) => "endpoint".to_owned(),
        },
        ppe: if style.takes_prior_prompt() { mixture.name() } else { "none".to_owned() },
        wording: mixture.wording(),
        mix: if mixture.is_mixed() && style.takes_prior_prompt() { mixture.entries() } else { Vec::new() },
        prompt_sha256: prompt_hash(mixture)?,
        prefill: config.prompt.prefill,
        template_sha256: sha256(policy.template.source().as_bytes()),
        tokenizer_sha256,
        profile: request.profile.name().to_owned(),
        temperature: style.temperature,
        top_p: style.top_p,
        top_k: config.rollout.top_k,
        min_p: config.rollout.min_p,
        seed: request.seed,
    })
}

/// The hash of a prompt's text, tags and role; of a mixture, that of those of all prompts with their weights.
fn prompt_hash(mixture: &Mixture) -> Result<String> {
    fn content(prompt: &PriorPrompt) -> impl serde::Serialize + '_ {
        (&prompt.text, &prompt.tag, &prompt.answer_tag, &prompt.role)
    }
    Ok(sha256(&match mixture.parts() {
        [one] => serde_json::to_vec(&content(&one.prompt))?,
        parts => serde_json::to_vec(&parts.iter().map(|it| (content(&it.prompt), it.weight)).collect::<Vec<_>>())?,
    }))
}

/// `evals/MODEL[-ADAPTER]-PROMPT-PROFILE-HASH`. The same command uses the same folder again.
fn default_folder(identity: &Identity) -> Result<PathBuf> {
    let model = Path::new(&identity.model).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let parts = [Some(model), identity.adapter.clone(), Some(identity.ppe.clone()), Some(identity.profile.clone())];
    let name = parts.into_iter().flatten().collect::<Vec<_>>().join("-").to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    Ok(Path::new("evals").join(format!("{name}-{}", identity.short_hash()?)))
}
