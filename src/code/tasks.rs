//! Reads the tasks from evalplus's file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;

use super::CodeTask;
use crate::sandbox::PythonValue;

/// The tasks of the benchmark, in the order of the file.
#[derive(Debug)]
pub struct Tasks {
    pub tasks: Vec<CodeTask>,
}

impl Tasks {
    /// Reads a file of tasks, compressed if its name ends with `.gz`.
    ///
    /// # Errors
    /// A row is not a task (the error has its number), or there are no rows.
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
        ensure!(!tasks.is_empty(), "`{}` contains no tasks", path.display());
        Ok(Tasks { tasks })
    }
}

fn task(line: &str) -> Result<CodeTask> {
    let PythonValue::Dict(mut fields) = PythonValue::from_json(line)? else { bail!("expected an object") };
    let mut take = |name: &str| {
        let found = fields.iter_mut().find(|(key, _)| *key == PythonValue::str(name));
        found
            .map(|(_, value)| std::mem::replace(value, PythonValue::None))
            .with_context(|| format!("missing field `{name}`"))
    };
    let mut text = |name: &str| match take(name)? {
        PythonValue::Str(text) => Ok(text),
        other => bail!("`{name}`: expected text, found {other}"),
    };
    let (id, prompt) = (text("task_id")?, text("prompt")?);
    let (entry_point, canonical_solution) = (text("entry_point")?, text("canonical_solution")?);
    let mut inputs = |name: &str| {
        let PythonValue::List(inputs) = take(name)? else { bail!("`{name}`: expected a list") };
        let arguments = |input| match input {
            PythonValue::List(arguments) => Ok(arguments),
            other => bail!("`{name}`: expected a list of arguments, found {other}"),
        };
        inputs.into_iter().map(arguments).collect::<Result<Vec<_>>>()
    };
    let (base, plus) = (inputs("base_input")?, inputs("plus_input")?);
    let tolerance = take("atol")?.number().context("`atol`: expected a number")?;
    Ok(CodeTask { id, prompt, entry_point, canonical_solution, base, plus, tolerance, reference: OnceLock::new() })
}
