//! `rft generate`: generate completions for one question.

use super::config_args::ConfigArgs;
use super::output_format::OutputFormat;
use crate::cli::output;
use crate::config;
use crate::device::{Device, Extent, LoadedModel};
use crate::model::source::ModelSource;
use crate::model::tokenizer::TextStream;
use crate::rng::name_hash;
use crate::rollout::policy::{Policy, opening};
use crate::rollout::{Completion, EVALUATION_STEP, Finish, RolloutRequest, RolloutWatch, Sampling};
use crate::run::Stop;
use crate::run::trained::{Trained, prior_prompts};
use anyhow::{Result, ensure};

use std::path::PathBuf;

/// Generate completions for one question
///
/// Renders the question with the model's chat template under the prior prompt, exactly as in training, and prints the
/// completion as it is generated. The model may be trained (`--adapter`) or not.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft generate --adapter runs/tiny-null-example-1 \"Anna has 12 apples and buys 5 more. How many does she have?\"
  rft generate --model Qwen/Qwen2.5-0.5B --ppe reasoning --temperature 0 \"What is 7 times 8?\"")]
pub struct GenerateArgs {
    /// The question
    question: String,

    /// Run directory or adapter folder; a run also sets the model and the prior prompt
    #[arg(long, value_name = "RUN|DIR")]
    adapter: Option<PathBuf>,

    /// Prior prompt: a name or a file [default: the run's, else the configuration's]
    #[arg(long, value_name = "NAME|FILE")]
    ppe: Option<String>,

    /// Model: `tiny` (embedded), a Hub id, a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Sampling temperature; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f32,

    /// Maximum completion length in tokens [default: 2048, or what the model's context leaves]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,

    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Number of completions
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    n: usize,

    /// Print the rendered prompt first
    #[arg(long)]
    show_prompt: bool,

    /// Output format; `json` prints one line per completion: text, token ids, log-probabilities and why it ended
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output_format: OutputFormat,

    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: GenerateArgs) -> Result<()> {
    let mut layers = args.config.layers();
    let trained = args.adapter.as_deref().map(Trained::find).transpose()?;
    if let Some(trained) = &trained {
        trained.configure(&mut layers);
    }
    layers.prompt_flag(args.ppe.as_deref());
    layers.flag("model.path", args.model.clone(), "--model");
    layers.flag("run.device", args.device.clone(), "--device");
    ensure!(args.max_tokens != Some(0), "--max-tokens: expected 1 or more, found 0");
    let mut config = config::resolve(&layers)?.config;
    ensure!(args.temperature >= 0.0, "--temperature: expected 0 or more, found {}", args.temperature);

    let mixture = prior_prompts(trained.as_ref(), &config, args.ppe.is_some())?;
    let drawn = mixture.draw(args.seed, EVALUATION_STEP, name_hash(&args.question));
    let prior = &mixture.parts()[drawn].prompt;
    if mixture.is_mixed() {
        eprintln!("note: the prior prompt is `{}`, drawn from `{}`; --ppe selects one", prior.name, mixture.name());
    }
    let source = ModelSource::open(&config.model.path, &config.model.revision)?;
    // The limits of training do not matter here, only the model's.
    let context = source.config.max_position_embeddings;
    (config.rollout.max_prompt_length, config.rollout.max_completion_length) = (context.saturating_sub(1), 1);
    let policy = Policy::load(&source, &config)?;
    let rendered = policy.render(prior, &args.question, config.prompt.prefill)?;
    let prompt_length = rendered.ids.len();
    ensure!(
        prompt_length < context,
        "the prompt has {prompt_length} tokens, but the model supports {context}\nhint: shorten the question"
    );
    let wanted = args.max_tokens.unwrap_or(DEFAULT_LENGTH);
    let max_completion_length = wanted.min(context - prompt_length);
    if args.max_tokens.is_some() && max_completion_length < wanted {
        eprintln!(
            "note: at most {max_completion_length} tokens: the model supports {context}, and the prompt has {prompt_length}"
        );
    }
    if let Some(warning) = trained.as_ref().and_then(|trained| trained.base_warning(&source)) {
        eprintln!("warning: {warning}");
    }
    let adapter = trained.map(|trained| trained.adapter(&source)).transpose()?;
    let device = Device::choose(&config.run.device)?;
    let positions = prompt_length + max_completion_length;
    let extent = Extent { positions, max_rows: 1, working_bytes: Some(GENERATE_BYTES), keep: None, taught: false };
    let loaded = LoadedModel::load(device, &source, adapter.as_ref(), &extent)?;
    if args.show_prompt {
        eprintln!("{}", rendered.text);
    }
    let stop = Stop::on_signals(|_| {})?;
    for i in 0..args.n {
        let prompt = crate::rollout::Prompt { ids: rendered.ids.clone(), key: name_hash(&args.question) };
        let request = RolloutRequest {
            prompts: &[prompt],
            num_generations: 1,
            sampling: &Sampling::plain(args.temperature),
            max_completion_length,
            seed: args.seed,
            step: i as u64,
            ends: &|tokens| policy.ends(tokens),
            stop_tokens: &policy.stop_tokens,
        };
        let opening = opening(prior, config.prompt.prefill).unwrap_or_default();
        let shown = args.output_format == OutputFormat::Text;
        if shown {
            print!("{opening}");
        }
        let stream = shown.then(|| policy.tokenizer.stream());
        let mut printer = Printer { stream, stop: &stop, policy: &policy };
        let groups = loaded.engine().generate(adapter.as_ref(), &request, &mut printer)?;
        if let Some(stream) = printer.stream.take() {
            println!("{}", stream.finish());
        }
        let Some(groups) = groups else { break };
        if !shown {
            for completion in groups.iter().flatten() {
                output::json_line(&json(completion, &opening, &policy));
            }
        }
    }
    Ok(())
}

/// One completion as a line of JSON.
fn json(completion: &Completion, opening: &str, policy: &Policy) -> serde_json::Value {
    let ends = usize::from(matches!(completion.finish, Finish::Token(_)));
    let text = &completion.tokens[..completion.tokens.len() - ends];
    serde_json::json!({
        "text": format!("{opening}{}", policy.tokenizer.decode(text)),
        "tokens": completion.tokens,
        "logprobs": completion.logprobs,
        "finish": policy.finish_name(completion.finish),
    })
}

/// Maximum completion length without `--max-tokens`.
const DEFAULT_LENGTH: usize = 2_048;

/// GPU working memory for one completion at a time.
const GENERATE_BYTES: u64 = 4 << 30;

/// Prints a completion as it is generated.
struct Printer<'a> {
    stream: Option<TextStream<'a>>,
    policy: &'a Policy,
    stop: &'a Stop,
}

impl RolloutWatch for Printer<'_> {
    fn token(&mut self, _prompt: usize, _completion: usize, token: u32) {
        if self.policy.stop_tokens.contains(&token) {
            return;
        }
        if let Some(stream) = &mut self.stream {
            print!("{}", stream.push(token));
        }
    }

    fn cancelled(&mut self) -> bool {
        self.stop.requested().is_some() || output::is_closed()
    }
}
