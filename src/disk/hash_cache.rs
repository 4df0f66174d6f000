//! Hashes of large files, remembered in the cache folder.
//!
//! A checkpoint of 15 GB takes a minute to hash and never changes. Its hash is used again as long as the file has the same
//! path, inode, size, modification time and change time.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{atomic, cache, files, hash};

/// A smaller file is read every time.
const SMALLEST: u64 = 16 << 20;

/// A file that changed this recently could change again without a new time: file systems round times.
const SETTLED: Duration = Duration::from_secs(3);

/// What identifies the content of a file without reading it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FileState {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct CachedHash {
    file: FileState,
    sha256: String,
}

/// A list of files with the names under which their hashes are recorded.
#[derive(Clone, Debug, Default)]
pub struct NamedFiles(pub Vec<(String, PathBuf)>);

impl NamedFiles {
    /// Files under their own names; those of an equal name get a number.
    pub fn of(paths: Vec<PathBuf>) -> Self {
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let taken = files.iter().any(|(other, _)| *other == name);
            files.push((if taken { format!("{name} ({})", files.len() + 1) } else { name }, path));
        }
        Self(files)
    }

    /// SHA-256 by name. Reads every file that is not in the cache of hashes.
    pub fn hashes(&self) -> Result<BTreeMap<String, String>> {
        let hash = |(name, path): &(String, PathBuf)| {
            let sha256 = sha256_file(path).with_context(|| format!("read `{}`", path.display()))?;
            Ok((name.clone(), sha256))
        };
        self.0.iter().map(hash).collect()
    }
}

/// SHA-256 of a file. That of a large file is read from the cache folder if the file has not changed since.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    sha256_with(path, cache::folder().as_deref(), SMALLEST)
}

fn sha256_with(path: &Path, cache: Option<&Path>, smallest: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let state = |metadata: &Metadata| FileState::of(path, metadata);
    let before = state(&file.metadata()?)?;
    let Some(cache) = cache.filter(|_| before.bytes >= smallest) else { return digest(file) };
    let entry = cache.join("hashes").join(format!("{}.json", hash::sha256(before.path.as_os_str().as_encoded_bytes())));
    let cached = fs::read(&entry).ok().and_then(|text| serde_json::from_slice::<CachedHash>(&text).ok());
    if let Some(cached) = cached.filter(|it| it.file == before) {
        return Ok(cached.sha256);
    }
    let sha256 = digest(&file)?;
    if state(&file.metadata()?)? == before && before.is_settled() {
        remember(&entry, &CachedHash { file: before, sha256: sha256.clone() });
    }
    Ok(sha256)
}

/// Without an entry the file is only hashed again, so that errors do not matter.
fn remember(entry: &Path, hash: &CachedHash) {
    let written = entry.parent().map_or(Ok(()), files::create_dir_all).map_err(anyhow::Error::from);
    let written = written.and_then(|()| atomic::write(entry, &serde_json::to_vec(hash)?));
    if let Err(error) = written {
        tracing::debug!("{error:#}");
    }
}

fn digest(file: impl io::Read) -> io::Result<String> {
    let mut sha256 = Sha256::new();
    hash::update(&mut sha256, file)?;
    Ok(hex::encode(sha256.finalize()))
}

impl FileState {
    fn of(path: &Path, metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            path: path.canonicalize()?,
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or(u64::MAX);
        Duration::from_secs(changed).saturating_add(SETTLED) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_counts_only_for_the_same_state_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, "abc").unwrap();
        let hash = |smallest| sha256_with(&path, Some(folder.path()), smallest).unwrap();
        assert_eq!(hash(1), hash::sha256(b"abc"));
        let now = FileState::of(&path, &fs::metadata(&path).unwrap()).unwrap();
        let name = hash::sha256(now.path.as_os_str().as_encoded_bytes());
        let entry = folder.path().join("hashes").join(format!("{name}.json"));
        assert!(!entry.exists(), "the file may still change within the resolution of its times");

        let cached = |file: FileState| {
            remember(&entry, &CachedHash { file, sha256: "cached".into() });
            (hash(1), hash(4))
        };
        let read = hash::sha256(b"abc");
        assert_eq!(cached(now.clone()), ("cached".into(), read.clone()), "a smaller file is read");
        let others = [
            FileState { inode: now.inode + 1, ..now.clone() },
            FileState { bytes: 2, ..now.clone() },
            FileState { modified: (1, 0), ..now.clone() },
            FileState { changed: (1, 0), ..now },
        ];
        for other in others {
            assert_eq!(cached(other), (read.clone(), read.clone()));
        }
    }

    #[test]
    fn only_a_file_at_rest_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("new"), "").unwrap();
        let state = FileState::of(folder.path(), &fs::metadata(folder.path().join("new")).unwrap()).unwrap();
        assert!(!state.is_settled());
        assert!(FileState { modified: (1, 0), changed: (1, 0), ..state }.is_settled());
    }
}
