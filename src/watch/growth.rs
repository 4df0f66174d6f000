//! Files that another process appends lines to.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes that one call reads at most, so that a page opens at once whatever the size of the file.
const LIMIT: u64 = 32 << 20;

/// The lines of a file that have been added since the last call.
pub struct NewLines {
    path: PathBuf,
    /// End of the lines that were returned.
    read: u64,
}

/// What [`NewLines::next`] found.
#[derive(Debug, Default, PartialEq)]
pub struct AddedLines {
    /// The file is shorter than before: a resumed run removed lines. `text` starts at the beginning of the file.
    pub restarted: bool,
    /// Complete lines.
    pub text: String,
}

impl NewLines {
    pub fn of(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// The complete lines after those of the last call. A missing file has none.
    pub fn next(&mut self) -> io::Result<AddedLines> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(AddedLines::default()),
            file => file?,
        };
        let length = file.metadata()?.len();
        let restarted = length < self.read || !ends_a_line(&mut file, self.read)?;
        if restarted {
            self.read = 0;
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
        self.read += whole as u64;
        Ok(AddedLines { restarted, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// Whether a line ends at `at`, which is within the file.
fn ends_a_line(file: &mut File, at: u64) -> io::Result<bool> {
    if at == 0 {
        return Ok(true);
    }
    let mut byte = [0];
    file.seek(SeekFrom::Start(at - 1))?;
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

/// The last complete line of a file, read from its end. `None` if there is none, or if it is longer than 32 MiB.
pub fn last_line(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut start = file.metadata()?.len();
    let mut tail: Vec<u8> = Vec::new();
    while start > 0 && (tail.len() as u64) < LIMIT {
        let mut block = vec![0; start.min(1 << 16) as usize];
        start -= block.len() as u64;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        block.append(&mut tail);
        tail = block;
        let mut ends = tail.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let (Some(end), before) = (ends.next(), ends.next()) else { continue };
        let line = match before {
            Some(before) => &tail[before + 1..end],
            None if start == 0 => &tail[..end],
            None => continue,
        };
        return Ok(Some(String::from_utf8_lossy(line).into_owned()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_complete_new_lines_are_returned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut lines = NewLines::of(path.clone());
        let added = |restarted, text: &str| AddedLines { restarted, text: text.to_owned() };
        assert_eq!(lines.next().unwrap(), added(false, ""), "no file yet");
        fs::write(&path, "1\n2\n3").unwrap();
        assert_eq!(lines.next().unwrap(), added(false, "1\n2\n"));
        fs::write(&path, "1\n2\n33\n").unwrap();
        assert_eq!(lines.next().unwrap(), added(false, "33\n"));
        assert_eq!(lines.next().unwrap(), added(false, ""));
    }

    #[test]
    fn a_file_that_was_cut_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut lines = NewLines::of(path.clone());
        fs::write(&path, "1\n2\n3\n").unwrap();
        lines.next().unwrap();
        fs::write(&path, "1\n").unwrap();
        assert_eq!(lines.next().unwrap(), AddedLines { restarted: true, text: "1\n".to_owned() });
        // Cut and grown again between two calls.
        fs::write(&path, "long line\n").unwrap();
        assert_eq!(lines.next().unwrap(), AddedLines { restarted: true, text: "long line\n".to_owned() });
    }

    #[test]
    fn the_last_line_is_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let last = |text: &str| {
            fs::write(&path, text).unwrap();
            last_line(&path).unwrap()
        };
        assert_eq!(last(""), None);
        assert_eq!(last("unfinished"), None);
        assert_eq!(last("one\n").as_deref(), Some("one"));
        assert_eq!(last("one\ntwo\nunfinished").as_deref(), Some("two"));
        let long = "é".repeat(100_000);
        assert_eq!(last(&format!("one\n{long}\nunfinished")), Some(long.clone()));
        assert_eq!(last(&format!("{long}\n")), Some(long));
        assert_eq!(last_line(&dir.path().join("none")).unwrap(), None);
    }
}
