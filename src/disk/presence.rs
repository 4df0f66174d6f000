//! Whether an open file is still the one at its path.
//!
//! A file that was deleted or moved can be written to as long as it is open, and nobody would ever find what is written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The identity of a file that is open.
#[derive(Clone, Debug)]
pub struct Presence {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Presence {
    /// Of the file at `path`, which the caller has just opened and keeps open.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// # Errors
    /// The file at the path was deleted, moved or replaced.
    pub fn check(&self) -> Result<()> {
        let now = fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if now != Some((self.device, self.inode)) {
            bail!(
                "`{}` was deleted, moved or replaced while it was in use\n\
                 hint: do not change the folder of a run that is running; what was saved before can be resumed where it is now",
                self.path.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_moved_or_replaced_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let open = |text: &str| {
            fs::write(&path, text).unwrap();
            (fs::File::open(&path).unwrap(), Presence::of(&path).unwrap())
        };
        let (_file, presence) = open("one");
        presence.check().unwrap();
        fs::write(&path, "more").unwrap();
        presence.check().unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        assert!(presence.check().unwrap_err().to_string().contains("log` was deleted, moved or replaced"));
        let (_other, other) = open("another");
        assert!(presence.check().is_err());
        other.check().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(other.check().is_err());
    }
}
