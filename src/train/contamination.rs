//! The training questions of a run and their overlap with benchmarks.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::config::RunConfig;
use crate::data::decontaminate::Contamination;
use crate::data::{self, Fetch, LoadedData, Question};
use crate::disk::atomic;
use crate::eval::bench;
use crate::run::RunDir;

/// Loads the training questions and compares them with the benchmarks that are at hand. Where the configuration asks for it,
/// those that overlap are left out first, and `max_questions` and the held-out ones are taken of the others: a run of 10,000
/// questions stays one of 10,000.
///
/// `recorded` is what the run found when it started. It decides, since the same questions have to be gone on with, and other
/// benchmarks may be at hand by now.
pub fn load(
    config: &RunConfig,
    held_out: usize,
    fetch: Fetch,
    data_dir: Option<&Path>,
    recorded: Option<Contamination>,
) -> Result<(LoadedData, Contamination)> {
    let (section, seed) = (&config.data, config.train.seed);
    if let Some(recorded) = recorded {
        let mut screen = |questions: Vec<Question>| {
            let before = questions.len();
            let questions = recorded.clean(questions);
            let removed = before - questions.len();
            let changed = "`data.path` is not the data that the run was started with";
            ensure!(removed == recorded.removed, "{changed}: {removed} of {} removed rows are in it", recorded.removed);
            Ok(questions)
        };
        let loaded = data::load_screened(section, seed, held_out, fetch, &mut screen)?;
        return Ok((loaded, recorded));
    }
    let (wanted, mut not_checked) = bench::comparable(bench::all(), &section.path);
    let at_hand = bench::at_hand(&wanted, data_dir);
    not_checked.extend(at_hand.missing);
    let mut found = None;
    let mut screen = |questions: Vec<Question>| {
        if !section.decontaminate {
            return Ok(questions);
        }
        let contamination = found.insert(Contamination::of(&questions, &at_hand.benchmarks, true));
        let clean = contamination.clean(questions);
        ensure!(
            !clean.is_empty(),
            "every question of `{}` overlaps with a benchmark\nhint: train on other data, or without `data.decontaminate`",
            section.path
        );
        Ok(clean)
    };
    let mut loaded = data::load_screened(section, seed, held_out, fetch, &mut screen)?;
    loaded.warnings.extend(at_hand.warnings);
    let contamination = found.unwrap_or_else(|| Contamination::of(&loaded.questions, &at_hand.benchmarks, false));
    Ok((loaded, Contamination { not_checked, ..contamination }))
}

/// What the run found when it started; `None` where it was started by a version that did not look.
///
/// # Errors
/// A damaged file. A configuration that asks for another treatment of the data than the one that the run was started with: its
/// questions would be others.
pub fn recorded(run: &RunDir, config: &RunConfig) -> Result<Option<Contamination>> {
    let path = run.contamination();
    let recorded: Option<Contamination> = if path.exists() {
        let text = std::fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        Some(serde_json::from_slice(&text).with_context(|| format!("parse `{}`", path.display()))?)
    } else {
        None
    };
    let before = recorded.as_ref().is_some_and(|it| it.decontaminated);
    ensure!(
        before == config.data.decontaminate,
        "`{}` was started with `data.decontaminate = {before}`, and its config.toml says otherwise\n\
         hint: a run goes on with the questions it began with; start a new one",
        run.path().display()
    );
    Ok(recorded)
}

/// Writes `contamination.json`.
pub fn write(contamination: &Contamination, run: &RunDir) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(contamination).context("encode the overlap with benchmarks")?;
    text.push(b'\n');
    atomic::write(&run.contamination(), &text)
}
