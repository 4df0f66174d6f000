//! `rft config`: show, check and list configurations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::config_args::ConfigArgs;
use super::output_format::OutputFormat;
use crate::cli::output;
use crate::config::{self, ConfigLayers, KeyReference, PRESETS};

/// Show, check and list configurations
#[derive(clap::Args, Debug)]
pub struct ConfigCommandArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print the resolved configuration of a run, as commented TOML that repeats it
    Show(ConfigShowArgs),
    /// Check configuration files; environment variables are ignored
    Check(CheckArgs),
    /// Explain keys: type, default, meaning, allowed values, TRL's name
    Explain(ExplainArgs),
    /// Print the JSON schema of a configuration file, for editors
    Schema,
    /// List the presets
    List(ConfigListArgs),
}

#[derive(clap::Args, Debug)]
struct ConfigShowArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Print where each value came from
    #[arg(long)]
    origin: bool,

    /// Leave out the comments with the meaning of each key
    #[arg(long)]
    no_comments: bool,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "toml")]
    output_format: ShowFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShowFormat {
    Toml,
    Json,
}

#[derive(clap::Args, Debug)]
struct CheckArgs {
    /// Configuration files; each is checked separately, on top of its preset
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft config explain train.learning_rate
  rft config explain beta grpo.epsilon
  rft config explain")]
struct ExplainArgs {
    /// Keys; the last part is enough if it is unique. Without keys, all are explained
    #[arg(value_name = "KEY")]
    keys: Vec<String>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

#[derive(clap::Args, Debug)]
struct ConfigListArgs {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: ConfigCommandArgs) -> Result<()> {
    match args.command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Check(args) => check(&args.files),
        ConfigCommand::Explain(args) => explain(&args),
        ConfigCommand::Schema => {
            output::json(&config::file_schema());
            Ok(())
        }
        ConfigCommand::List(args) => list(args.output_format),
    }
}

fn show(args: &ConfigShowArgs) -> Result<()> {
    let resolved = config::resolve(&args.config.layers())?;
    match args.output_format {
        ShowFormat::Toml => {
            let origins = args.origin.then_some(&resolved.origins);
            let text = if args.no_comments { config::to_toml } else { config::to_explained_toml };
            output::document(&text(&resolved.config, origins));
        }
        ShowFormat::Json => {
            let config = config::to_json(&resolved.config);
            let origins = || resolved.origins.iter().map(|(key, origin)| (key, origin.to_string()));
            let output = match args.origin {
                true => json!({ "config": config, "origins": origins().collect::<BTreeMap<_, _>>() }),
                false => config,
            };
            output::json(&output);
        }
    }
    Ok(())
}

fn explain(args: &ExplainArgs) -> Result<()> {
    let find = |key: &String| {
        config::find_key(key).map_err(|nearest| {
            let hint = nearest.map_or_else(
                || "`rft config explain` prints all keys".to_owned(),
                |nearest| format!("did you mean `{nearest}`?"),
            );
            anyhow!("unknown key `{key}`\nhint: {hint}")
        })
    };
    let keys: Vec<KeyReference> = match args.keys.as_slice() {
        [] => config::reference(),
        keys => keys.iter().map(find).collect::<Result<_>>()?,
    };
    match args.output_format {
        OutputFormat::Text => println!("{}", keys.iter().map(explained).collect::<Vec<_>>().join("\n\n")),
        OutputFormat::Json => output::json(&keys),
    }
    Ok(())
}

/// A key with its meaning, and what else is known about it.
fn explained(it: &KeyReference) -> String {
    let mut text = format!("{} ({}), default {}\n  {}", it.key, it.kind, it.default, it.meaning);
    if let Some(allowed) = &it.allowed {
        text += &format!("\n  allowed: {allowed}");
    }
    if let Some(trl) = it.trl {
        text += &format!("\n  in TRL: {trl}");
    }
    text
}

/// Checks every file before failing, so that one call reports all errors.
fn check(files: &[PathBuf]) -> Result<()> {
    let mut errors = Vec::new();
    for file in files {
        match config::resolve(&ConfigLayers { files: vec![file.clone()], ..ConfigLayers::default() }) {
            Ok(_) => println!("{}: ok", file.display()),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("\n")) }
}

fn list(format: OutputFormat) -> Result<()> {
    match format {
        OutputFormat::Text => {
            for preset in PRESETS {
                println!("{}\n  {}\n  {}", preset.name, preset.description(), preset.command());
            }
        }
        OutputFormat::Json => {
            let presets = PRESETS
                .iter()
                .map(|it| json!({ "name": it.name, "description": it.description(), "command": it.command() }));
            output::json(&serde_json::Value::from_iter(presets));
        }
    }
    Ok(())
}
