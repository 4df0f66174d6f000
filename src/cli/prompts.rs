//! `rft prompts`: list, show and render prior prompts.

use anyhow::Result;
use clap::Subcommand;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::output_format::OutputFormat;
use crate::cli::output;
use crate::model::source::ModelSource;
use crate::prompt::template::{ChatTemplate, SpecialStrings, encode_prompt};
use crate::prompt::{PriorPrompt, Role, controls, find, shipped, wordings};

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
    /// Name of a prior prompt, or a file; `reasoning@2` is its wording 2
    name: String,

    /// The question
    #[arg(long, value_name = "TEXT")]
    question: String,

    /// Model with the chat template and tokenizer to use: `tiny`, a folder, a GGUF file or a Hub id
    #[arg(long, default_value = "tiny")]
    model: String,

    /// Branch, tag or commit of a Hub model
    #[arg(long, default_value = "main")]
    revision: String,

    /// Chat template: `model` (the model's own), `plain`, or a Jinja file
    #[arg(long, default_value = "model")]
    template: String,

    /// Start the completion with the opening tag of the prior prompt
    #[arg(long)]
    prefill: bool,

    /// Print tokens instead of text, one per line: id, tab, token
    #[arg(long)]
    ids: bool,
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
    let prompt = find(&args.name)?;
    let source = ModelSource::open(&args.model, &args.revision)?;
    let config = source.tokenizer_config.as_deref();
    let tokens = config.map(SpecialStrings::from_config).transpose()?.unwrap_or_default();
    let own = ChatTemplate::from_model(source.chat_template.as_deref(), config)?;
    let template = ChatTemplate::choose(&args.template, own, tokens)?;
    let tokenizer = source.tokenizer()?;
    let messages = prompt.messages(&args.question);
    let prefill = prompt.tag.as_ref().filter(|_| args.prefill).map(|tag| format!("<{tag}>"));
    let rendered = encode_prompt(&tokenizer, &template, &messages, prefill.as_deref())?;

    if args.ids {
        for &id in &rendered.ids {
            // As a JSON string: a token may contain line breaks, or part of a character.
            println!("{id}\t{}", serde_json::to_string(&tokenizer.decode_with_specials(&[id]))?);
        }
    } else {
        println!("{}", rendered.text);
    }
    eprintln!("note: {} tokens", rendered.ids.len());
    if messages.iter().all(|message| message.role != "system")
        && let Some(line) = template.default_system_line()
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
