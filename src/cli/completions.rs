//! `rft completions`: completions for a shell, and man pages.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

use crate::cli::output;
use crate::disk::atomic::write_error;
use crate::disk::files;

/// Print completions for a shell, or write man pages
///
/// For bash: `rft completions bash > ~/.local/share/bash-completion/completions/rft`. For zsh, a file named `_rft` in a folder
/// of `$fpath`. For fish: `rft completions fish > ~/.config/fish/completions/rft.fish`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft completions bash
  rft completions --man ~/.local/share/man/man1")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(required_unless_present = "man")]
    shell: Option<Shell>,

    /// Write a man page for each command to this folder
    #[arg(long, value_name = "DIR", conflicts_with = "shell")]
    man: Option<PathBuf>,
}

/// `command` is the definition of the whole command line.
pub fn run(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    if let Some(shell) = args.shell {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "rft", &mut script);
        output::document(&String::from_utf8_lossy(&script));
    }
    if let Some(folder) = &args.man {
        files::create_dir_all(folder).map_err(|error| write_error(folder, &error))?;
        clap_mangen::generate_to(command, folder).with_context(|| format!("write `{}`", folder.display()))?;
    }
    Ok(())
}
