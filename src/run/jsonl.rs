//! An append-only log: one JSON object per line, each with the field `step`, in the order of steps.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::disk::atomic::write_error;
use crate::disk::files::{self, OpenFile};
use crate::disk::presence::Presence;

/// A log open for appending.
pub struct JsonLines {
    file: OpenFile,
    path: PathBuf,
    presence: Presence,
}

impl JsonLines {
    /// Starts a log; one that exists is an error.
    pub fn create(path: &Path) -> Result<Self> {
        let file = files::open(path, OpenOptions::new().append(true).create_new(true))
            .map_err(|error| write_error(path, &error))?;
        Self::of(file, path)
    }

    /// Opens a log after `last_step`: lines of later steps, and a last line that was truncated by a crash, are removed. Earlier
    /// lines are not rewritten, so they cannot be lost. If the log does not exist, it is created.
    pub fn resume(path: &Path, last_step: usize) -> Result<Self> {
        if !path.exists() {
            return Self::create(path);
        }
        let context = || format!("read `{}`", path.display());
        let mut file = files::open(path, OpenOptions::new().read(true).write(true)).with_context(context)?;
        let kept = length_up_to(&mut file, last_step).with_context(context)?;
        file.set_len(kept).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|error| write_error(path, &error))?;
        Self::of(file, path)
    }

    /// Opens a log of any records, or creates it; a last line that was truncated by a crash is removed.
    pub fn append_to(path: &Path) -> Result<Self> {
        let context = || format!("open `{}`", path.display());
        let mut file = files::open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .map_err(|error| write_error(path, &error))?;
        let kept = whole_lines(&mut file).with_context(context)?;
        file.set_len(kept).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|error| write_error(path, &error))?;
        Self::of(file, path)
    }

    fn of(file: OpenFile, path: &Path) -> Result<Self> {
        let presence = Presence::of(path).map_err(|error| write_error(path, &error))?;
        Ok(Self { file, path: path.to_owned(), presence })
    }

    /// Appends one line. It is passed to the operating system in a single write, so a crash of the program cannot truncate it.
    ///
    /// # Errors
    /// The write fails, or the file was deleted, moved or replaced.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).context("encode a record as JSON")?;
        line.push(b'\n');
        self.presence.check()?;
        let context = || format!("append {} bytes", line.len());
        self.file.write_all(&line).map_err(|error| write_error(&self.path, &error)).with_context(context)
    }

    /// Syncs the file to disk; called before a checkpoint is committed that depends on its lines.
    pub fn sync(&self) -> Result<()> {
        self.presence.check()?;
        self.file.sync().map_err(|error| write_error(&self.path, &error))
    }
}

/// Reads all records of a log; a truncated last line is ignored.
pub fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>> {
    let context = || format!("read `{}`", path.display());
    let text = std::fs::read(path).with_context(context)?;
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    text[..whole]
        .split_inclusive(|&byte| byte == b'\n')
        .enumerate()
        .map(|(index, line)| serde_json::from_slice(line).with_context(|| format!("line {}", index + 1)))
        .collect::<Result<_>>()
        .with_context(context)
}

/// Length in bytes of the complete lines.
fn whole_lines(file: &mut OpenFile) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 1 << 12];
    while end > 0 {
        let length = end.min(block.len() as u64);
        file.seek(SeekFrom::Start(end - length))?;
        let bytes = &mut block[..length as usize];
        file.read_exact(bytes)?;
        if let Some(at) = bytes.iter().rposition(|&byte| byte == b'\n') {
            return Ok(end - length + at as u64 + 1);
        }
        end -= length;
    }
    Ok(0)
}

/// Length in bytes of the lines up to and including `last_step`.
fn length_up_to(file: &mut OpenFile, last_step: usize) -> Result<u64> {
    #[derive(Deserialize)]
    struct StepOnly {
        step: usize,
    }
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut kept = 0;
    for number in 1.. {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)? as u64;
        // The end, or a line without a newline: the write was interrupted.
        if line.last() != Some(&b'\n') {
            break;
        }
        match serde_json::from_slice::<StepOnly>(&line) {
            Ok(StepOnly { step }) if step > last_step => break,
            Ok(_) => kept += length,
            // After a power failure, the last block may consist of zeros. An invalid line before the end is damage and must
            // not be removed.
            Err(_) if reader.fill_buf()?.is_empty() => break,
            Err(error) => bail!("line {number}: {error}"),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct TestRecord {
        step: usize,
        text: String,
    }

    fn record(step: usize) -> TestRecord {
        TestRecord { step, text: format!("line\nof {step}") }
    }

    fn steps(path: &Path) -> Vec<usize> {
        read::<TestRecord>(path).unwrap().into_iter().map(|record| record.step).collect()
    }

    #[test]
    fn continues_after_the_resumed_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut log = JsonLines::create(&path).unwrap();
        for step in [0, 1, 2, 2, 3, 4] {
            log.append(&record(step)).unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        let mut log = JsonLines::resume(&path, 2).unwrap();
        log.append(&record(3)).unwrap();
        assert_eq!(steps(&path), [0, 1, 2, 2, 3]);
        assert!(before.starts_with(&std::fs::read(&path).unwrap()), "equal records give equal bytes");
    }

    #[test]
    fn a_truncated_last_line_is_removed_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let whole = serde_json::to_string(&record(3)).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, format!("{{\"step\":1,\"text\":\"\"}}\n{}", &whole[..length])).unwrap();
            assert_eq!(steps(&path), [1]);
            JsonLines::resume(&path, 9).unwrap().append(&record(2)).unwrap();
            assert_eq!(steps(&path), [1, 2]);
        }
    }

    #[test]
    fn any_log_continues_after_its_last_complete_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        for torn in [0, 1, 5_000] {
            let whole = format!("{}\n\"b\"\n", serde_json::to_string(&"a".repeat(9_000)).unwrap());
            std::fs::write(&path, format!("{whole}{}", "x".repeat(torn))).unwrap();
            JsonLines::append_to(&path).unwrap().append(&"c").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{whole}\"c\"\n"));
        }
        std::fs::write(&path, "torn").unwrap();
        JsonLines::append_to(&path).unwrap().append(&1).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn damage_in_the_middle_is_an_error_and_removes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let content = "{\"step\":1}\nxx\n{\"step\":2}\n";
        std::fs::write(&path, content).unwrap();
        let error = format!("{:#}", JsonLines::resume(&path, 2).err().unwrap());
        assert!(error.starts_with("read `") && error.contains("line 2"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }

    #[test]
    fn a_new_log_does_not_overwrite_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        JsonLines::create(&path).unwrap();
        assert!(JsonLines::create(&path).is_err());
    }
}
