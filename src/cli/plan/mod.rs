//! `rft plan`: estimates of a run: GPU memory, before anything is loaded; time and cost, from a short measurement.

mod costs;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanBytes;
use serde_json::json;

use super::config_args::ConfigArgs;
use super::output_format::OutputFormat;
use crate::cli::output;
use crate::config::{self, RunConfig};
use crate::device::memory::plan::{Fit, MemoryPlan, parse_memory};
use crate::model::config::{ModelConfig, known_shape};
use crate::model::source::ModelSource;
use crate::plan::measure::{PlanMeasurement, measure};

/// Estimate a run's GPU memory, time and cost
///
/// Adds up, phase by phase, the memory that a CUDA run with this configuration allocates. For each GPU memory size, prints
/// whether the run fits and, if not, the largest batch that does. Loads and downloads only the model's configuration.
///
/// With `--measure`, loads the model, trains some steps, evaluates some questions, and estimates the tokens, the hours and
/// (with a price) the cost of the whole run from them. The measurement leaves no files behind.
///
/// With `--costs`, counts the launches, bytes and operations of a decode step and of a micro-batch, by kernel and matrix
/// product, and estimates their time on an H200. This needs no GPU; docs/gpu.md explains the table.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft plan --preset qwen2.5-7b
  rft plan --preset qwen2.5-7b --device-memory 80GiB --set rollout.max_rows=128
  rft plan --preset qwen2.5-7b --costs
  rft plan --preset qwen2.5-7b --measure --gpu-hour-price 2.5
  rft plan --measure 20 --device cpu")]
pub struct PlanArgs {
    /// GPU memory size, such as 80GiB [default: 24, 48, 80 and 141 GiB]
    #[arg(long, value_name = "SIZE")]
    device_memory: Vec<String>,

    /// Estimate the time of a decode step and of a micro-batch on an H200, by kernel
    #[arg(long)]
    costs: bool,

    /// Estimate time and cost from a measurement of about this many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60", value_parser = positive)]
    measure: Option<f64>,

    /// Price of the machine per hour, in any currency
    #[arg(long, value_name = "PRICE", requires = "measure", value_parser = positive)]
    gpu_hour_price: Option<f64>,

    /// Device to measure: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE", requires = "measure")]
    device: Option<String>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,

    #[command(flatten)]
    config: ConfigArgs,
}

/// Memory sizes of common GPUs: RTX 4090, L40S, H100, H200.
const USUAL: [u64; 4] = [24 << 30, 48 << 30, 80 << 30, 141 << 30];

pub fn run(args: PlanArgs) -> Result<()> {
    let mut layers = args.config.layers();
    layers
        .flags
        .extend(args.device.map(|device| ("run.device".to_owned(), toml::Value::String(device), "--device".into())));
    let config = config::resolve(&layers)?.config;
    let model = shape(&config)?;
    let sizes = match args.device_memory.is_empty() {
        true => USUAL.to_vec(),
        false => args.device_memory.iter().map(|text| parse_memory(text)).collect::<Result<_>>()?,
    };
    let plan = MemoryPlan::of(&model, &config)?;
    let fits: Vec<(u64, Option<Fit>)> =
        sizes.into_iter().map(|size| Ok((size, Fit::within(size, &model, &config)?))).collect::<Result<_>>()?;
    let costs = args.costs.then(|| crate::plan::costs::of(&model, &config)).transpose()?;
    let measured = match args.measure {
        Some(seconds) => {
            super::download::confirm(&config, false)?;
            eprintln!("measuring; this trains at least two steps, even if they take longer than requested");
            Some(measure(&config, seconds, args.gpu_hour_price)?)
        }
        None => None,
    };
    match args.output_format {
        OutputFormat::Text => {
            print!("{}", text(&config, &plan, &fits));
            if let Some(costs) = &costs {
                print!("\n{}", costs::text(costs));
            }
            if let Some(measured) = &measured {
                print!("{}", forecast(measured));
            }
        }
        OutputFormat::Json => {
            let fits = fits
                .iter()
                .map(|(memory, fit)| json!({"memory": memory, "fits": plan.peak() <= *memory, "largest": fit}));
            let fits: Vec<_> = fits.collect();
            let mut whole = json!({"peak": plan.peak(), "bytes": plan, "device_memory": fits});
            if let Some(costs) = costs {
                whole["costs"] = serde_json::to_value(costs)?;
            }
            if let Some(measured) = measured {
                whole["measured"] = serde_json::to_value(measured)?;
            }
            output::json(&whole);
        }
    }
    Ok(())
}

