//! `rft prompts`: list, show and render prior prompts.

use anyhow::Result;
use clap::Subcommand;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::config_args::ConfigArgs;
use super::output_format::OutputFormat;
use crate::cli::output;
use crate::config;
use crate::model::source::ModelSource;
use crate::prompt::{Mixture, PriorPrompt, Role, WeightedPrompt, controls, find, shipped, wordings};
use crate::rollout::policy::Policy;

/// List, show and render prior prompts
#[derive(clap::Args, Debug)]
pub struct PromptsArgs {
    #[command(subcommand)]
    command: PromptsCommand,
}

#[derive(Subcommand, Debug)]
enum PromptsCommand {
    /// List the shipped prior prompts
    List(PromptsListArgs),
    /// Print a prior prompt as a file that you can edit
    Show(PromptsShowArgs),
    /// Print the rendered prompt for a question
    ///
    /// Without a name, the prior prompt is that of the configuration (`--config`, `--preset` or `--set`). If it has a mixture of
    /// prompts (`prompt.mix`), each of them is printed, below a line with its name and weight.
    Render(RenderArgs),
}

#[derive(clap::Args, Debug)]
struct PromptsListArgs {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

#[derive(clap::Args, Debug)]
struct PromptsShowArgs {
    /// Name of a prior prompt, or a file; `reasoning@2` is its wording 2
    name: String,
}

#[derive(clap::Args, Debug)]
struct RenderArgs {
    /// Name of a prior prompt, or a file; `reasoning@2` is its wording 2 [default: the configuration's]
    #[arg(required_unless_present_any = ["preset", "files", "sets"])]
    name: Option<String>,

    /// The question
    #[arg(long, value_name = "TEXT")]
    question: String,

    /// Model with the chat template and tokenizer to use: `tiny`, a folder, a GGUF file or a Hub id [default: tiny]
    #[arg(long)]
    model: Option<String>,

    /// Branch, tag or commit of a Hub model [default: main]
    #[arg(long)]
    revision: Option<String>,

    /// Chat template: `model` (the model's own), `plain`, or a Jinja file [default: model]
    #[arg(long)]
    template: Option<String>,

    /// Start the completion with the opening tag of the prior prompt
    #[arg(long)]
    prefill: bool,

    /// Print tokens instead of text, one per line: id, tab, token
    #[arg(long)]
    ids: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: PromptsArgs) -> Result<()> {
    match args.command {
        PromptsCommand::List(args) => list(args.output_format),
        PromptsCommand::Show(args) => {
            let prompt = find(&args.name)?;
            output::document(&as_file(&prompt)?);
            if let Some(warning) = prompt.warning() {
                eprintln!("warning: {warning}");
            }
            Ok(())
        }
        PromptsCommand::Render(args) => render(&args),
    }
}

fn list(format: OutputFormat) -> Result<()> {
    match format {
        OutputFormat::Text => {
            let mut table = Table::new();
            table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
            table.set_header(["name", "tag", "wordings", "description"]);
            for prompt in shipped().iter().chain(controls()) {
                let tag = prompt.tag.as_deref().map_or_else(|| "-".to_owned(), |tag| format!("<{tag}>"));
                let count = wordings(&prompt.name).map_or(1, <[PriorPrompt]>::len).to_string();
                table.add_row([&prompt.name, &tag, &count, &prompt.description]);
            }
            println!("{}", table.trim_fmt());
        }
        OutputFormat::Json => {
            let prompts = shipped().iter().chain(controls());
            output::json(&prompts.filter_map(|prompt| wordings(&prompt.name)).flatten().collect::<Vec<_>>());
        }
    }
    Ok(())
}

/// A prompt as the text of a file that it can be read from.
fn as_file(prompt: &PriorPrompt) -> Result<String> {
    /// The keys of a prompt file, in the order of the shipped files.
    #[derive(Serialize)]
    struct PromptFields<'a> {
        name: &'a str,
        paper_name: &'a str,
        description: &'a str,
        stems_from: &'a str,
        tag: Option<&'a str>,
        answer_tag: Option<&'a str>,
        role: Role,
        text: &'a str,
    }
    let PriorPrompt { name, paper_name, description, stems_from, tag, answer_tag, role, text, wording } = prompt;
    let file = PromptFields {
        name,
        paper_name,
        description,
        stems_from,
        tag: tag.as_deref(),
        answer_tag: answer_tag.as_deref(),
        role: *role,
        text,
    };
    Ok(format!("# wording: {wording}\n{}", toml::to_string_pretty(&file)?))
}

fn render(args: &RenderArgs) -> Result<()> {
    let mut layers = args.config.layers();
    layers.prompt_flag(args.name.as_deref());
    layers.flag("model.path", args.model.clone(), "--model");
    layers.flag("model.revision", args.revision.clone(), "--revision");
    layers.flag("prompt.template", args.template.clone(), "--template");
    layers.flag("prompt.prefill", args.prefill.then_some(true), "--prefill");
    let config = config::resolve(&layers)?.config;
    let mixture = Mixture::of_config(&config.prompt)?;
    let source = ModelSource::open(&config.model.path, &config.model.revision)?;
    let policy = Policy::load(&source, &config)?;
    let total: f64 = mixture.parts().iter().map(|part| part.weight).sum();
    for WeightedPrompt { prompt, weight } in mixture.parts() {
        if mixture.is_mixed() {
            println!("── {}, weight {weight} of {total}", prompt.name);
        }
        render_one(args, &policy, prompt, config.prompt.prefill)?;
    }
    Ok(())
}

fn render_one(args: &RenderArgs, policy: &Policy, prompt: &PriorPrompt, prefill: bool) -> Result<()> {
    let rendered = policy.render(prompt, &args.question, prefill)?;
    if args.ids {
        for &id in &rendered.ids {
            // As a JSON string: a token may contain line breaks, or part of a character.
            println!("{id}\t{}", serde_json::to_string(&policy.tokenizer.decode_with_specials(&[id]))?);
        }
    } else {
        println!("{}", rendered.text);
    }
    eprintln!("note: {} tokens", rendered.ids.len());
    if prompt.messages(&args.question).iter().all(|message| message.role != "system")
        && let Some(line) = policy.template.default_system_line()
    {
        eprintln!("note: the chat template adds its default system message: {line:?}");
    }
    if prompt.wording != "rft" {
        eprintln!("note: the wording is from {}", prompt.wording);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_prompt_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        for prompt in shipped().iter().chain(controls()) {
            std::fs::write(&path, as_file(prompt).unwrap()).unwrap();
            let read = find(path.to_str().unwrap()).unwrap();
            assert!(read.wording.starts_with("mine.toml "));
            assert_eq!(PriorPrompt { wording: "rft".to_owned(), ..read }, *prompt);
        }
    }
}
