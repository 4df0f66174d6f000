//! Reads completions to classify: from a training run, an evaluation, or any JSON Lines file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::prompt::Mixture;

/// A completion and its prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Identity of the question.
    pub question_id: String,
    pub question: String,
    /// The known part of the model's input: the rendered prompt, or the prior prompt and the question.
    pub prompt: String,
    pub text: String,
    pub tokens: Option<usize>,
}

/// Names of a file's columns, if they differ from those of `rft`.
#[derive(Clone, Debug, Default)]
pub struct ResponseColumns {
    pub text: Option<String>,
    pub prompt: Option<String>,
    pub question: Option<String>,
}

/// Reads the completions of a run directory, an evaluation directory or a file. Each line is a JSON object: a completion, or a
/// group of a training run with its `completions`. An incomplete last line of a file that is still being written is ignored.
///
/// # Errors
/// A file that cannot be read; a line without the completion's text; a file without completions.
pub fn read(path: &Path, columns: &ResponseColumns) -> Result<Vec<Response>> {
    let mut responses = Vec::new();
    for file in locate(path)? {
        let context = || format!("read `{}`", file.display());
        let asked = ResponseContext::beside(&file)?;
        for (number, row) in rows(&file).with_context(context)? {
            let line = ResponseLine { row: &row, columns, asked: &asked, number };
            line.responses(&mut responses).with_context(context)?;
        }
    }
    ensure!(!responses.is_empty(), "`{}` has no completions", path.display());
    Ok(responses)
}

/// The files to read: the file of a training run, the files of an evaluation's benchmarks, or the given file.
fn locate(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    for name in ["completions.jsonl", "samples.jsonl"] {
        if path.join(name).is_file() {
            return Ok(vec![path.join(name)]);
        }
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("read `{}`", path.display()))?;
    let below = entries.filter_map(|entry| Some(entry.ok()?.path().join("samples.jsonl")));
    let mut files: Vec<PathBuf> = below.filter(|file| file.is_file()).collect();
    files.sort();
    ensure!(
        !files.is_empty(),
        "there is no `completions.jsonl` and no `samples.jsonl` in `{}`\n\
         hint: pass the directory of a run or an evaluation, or a file of completions",
        path.display()
    );
    Ok(files)
}

/// The lines of a file as JSON, with their numbers.
fn rows(file: &Path) -> Result<Vec<(usize, Value)>> {
    let text = std::fs::read_to_string(file)?;
    let mut rows = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(row) => rows.push((index + 1, row)),
            Err(_) if !line.ends_with('\n') && !rows.is_empty() => break,
            Err(error) => return Err(error).with_context(|| format!("line {}", index + 1)),
        }
    }
    Ok(rows)
}

/// The prompts of a file's completions, from other files in the same folder.
#[derive(Default)]
struct ResponseContext {
    /// The names and texts of the prior prompts of a training run.
    priors: Vec<(String, String)>,
    /// The question and the rendered prompt of an evaluation, by question.
    questions: HashMap<String, [Option<String>; 2]>,
}

impl ResponseContext {
    fn beside(file: &Path) -> Result<Self> {
        let mut asked = Self::default();
        let prior = file.with_file_name("prompt.toml");
        if file.ends_with("completions.jsonl") && prior.is_file() {
            let prompts = Mixture::read(&prior)?;
            asked.priors = prompts.prompts().map(|it| (it.name.clone(), it.text.clone())).collect();
        }
        let questions = file.with_file_name("questions.jsonl");
        if file.ends_with("samples.jsonl") && questions.is_file() {
            for (_, row) in rows(&questions).with_context(|| format!("read `{}`", questions.display()))? {
                let text = |column: &str| row[column].as_str().map(str::to_owned);
                if let Some(id) = text("id") {
                    asked.questions.insert(id, [text("question"), text("prompt_text")]);
                }
            }
        }
        Ok(asked)
    }

    /// The text of the prior prompt that a group drew; if it has no name, that of the only one.
    fn prior(&self, drawn: Option<&str>) -> &str {
        let found = self.priors.iter().find(|(name, _)| drawn.is_none_or(|drawn| drawn == name));
        found.map_or("", |(_, text)| text)
    }
}

struct ResponseLine<'a> {
    row: &'a Value,
    columns: &'a ResponseColumns,
    asked: &'a ResponseContext,
    /// From 1.
    number: usize,
}

