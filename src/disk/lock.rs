//! Which process works on a folder: the holder of a lock on its file `.lock`. The system lets go of it when the process ends, also
//! after a crash.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::atomic::write_error;

/// The name of the file.
pub const FILE: &str = ".lock";

/// Keeps other processes from a folder until it is dropped.
pub struct Lock(#[expect(dead_code, reason = "held until it is dropped")] Option<File>);

/// [`is_held`] takes the lock itself for a moment, which must not pass for another process at work.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock of `folder`; `None` where another process has it. Some network disks know no locks: there a warning is given,
/// since the work is worth more than the guard.
///
/// # Errors
/// The file cannot be made.
pub fn take(folder: &Path) -> Result<Option<Lock>> {
    let path = folder.join(FILE);
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| write_error(&path, &error))?;
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

/// Whether a process is at work on `folder`.
pub fn is_held(folder: &Path) -> bool {
    let file = File::open(folder.join(FILE));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_however_often_it_is_asked() {
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
