//! Locks on folders: the process that works on a folder holds a lock on its file `.lock`. The system releases the lock when the
//! process ends, also after a crash.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::atomic::write_error;
use super::files;

/// The name of the lock file.
pub const FILE: &str = ".lock";

/// Excludes other processes from a folder until it is dropped.
pub struct Lock(#[expect(dead_code, reason = "held until it is dropped")] Option<File>);

/// [`is_held`] takes the lock itself for a moment, which must not be mistaken for another process.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock of `folder`; `None` if another process holds it. Some network file systems do not support locks: then this
/// only prints a warning, because the work is more important than the lock.
///
/// # Errors
/// The lock file cannot be created.
pub fn take(folder: &Path) -> Result<Option<Lock>> {
    let path = folder.join(FILE);
    let file = files::append(&path).map_err(|error| write_error(&path, &error))?.into_file();
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Lock(Some(file)))),
            Err(TryLockError::WouldBlock) => sleep(PAUSE),
            Err(TryLockError::Error(error)) => {
                tracing::warn!("lock `{}`: {error}", path.display());
                return Ok(Some(Lock(None)));
            }
        }
    }
    Ok(None)
}

/// Whether a process holds the lock of `folder`.
pub fn is_held(folder: &Path) -> bool {
    let file = File::open(folder.join(FILE));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_holder_at_a_time_regardless_of_queries() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_held(folder.path()));
        let first = take(folder.path()).unwrap().unwrap();
        assert!(is_held(folder.path()));
        assert!(take(folder.path()).unwrap().is_none());
        drop(first);
        assert!(!is_held(folder.path()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..500 {
                    is_held(folder.path());
                    sleep(Duration::from_micros(200));
                }
            });
            (0..500).for_each(|_| assert!(take(folder.path()).unwrap().is_some()));
        });
    }
}
