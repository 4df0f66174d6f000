//! Reads the tasks from evalplus's file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Task;
use crate::sandbox::Value;

/// Names that the file goes by: ours, and that of evalplus's release.
const NAMES: [&str; 2] = ["humanevalplus-inputs.jsonl", "HumanEvalPlus.jsonl"];

/// The tasks of the benchmark, in the order of the file.
#[derive(Debug)]
pub struct Tasks {
    pub tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Row<'a> {
    task_id: String,
    prompt: String,
    entry_point: String,
    canonical_solution: String,
    #[serde(borrow)]
    base_input: Vec<&'a RawValue>,
    #[serde(borrow)]
    plus_input: Vec<&'a RawValue>,
    atol: f64,
}

impl Tasks {
    /// Reads the tasks in a folder, plain or compressed.
    ///
    /// # Errors
    /// No such file there; a row that is none, with its number.
    pub fn load(folder: &Path) -> Result<Tasks> {
        let names = NAMES.iter().flat_map(|name| [(*name).to_owned(), format!("{name}.gz")]);
        match names.map(|name| folder.join(name)).find(|it| it.is_file()) {
            Some(path) => Tasks::read(&path),
            None => bail!(
                "there is no HumanEval+ in `{}`\n\
                 hint: put `HumanEvalPlus.jsonl.gz` of evalplus's release v0.1.10 there (or as `{}.gz`)",
                folder.display(),
                NAMES[0]
            ),
        }
    }

    /// Reads a file of tasks, compressed if its name ends with `.gz`.
    ///
    /// # Errors
    /// As for [`Tasks::load`].
    pub fn read(path: &Path) -> Result<Tasks> {
        let open = || -> Result<Box<dyn Read>> {
            let file = File::open(path)?;
            let is_compressed = path.extension().is_some_and(|it| it == "gz");
            Ok(if is_compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
        };
        let reader = BufReader::new(open().with_context(|| format!("open `{}`", path.display()))?);
        let mut tasks = Vec::new();
        for (number, line) in (1..).zip(reader.lines()) {
            let line = line.with_context(|| format!("read `{}`", path.display()))?;
            if !line.trim().is_empty() {
                tasks.push(task(&line).with_context(|| format!("`{}` line {number}", path.display()))?);
            }
        }
        ensure!(!tasks.is_empty(), "`{}` holds no tasks", path.display());
        Ok(Tasks { tasks })
    }
}

fn task(line: &str) -> Result<Task> {
    let row: Row = serde_json::from_str(line)?;
    let inputs = |rows: &[&RawValue]| {
        let arguments = |row: &&RawValue| match Value::from_json(row)? {
            Value::List(arguments) => Ok(arguments),
            other => bail!("an input is a list of arguments, not {other}"),
        };
        rows.iter().map(arguments).collect::<Result<Vec<_>>>()
    };
    Ok(Task {
        base: inputs(&row.base_input)?,
        plus: inputs(&row.plus_input)?,
        id: row.task_id,
        prompt: row.prompt,
        entry_point: row.entry_point,
        canonical_solution: row.canonical_solution,
        tolerance: row.atol,
        reference: OnceLock::new(),
    })
}
