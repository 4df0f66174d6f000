//! The first difference between two runs that should be equal.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::disk::hash::sha256;
use crate::model::peft::WEIGHTS;
use crate::model::safetensors::SafetensorsFile;
use crate::run::dir::{GREEDY, SAMPLED};
use crate::run::metrics::{self, MetricsRecord};
use crate::run::{GroupRecord, RunDir};
use crate::train::state::{ADAPTER, COUNTERS, OPTIMIZER};

/// A part of two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedPart {
    pub name: &'static str,
    /// SHA-256 of the part of the first run, without times and memory.
    pub sha256: String,
    /// What it contains.
    pub content: String,
    /// The first difference; `None` if the two are equal.
    pub difference: Option<String>,
}

/// Metrics of time and memory, which differ between equal runs.
const MEASURED: [&str; 4] = ["step_time", "rollout_time", "tokens_per_second", "peak_memory_gib"];

/// Compares two runs of `steps` steps, in the order in which a difference arises: completions, metrics, counters, optimizer
/// moments, adapter, evaluations.
///
/// # Errors
/// A file is missing or cannot be read.
pub fn compare(first: &RunDir, second: &RunDir, steps: usize) -> Result<Vec<ComparedPart>> {
    let checkpoint = |name: &str| [first, second].map(|run| run.checkpoint(steps).join(name));
    let [optimizer, other_optimizer] = checkpoint(OPTIMIZER);
    let [adapter, other_adapter] = checkpoint(ADAPTER).map(|folder| folder.join(WEIGHTS));
    let mut parts = vec![
        groups("completions", &first.completions(), &second.completions())?,
        metric_lines(first, second)?,
        counters(&checkpoint(COUNTERS))?,
        tensors("optimizer moments", &optimizer, &other_optimizer)?,
        tensors("adapter", &adapter, &other_adapter)?,
        tensors("final adapter", &first.adapter().join(WEIGHTS), &second.adapter().join(WEIGHTS))?,
    ];
    for (name, kind) in [("evaluation, sampled", SAMPLED), ("evaluation, greedy", GREEDY)] {
        if first.evaluation(steps, kind).is_file() {
            parts.push(groups(name, &first.evaluation(steps, kind), &second.evaluation(steps, kind))?);
        }
    }
    Ok(parts)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read `{}`", path.display()))
}

/// Two files with a group per line.
fn groups(name: &'static str, first: &Path, second: &Path) -> Result<ComparedPart> {
    let bytes = [read(first)?, read(second)?];
    let lines = bytes.each_ref().map(|bytes| bytes.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>());
    let count = lines[0].len().max(lines[1].len());
    let differs = (0..count).find(|&at| lines[0].get(at) != lines[1].get(at));
    let describe = |at: usize| -> Result<String> {
        let groups = lines.each_ref().map(|lines| lines.get(at));
        let [Some(first), Some(second)] = groups else {
            return Ok(format!("{} groups and {} groups", lines[0].len(), lines[1].len()));
        };
        let groups: [GroupRecord; 2] = [serde_json::from_slice(first)?, serde_json::from_slice(second)?];
        let GroupRecord { step, question_id, .. } = &groups[0];
        let place = format!("line {}, step {step}, question {question_id}", at + 1);
        let completions = groups[0].completions.iter().zip(&groups[1].completions);
        let text = completions.enumerate().find(|(_, (a, b))| a != b).map(|(number, (a, b))| {
            let what = if a.text == b.text { "rewards or advantages" } else { "text" };
            format!("completion {}: the {what} differ", number + 1)
        });
        Ok(format!("{place}: {}", text.unwrap_or_else(|| "the questions differ".to_owned())))
    };
    Ok(ComparedPart {
        name,
        sha256: sha256(&bytes[0]),
        content: format!("{} groups", lines[0].len()),
        difference: differs.map(describe).transpose()?,
    })
}

fn metric_lines(first: &RunDir, second: &RunDir) -> Result<ComparedPart> {
    let repeatable = |run: &RunDir| -> Result<Vec<MetricsRecord>> {
        let mut lines = metrics::read(&run.metrics())?;
        lines.iter_mut().for_each(|line| MEASURED.iter().for_each(|name| _ = line.values.remove(*name)));
        Ok(lines)
    };
    let (first, second) = (repeatable(first)?, repeatable(second)?);
    let value = |value: Option<&Option<f64>>| {
        value.map_or("missing".to_owned(), |it| it.map_or("null".into(), |it| it.to_string()))
    };
    let difference = first.iter().zip(&second).find(|(a, b)| a != b).map(|(a, b)| {
        let names = a.values.keys().chain(b.values.keys());
        let name = names.into_iter().find(|name| a.values.get(*name) != b.values.get(*name));
        name.map_or(format!("step {} and step {}", a.step, b.step), |name| {
            format!("step {}: {name} is {} and {}", a.step, value(a.values.get(name)), value(b.values.get(name)))
        })
    });
    let lengths = (first.len() != second.len()).then(|| format!("{} lines and {} lines", first.len(), second.len()));
    Ok(ComparedPart {
        name: "metrics",
        sha256: sha256(&serde_json::to_vec(&first)?),
        content: format!("{} lines, without times and memory", first.len()),
        difference: difference.or(lengths),
    })
}

fn counters(paths: &[std::path::PathBuf; 2]) -> Result<ComparedPart> {
    let bytes = [read(&paths[0])?, read(&paths[1])?];
    let parse = |at: usize| -> Result<serde_json::Map<String, Value>> {
        serde_json::from_slice(&bytes[at]).with_context(|| format!("parse `{}`", paths[at].display()))
    };
    let (first, second) = (parse(0)?, parse(1)?);
    let differs = first.iter().find(|(name, value)| second.get(*name) != Some(value));
    let shown = |value: Option<&Value>| value.map_or("missing".to_owned(), Value::to_string);
    Ok(ComparedPart {
        name: "counters",
        sha256: sha256(&bytes[0]),
        content: format!("{} values", first.len()),
        difference: differs.map(|(name, value)| format!("{name} is {value} and {}", shown(second.get(name)))),
    })
}

/// Two safetensors files, bit by bit.
fn tensors(name: &'static str, first: &Path, second: &Path) -> Result<ComparedPart> {
    let (first, second) = (SafetensorsFile::open(first)?, SafetensorsFile::open(second)?);
    let (mut hash, mut values, mut difference) = (Sha256::new(), 0, None);
    for tensor in first.tensors().keys() {
        let a = first.read(tensor)?;
        hash.update(tensor);
        a.iter().for_each(|value| hash.update(value.to_le_bytes()));
        values += a.len();
        if difference.is_some() {
            continue;
        }
        if !second.tensors().contains_key(tensor) {
            difference = Some(format!("`{tensor}` is missing in the second run"));
            continue;
        }
        let b = second.read(tensor)?;
        let differs = a.iter().zip(&b).position(|(a, b)| a.to_bits() != b.to_bits());
        difference = match differs {
            Some(at) => Some(format!("`{tensor}`, value {at}: {:e} and {:e}", a[at], b[at])),
            None if a.len() != b.len() => Some(format!("`{tensor}`: {} values and {} values", a.len(), b.len())),
            None => None,
        };
    }
    Ok(ComparedPart { name, sha256: hex::encode(hash.finalize()), content: format!("{values} numbers"), difference })
}
