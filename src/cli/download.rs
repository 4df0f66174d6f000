//! Asks before a model is downloaded, and shows the progress of the download.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Result, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::config::RunConfig;
use crate::model::source::ModelSource;

/// Downloads the configured model if it is not in the cache. Asks first, unless `yes` is set.
pub fn confirm(config: &RunConfig, yes: bool) -> Result<()> {
    confirm_model(&config.model.path, &config.model.revision, yes)
}

/// As [`confirm`], for one model.
pub fn confirm_model(model: &str, revision: &str, yes: bool) -> Result<()> {
    let Some(plan) = ModelSource::plan(model, revision)? else { return Ok(()) };
    if plan.bytes() == 0 {
        return plan.fetch(&mut |_| {}).map(|_| ());
    }
    let parameters = ModelSource::peek(model, revision)?.parameters();
    eprintln!(
        "`{model}` is not in the cache (download: {} to {}; memory for its weights: {})",
        HumanBytes(plan.bytes()),
        plan.folder().display(),
        HumanBytes(4 * parameters as u64)
    );
    if !yes && !agreed()? {
        bail!("download declined");
    }
    let template = "downloading {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    let bar = ProgressBar::new(plan.bytes()).with_style(ProgressStyle::with_template(template)?);
    plan.fetch(&mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    Ok(())
}

fn agreed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("cannot ask for confirmation: stdin is not a terminal\nhint: pass --yes to download without asking");
    }
    eprint!("download? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
