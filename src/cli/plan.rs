//! `rft plan`: what a run takes of a GPU's memory, before anything is loaded.

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanBytes;
use serde_json::json;

use super::config_args::ConfigArgs;
use crate::config::{self, RunConfig};
use crate::model::config::{ModelConfig, known_shape};
use crate::model::source::Source;
use crate::plan::{Fit, Plan, parse_memory};

/// Say what a run takes of a GPU's memory
///
/// Adds up, phase by phase, what the CUDA path allocates for this configuration, and says for each size of memory whether
/// it fits and what the largest batch is that does. Nothing is loaded or downloaded but the model's configuration.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft plan --preset qwen2.5-7b
  rft plan --preset qwen2.5-7b --device-memory 80GiB --set rollout.max_rows=128")]
pub struct Args {
    /// The memory to fit, such as 80GiB [default: 24, 48, 80 and 141 GiB]
    #[arg(long, value_name = "SIZE")]
    device_memory: Vec<String>,

    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: Format,

    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Sizes that GPUs come in: RTX 4090, L40S, H100, H200.
const USUAL: [u64; 4] = [24 << 30, 48 << 30, 80 << 30, 141 << 30];

pub fn run(args: Args) -> Result<()> {
    let config = config::resolve(&args.config.layers())?.config;
    let model = shape(&config)?;
    let sizes = match args.device_memory.is_empty() {
        true => USUAL.to_vec(),
        false => args.device_memory.iter().map(|text| parse_memory(text)).collect::<Result<_>>()?,
    };
    let plan = Plan::of(&model, &config)?;
    let fits: Vec<(u64, Option<Fit>)> =
        sizes.into_iter().map(|size| Ok((size, Fit::within(size, &model, &config)?))).collect::<Result<_>>()?;
    match args.output_format {
        Format::Text => write!(stdout(), "{}", text(&config, &plan, &fits))?,
        Format::Json => {
            let fits = fits
                .iter()
                .map(|(memory, fit)| json!({"memory": memory, "fits": plan.peak() <= *memory, "largest": fit}));
            let fits: Vec<_> = fits.collect();
            writeln!(stdout(), "{:#}", json!({"peak": plan.peak(), "bytes": plan, "device_memory": fits}))?;
        }
    }
    Ok(())
}

/// The shape of the configured model, without its weights where that is possible.
fn shape(config: &RunConfig) -> Result<ModelConfig> {
    let path = &config.model.path;
    match known_shape(path) {
        Some(shape) => Ok(shape),
        None if Source::plan(path, &config.model.revision)?.is_some() => Source::peek(path, &config.model.revision),
        None => Ok(Source::open(path, &config.model.revision).context("read the model's shape")?.config),
    }
}

fn text(config: &RunConfig, plan: &Plan, fits: &[(u64, Option<Fit>)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let (rollout, training) = (&plan.rollout, &plan.training);
    for (what, bytes) in [
        ("CUDA itself", plan.context),
        ("weights, bf16", plan.weights),
        ("adapter, gradient, moments", plan.adapter),
        ("rollout: keys and values of prompts", rollout.prompt_cache),
        ("rollout: keys and values of branches", rollout.branch_cache),
        ("rollout: working memory, logits", rollout.working),
        ("training: kept for the backward pass", training.kept),
        ("training: working memory", training.working),
        ("training: a chunk of logits", training.logits),
        ("peak: what stays, and the larger phase", plan.peak()),
    ] {
        table.add_row([what.to_owned(), HumanBytes(bytes).to_string()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec![
        format!(
            "{}: {} branches at a time of up to {} + {} tokens, micro-batches of {} tokens{}",
            config.model.path,
            config.rollout.max_rows.min(config.rollout.completions_per_step()),
            config.rollout.max_prompt_length,
            config.rollout.max_completion_length,
            config.train.max_tokens_per_micro_batch,
            if config.train.gradient_checkpointing { ", checkpointed" } else { "" }
        ),
        table.trim_fmt(),
    ];
    for (memory, fit) in fits {
        let size = HumanBytes(*memory);
        lines.push(match fit {
            _ if plan.peak() <= *memory => format!("{size}: fits"),
            Some(fit) => format!(
                "{size}: does not fit; the most is rollout.max_rows={} train.max_tokens_per_micro_batch={}",
                fit.max_rows.min(config.rollout.max_rows),
                fit.max_tokens.min(config.train.max_tokens_per_micro_batch)
            ),
            None => format!("{size}: does not fit, not even one completion of full length"),
        });
    }
    lines.join("\n") + "\n"
}
