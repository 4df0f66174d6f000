//! Free space on disk.

use std::path::Path;

use anyhow::{Result, ensure};
use indicatif::HumanBytes;

/// Bytes that can be written where `path` is or will be; `None` if the system does not say.
pub fn available(path: &Path) -> Option<u64> {
    let path = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let existing = path.ancestors().find(|it| it.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Checks that `bytes` can be written where `path` is or will be.
///
/// # Errors
/// Fewer are free. The message has `what`, the path and the number of missing bytes, and `remedy` as its hint.
pub fn require(path: &Path, bytes: u64, what: &str, remedy: &str) -> Result<()> {
    match available(path) {
        Some(free) => enough(path, bytes, free, what, remedy),
        None => Ok(()),
    }
}

fn enough(path: &Path, bytes: u64, free: u64, what: &str, remedy: &str) -> Result<()> {
    ensure!(
        bytes <= free,
        "{what} needs {} at `{}`, but only {} are free: {} are missing\nhint: {remedy}",
        HumanBytes(bytes),
        path.display(),
        HumanBytes(free),
        HumanBytes(bytes - free)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_path_and_the_missing_bytes() {
        let path = Path::new("runs/a");
        assert!(enough(path, 10, 10, "x", "y").is_ok());
        let error = enough(path, 3 << 20, 1 << 20, "a checkpoint", "free some space").unwrap_err().to_string();
        assert_eq!(
            error,
            "a checkpoint needs 3.00 MiB at `runs/a`, but only 1.00 MiB are free: 2.00 MiB are missing\n\
             hint: free some space"
        );
        assert!(available(Path::new("a/folder/that/does/not/exist")).is_some_and(|free| free > 0));
    }
}