impl ResponseLine<'_> {
    fn responses(&self, into: &mut Vec<Response>) -> Result<()> {
        let given = match &self.row["question_id"] {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        };
        let known = given.as_ref().and_then(|id| self.asked.questions.get(id));
        let known = |index: usize| known.and_then(|texts| texts[index].clone());
        let question = self.text_of(&self.columns.question, "question")?.or_else(|| known(0)).unwrap_or_default();
        let rendered = self.text_of(&self.columns.prompt, "prompt_text")?.or_else(|| known(1));
        let prior = self.asked.prior(self.row["ppe"].as_str());
        let prompt = rendered.unwrap_or_else(|| format!("{prior}\n{question}"));
        // Completions with the same question belong together. Without questions, each line is separate.
        let own = || if question.is_empty() { format!("line {}", self.number) } else { question.clone() };
        let id = given.unwrap_or_else(own);
        let mut push = |text: String, tokens: &Value| {
            let tokens = tokens.as_u64().map(|tokens| tokens as usize);
            into.push(Response {
                question_id: id.clone(),
                question: question.clone(),
                prompt: prompt.clone(),
                text,
                tokens,
            });
        };
        let group = self.row.get("completions").or_else(|| self.row.get("branches"));
        if let (Some(Value::Array(completions)), None) = (group, &self.columns.text) {
            for completion in completions {
                let Some(text) = completion["text"].as_str() else {
                    bail!("line {}: an entry of `completions` has no `text`", self.number);
                };
                push(text.to_owned(), &completion["tokens"]);
            }
            return Ok(());
        }
        let Some(text) = self.text_of(&self.columns.text, "text")? else {
            bail!(
                "line {} has no column `text`\nhint: set the column of the completions with --text-column",
                self.number
            );
        };
        push(text, &self.row["tokens"]);
        Ok(())
    }

    /// The text in a column. A column that the user named must exist; the default column may be missing.
    fn text_of(&self, named: &Option<String>, ours: &str) -> Result<Option<String>> {
        let found = self.row[named.as_deref().unwrap_or(ours)].as_str().map(str::to_owned);
        match (named, &found) {
            (Some(name), None) => {
                let columns = self.row.as_object().map(|row| row.keys().cloned().collect::<Vec<_>>().join(", "));
                bail!(
                    "line {} has no text in the column `{name}`\nhint: its columns are {}",
                    self.number,
                    columns.unwrap_or_default()
                )
            }
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MixEntry;
    use crate::prompt;

    fn read_text(text: &str, columns: &ResponseColumns) -> Result<Vec<Response>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path, columns)
    }

    #[test]
    fn groups_of_a_run_with_its_prompt() {
        let dir = tempfile::tempdir().unwrap();
        let group = r#"{"step":1,"question_id":"q/1","question":"2 + 2?","completions":[{"text":"4","tokens":2},{"text":"5","tokens":3}]}"#;
        std::fs::write(dir.path().join("completions.jsonl"), format!("{group}\n{}", &group[..40])).unwrap();
        std::fs::write(dir.path().join("prompt.toml"), prompt::find("planning").unwrap().to_toml()).unwrap();
        let responses = read(dir.path(), &ResponseColumns::default()).unwrap();
        assert_eq!(responses.len(), 2, "the incomplete line is ignored");
        assert_eq!((responses[1].text.as_str(), responses[1].tokens), ("5", Some(3)));
        assert_eq!(responses[0].question_id, "q/1");
        assert!(responses[0].prompt.contains("<plan>") && responses[0].prompt.ends_with("2 + 2?"));
    }

    #[test]
    fn groups_of_a_mixture_have_the_prompt_that_they_drew() {
        let dir = tempfile::tempdir().unwrap();
        let group = |ppe: &str| {
            format!(
                "{{\"step\":1,\"question_id\":\"q\",\"question\":\"2 + 2?\",\"ppe\":\"{ppe}\",\"completions\":[{{\"text\":\"4\"}}]}}\n"
            )
        };
        std::fs::write(dir.path().join("completions.jsonl"), ["planning", "none", "recall"].map(group).concat())
            .unwrap();
        let mix = ["recall", "planning", "none"].map(|ppe| MixEntry { ppe: ppe.to_owned(), weight: 1.0 });
        std::fs::write(dir.path().join("prompt.toml"), Mixture::of_entries(&mix).unwrap().to_toml()).unwrap();
        let responses = read(dir.path(), &ResponseColumns::default()).unwrap();
        let has = |tag: &str| responses.iter().map(|it| it.prompt.contains(tag)).collect::<Vec<_>>();
        assert_eq!((has("<plan>"), has("<knowledge>")), (vec![true, false, false], vec![false, false, true]));
        assert_eq!(responses[1].prompt, "\n2 + 2?");
    }

    #[test]
    fn samples_of_an_evaluation_with_their_questions() {
        let dir = tempfile::tempdir().unwrap();
        for (bench, text) in [("math500", "M"), ("aime2024", "A")] {
            let folder = dir.path().join(bench);
            std::fs::create_dir(&folder).unwrap();
            let sample = format!("{{\"question_id\":\"q\",\"sample\":0,\"text\":\"{text}\",\"tokens\":3}}\n");
            std::fs::write(folder.join("samples.jsonl"), sample).unwrap();
            let question = r#"{"id":"q","question":"Q","gold":"4","prompt_text":"P"}"#;
            std::fs::write(folder.join("questions.jsonl"), format!("{question}\n")).unwrap();
        }
        let responses = read(dir.path(), &ResponseColumns::default()).unwrap();
        assert_eq!(responses.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), ["A", "M"]);
        assert_eq!((responses[0].question.as_str(), responses[0].prompt.as_str()), ("Q", "P"));
    }

    #[test]
    fn samples_and_named_columns() {
        let sample = r#"{"question_id":"a","sample":0,"prompt_text":"P","question":"Q","text":"T","tokens":7}"#;
        let expected = Response {
            question_id: "a".into(),
            question: "Q".into(),
            prompt: "P".into(),
            text: "T".into(),
            tokens: Some(7),
        };
        assert_eq!(read_text(sample, &ResponseColumns::default()).unwrap(), [expected]);
        let columns = ResponseColumns { text: Some("out".into()), question: Some("in".into()), prompt: None };
        let named = read_text("{\"in\":\"Q\",\"out\":\"T\"}\n\n", &columns).unwrap();
        assert_eq!((named[0].question_id.as_str(), named[0].text.as_str(), named[0].tokens), ("Q", "T", None));
    }

    #[test]
    fn missing_columns_and_texts_are_errors() {
        let error = |text, columns: &ResponseColumns| format!("{:#}", read_text(text, columns).unwrap_err());
        assert!(error("{\"answer\":\"T\"}", &ResponseColumns::default()).contains("--text-column"));
        let columns = ResponseColumns { text: Some("out".into()), ..ResponseColumns::default() };
        assert!(error("{\"answer\":\"T\"}", &columns).contains("its columns are answer"));
        assert!(error("{}\n{", &ResponseColumns::default()).contains("line 1"));
        assert!(error("", &ResponseColumns::default()).contains("has no completions"));
    }
}
