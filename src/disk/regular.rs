//! Reading regular files only. Reading a named pipe waits for a program that writes to it, possibly forever, and a device
//! such as `/dev/zero` never ends.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::budget::Budget;

/// Limit for a JSON file of a model or an adapter in bytes. The largest in use, the index of many weight files, has 5 MB.
pub const JSON: u64 = 16 << 20;

/// Opens a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    check(path)?;
    File::open(path)
}

/// The contents of a regular file.
///
/// # Errors
/// The file cannot be read, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    Budget::new(limit).read(open(path)?)
}

/// The check comes before the file is opened, because opening a pipe waits too.
fn check(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "not a regular file\nhint: pass a regular file, not a folder, pipe or device",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"text");
        assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(open(&path).is_ok());
        assert!(read(folder.path(), 4).unwrap_err().to_string().starts_with("not a regular file\nhint: "));
        assert_eq!(read(&folder.path().join("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe, 4).is_err() && open(&pipe).is_err());
    }
}