/// The memory plan of `config` as text, for GPUs of the usual sizes.
pub(super) fn memory(config: &RunConfig) -> Result<String> {
    let model = shape(config)?;
    let fits = USUAL.map(|size| Ok((size, Fit::within(size, &model, config)?)));
    Ok(text(config, &MemoryPlan::of(&model, config)?, &fits.into_iter().collect::<Result<Vec<_>>>()?))
}

/// The shape of the configured model, without loading its weights if possible.
fn shape(config: &RunConfig) -> Result<ModelConfig> {
    let path = &config.model.path;
    match known_shape(path) {
        Some(shape) => Ok(shape),
        None if ModelSource::plan(path, &config.model.revision)?.is_some() => {
            ModelSource::peek(path, &config.model.revision)
        }
        None => Ok(ModelSource::open(path, &config.model.revision).context("read the model's shape")?.config),
    }
}

/// A number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// The measurement, and the estimate for the whole run.
fn forecast(measured: &PlanMeasurement) -> String {
    let PlanMeasurement { device, steps, evaluation, forecast, .. } = measured;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let training = format!("training, {} steps", forecast.steps);
    let evaluated = format!("evaluation, {} completions", forecast.completions);
    for (what, cost) in
        [(training, forecast.training), (evaluated, forecast.evaluation), ("total".to_owned(), forecast.whole)]
    {
        let tokens = match cost.tokens / 1e6 {
            millions if millions < 0.1 => format!("{:.1} k tokens", 1e3 * millions),
            millions => format!("{millions:.1} M tokens"),
        };
        let time =
            if cost.hours < 0.1 { format!("{:.1} min", 60.0 * cost.hours) } else { format!("{:.1} h", cost.hours) };
        table.add_row([what, tokens, time, cost.money.map(|money| format!("cost {money:.2}")).unwrap_or_default()]);
    }
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!(
        "measured on {device}: {} steps of {:.1} s each, {} evaluation completions in {:.1} s\n{}\n\
         this assumes that completions keep their current length\n",
        steps.units,
        steps.seconds / steps.units as f64,
        evaluation.units,
        evaluation.seconds,
        table.trim_fmt()
    )
}

fn text(config: &RunConfig, plan: &MemoryPlan, fits: &[(u64, Option<Fit>)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let (rollout, training) = (&plan.rollout, &plan.training);
    for (what, bytes) in [
        ("CUDA context and reserve", plan.context),
        ("weights, bf16", plan.weights),
        ("adapter, gradient, optimizer", plan.adapter),
        ("rollout: KV cache of prompts", rollout.prompt_cache),
        ("rollout: KV cache of completions", rollout.completion_cache),
        ("rollout: work buffers, logits", rollout.working),
        ("training: saved for the backward pass", training.kept),
        ("training: work buffers", training.working),
        ("training: the head, separate phase", training.head),
        ("peak", plan.peak()),
    ] {
        table.add_row([what.to_owned(), HumanBytes(bytes).to_string()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec![
        format!(
            "{}: {} completions at a time, prompts of up to {} tokens, completions of up to {}, micro-batches of {}{}",
            config.model.path,
            config.rollout.max_rows.min(config.rollout.completions_per_step()),
            config.rollout.max_prompt_length,
            config.rollout.max_completion_length,
            config.train.max_tokens_per_micro_batch,
            if config.train.gradient_checkpointing { ", activation checkpointing" } else { "" }
        ),
        table.trim_fmt(),
    ];
    for (memory, fit) in fits {
        let size = HumanBytes(*memory);
        lines.push(match fit {
            _ if plan.peak() <= *memory => format!("{size}: fits"),
            Some(fit) => format!(
                "{size}: does not fit; largest that fits: rollout.max_rows={} train.max_tokens_per_micro_batch={}",
                fit.max_rows.min(config.rollout.max_rows),
                fit.max_tokens.min(config.train.max_tokens_per_micro_batch)
            ),
            None => format!("{size}: does not fit, even with a single completion of maximum length"),
        });
    }
    lines.join("\n") + "\n"
}
