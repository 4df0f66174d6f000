//! Free space.

use std::path::Path;

use anyhow::{Result, ensure};
use indicatif::HumanBytes;

/// Free bytes for this user on the disk that contains `path`, or that would contain it; `None` if the system does not report it.
pub fn free(path: &Path) -> Option<u64> {
    // The ancestors of a relative path end with an empty one, which is the current folder.
    let existing = path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

/// Checks that `bytes` can be written where `path` is or will be.
///
/// # Errors
/// Fewer are free. The message has `what`, the path and the number of missing bytes, and `remedy` as its hint.
pub fn require(path: &Path, bytes: u64, what: &str, remedy: &str) -> Result<()> {
    match free(path) {
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
        assert!(free(Path::new("a/folder/that/does/not/exist")).is_some_and(|free| free > 0));
    }
}
