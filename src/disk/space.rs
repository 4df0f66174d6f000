//! Free space.

use std::path::Path;

/// Free bytes for this user on the disk that contains `path`, or that would contain it; `None` if the system does not report it.
pub fn free(path: &Path) -> Option<u64> {
    // The ancestors of a relative path end with an empty one, which is the current folder.
    let existing = path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}
