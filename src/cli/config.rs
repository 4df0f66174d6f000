//! `rft config`: show, check and list configurations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::config_args::ConfigArgs;
use super::output_format::OutputFormat;
use crate::cli::output;
use crate::config::{self, ConfigLayers, PRESETS};

/// Show, check and list configurations
#[derive(clap::Args, Debug)]
pub struct ConfigCommandArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print the resolved configuration of a run, as TOML that repeats it
    Show(ConfigShowArgs),
    /// Check configuration files; environment variables are ignored
    Check(CheckArgs),
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
struct ConfigListArgs {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: ConfigCommandArgs) -> Result<()> {
    match args.command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Check(args) => check(&args.files),
        ConfigCommand::List(args) => list(args.output_format),
    }
}

fn show(args: &ConfigShowArgs) -> Result<()> {
    let resolved = config::resolve(&args.config.layers())?;
    match args.output_format {
        ShowFormat::Toml => {
            print!("{}", config::to_toml(&resolved.config, args.origin.then_some(&resolved.origins)));
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
