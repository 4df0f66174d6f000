//! Which checkpoints of a run are kept, the best of them, and the space that they need.

use std::path::Path;

use anyhow::Result;
use indicatif::HumanBytes;

use super::evaluate;
use crate::config::RunConfig;
use crate::disk::atomic::{with_suffix, write_error};
use crate::disk::{files, space};
use crate::model::lora::Adapter;
use crate::run::RunDir;
use crate::stats::Proportion;

/// A checkpoint that is being deleted has this suffix, so that a part of it is never mistaken for a damaged one.
const DELETED: &str = ".deleted";

/// Bytes of a checkpoint: the adapter, both moments of the optimizer, and the names and shapes of their tensors.
pub fn bytes(adapter: &Adapter) -> u64 {
    let values = 3 * adapter.params.len() * size_of::<f32>();
    (values + 3 * 256 * adapter.slots.len() + (64 << 10)) as u64
}

/// Checks that the checkpoints of the steps after `done` fit on the disk. Returns a warning if the log of completions might not.
///
/// # Errors
/// They do not fit.
pub fn check_space(config: &RunConfig, adapter: &Adapter, steps: usize, done: usize) -> Result<Option<String>> {
    let train = &config.train;
    let left = steps.saturating_sub(done);
    let saves = left.checked_div(train.save_steps).unwrap_or(0) + 1;
    // The limit, the best one, and the one that is being written.
    let kept = train.save_total_limit.map_or(saves, |limit| saves.min(limit + 1)) + 1;
    let needed = bytes(adapter).saturating_mul(kept as u64 + 1);
    let folder = Path::new(&config.run.dir);
    let remedy =
        "free some space, use another disk with `run.dir`, raise `train.save_steps` or set `train.save_total_limit`";
    space::require(folder, needed, &format!("a run of {left} steps with {saves} checkpoints"), remedy)?;

    // A token has about four bytes, and a completion is often half as long as it may be.
    let completion = 2 * config.rollout.max_completion_length + 256;
    let log = (left * config.rollout.completions_per_step()).saturating_mul(completion) as u64;
    let free = space::free(folder).unwrap_or(u64::MAX);
    Ok((free < needed.saturating_add(log)).then(|| {
        format!(
            "the checkpoints and completions of this run may need {}, but only {} are free at `{}`",
            HumanBytes(needed.saturating_add(log)),
            HumanBytes(free),
            folder.display()
        )
    }))
}

/// Deletes all checkpoints except the newest `limit` and the best; `None` keeps all.
pub fn prune(run: &RunDir, limit: Option<usize>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let steps = run.checkpoints()?;
    let older = &steps[..steps.len().saturating_sub(limit)];
    let best = best(run, &steps)?.map(|(step, _)| step);
    for step in older.iter().copied().filter(|step| Some(*step) != best) {
        delete(&run.checkpoint(step))?;
    }
    Ok(())
}

fn delete(checkpoint: &Path) -> Result<()> {
    let deleted = with_suffix(checkpoint, DELETED);
    files::rename(checkpoint, &deleted).map_err(|error| write_error(checkpoint, &error))?;
    files::remove_dir_all(&deleted).map_err(|error| write_error(&deleted, &error))
}

/// The step among `steps` with the highest held-out accuracy (one sample at temperature 1), the latest if there are several;
/// `None` if none of them was evaluated.
pub fn best(run: &RunDir, steps: &[usize]) -> Result<Option<(usize, Proportion)>> {
    let mut best: Option<(usize, Proportion)> = None;
    for &step in steps {
        let Some(evaluation) = evaluate::read(run, step, false)? else { continue };
        let accuracy = evaluation.sampled.accuracy;
        if best.as_ref().is_none_or(|(_, best)| accuracy.value() >= best.value()) {
            best = Some((step, accuracy));
        }
    }
    Ok(best)
}
