//! The training questions of a run and their overlap with benchmarks.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::config::RunConfig;
use crate::data::decontaminate::Contamination;
use crate::data::{self, Fetch, HoldOut, LoadedData, Question};
use crate::disk::atomic;
use crate::eval::bench;
use crate::run::RunDir;

/// Loads the training questions and compares them with the benchmarks on this machine. If the configuration requires it,
/// overlapping questions are removed first, and `max_questions` and the held-out questions are taken from the others: a run
/// with 10,000 questions keeps 10,000.
///
/// A run that holds out questions for the choice of a setting reads no benchmark, unless `data.decontaminate` requires it.
///
/// `recorded` is the result from the start of the run. It takes precedence, because a resumed run has to use the same
/// questions, and other benchmarks may be available by now.
pub fn load(
    config: &RunConfig,
    held_out: HoldOut,
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
            let changed = "`data.path` has changed since the run was started";
            ensure!(removed == recorded.removed, "{changed}: found {removed} of {} removed rows", recorded.removed);
            Ok(questions)
        };
        let loaded = data::load_screened(section, seed, held_out, fetch, &mut screen)?;
        return Ok((loaded, recorded));
    }
    let (mut wanted, mut not_checked) = bench::comparable(bench::all(), &section.path);
    if matches!(held_out, HoldOut::Tuning(_)) && !section.decontaminate {
        let reason = "the run serves the choice of a setting, which no benchmark may influence";
        not_checked.extend(wanted.drain(..).map(|it| (it.name, reason.to_owned())));
    }
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
            "every question of `{}` overlaps with a benchmark\nhint: use other data, or set `data.decontaminate` to false",
            section.path
        );
        Ok(clean)
    };
    let mut loaded = data::load_screened(section, seed, held_out, fetch, &mut screen)?;
    loaded.warnings.extend(at_hand.warnings);
    let contamination = found.unwrap_or_else(|| Contamination::of(&loaded.questions, &at_hand.benchmarks, false));
    Ok((loaded, Contamination { not_checked, ..contamination }))
}

/// The result from the start of the run; `None` if the run was started by a version without this check.
///
/// # Errors
/// A damaged file, or a configuration with a different setting of `data.decontaminate` than at the start of the run: its
/// questions would be different ones.
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
        "`{}` was started with `data.decontaminate = {before}`, but its config.toml has another value\n\
         hint: restore the value, or start a new run: a resumed run keeps its questions",
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
