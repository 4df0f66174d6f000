//! Files and folders that are written completely or not at all, even if the machine stops.
//!
//! The order guarantees this: write under a temporary name, sync the content to disk, rename, sync the parent folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::files;
use super::hash::sha256_file;

/// The list of the files of a committed folder, with their sizes and hashes.
const FILE_LIST: &str = "files.json";

/// Writes or replaces a file atomically: a reader sees the old content or the new, and an error leaves the old content.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    // Threads of one process must not use the same temporary file.
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let suffix = format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let temporary = with_suffix(path, &suffix);
    let write = || {
        let mut file = files::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync()?;
        files::rename(&temporary, path)
    };
    write().map_err(|error| {
        // Return the first error; the temporary file is never read.
        let _ = files::remove_file(&temporary);
        write_error(path, &error)
    })?;
    sync_folder(parent(path))
}

/// Creates a folder of several files atomically: `fill` writes them to the temporary folder that it receives, then they are
/// hashed, listed, synced to disk, and the folder is renamed to `path`. After an error or a crash, an incomplete folder at `path`
/// is never accepted by [`verify_dir`].
///
/// The content of a folder is determined by its name. A valid folder of that name is therefore kept as it is: to replace it would
/// need two renames, and a crash between them would lose it. A damaged one is replaced.
pub fn commit_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if verify_dir(path).is_ok() {
        return Ok(());
    }
    let temporary = with_suffix(path, ".tmp");
    // Remains of a process that was killed while writing.
    remove_folder(&temporary)?;
    files::create_dir_all(&temporary).map_err(|error| write_error(&temporary, &error))?;
    let filled = fill(&temporary).and_then(|()| seal(&temporary)).and_then(|()| move_in(&temporary, path));
    if filled.is_err() {
        let _ = files::remove_dir_all(&temporary);
    }
    filled
}

/// Verifies a folder written by [`commit_dir`]: every listed file exists with its size and hash.
pub fn verify_dir(path: &Path) -> Result<()> {
    let list_path = path.join(FILE_LIST);
    let list = fs::read(&list_path).with_context(|| format!("read `{}`", list_path.display()))?;
    let list: FileList = serde_json::from_slice(&list).with_context(|| format!("parse `{}`", list_path.display()))?;
    for (name, expected) in &list.files {
        let file = path.join(name);
        let bytes = fs::metadata(&file).with_context(|| format!("read `{}`", file.display()))?.len();
        if bytes != expected.bytes {
            bail!("`{}` is damaged: expected {} bytes, found {bytes}", file.display(), expected.bytes);
        }
        if sha256_file(&file).with_context(|| format!("read `{}`", file.display()))? != expected.sha256 {
            bail!("`{}` is damaged: its hash does not match", file.display());
        }
    }
    Ok(())
}

/// The error of a failed write, with its path and, if the user can do something about it, a hint.
pub fn write_error(path: &Path, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\nhint: free some space or write to another disk; files saved before are intact"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\nhint: choose a folder that you can write to"
        }
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "\nhint: choose another folder; a file of this name exists"
        }
        _ => "",
    };
    anyhow!("write `{}`: {error}{hint}", path.display())
}

#[derive(Serialize, Deserialize)]
struct FileList {
    /// By path relative to the folder.
    files: BTreeMap<String, FileEntry>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// Syncs every file of a folder to disk, then writes the list of them.
fn seal(folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for path in sync_tree(folder)? {
        let name = path.strip_prefix(folder).expect("a path found inside the folder");
        let name = name.to_str().with_context(|| format!("`{}` has a name that is not UTF-8", path.display()))?;
        let bytes = fs::metadata(&path).with_context(|| format!("read `{}`", path.display()))?.len();
        files.insert(
            name.to_owned(),
            FileEntry { bytes, sha256: sha256_file(&path).with_context(|| format!("read `{}`", path.display()))? },
        );
    }
    let mut list = serde_json::to_vec_pretty(&FileList { files })?;
    list.push(b'\n');
    write(&folder.join(FILE_LIST), &list)
}

/// Syncs a folder and its contents to disk. Returns the files.
fn sync_tree(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))? {
        let path = entry.with_context(|| format!("read `{}`", folder.display()))?.path();
        if path.is_dir() {
            files.extend(sync_tree(&path)?);
        } else {
            files::sync(&path).map_err(|error| write_error(&path, &error))?;
            files.push(path);
        }
    }
    sync_folder(folder)?;
    Ok(files)
}

/// Moves a folder whose files are complete and synced to its final place. What is there is removed.
pub fn move_in(temporary: &Path, path: &Path) -> Result<()> {
    sync_folder(temporary)?;
    remove_folder(path)?;
    files::rename(temporary, path).map_err(|error| write_error(path, &error))?;
    sync_folder(parent(path))
}

/// Moves a file that is complete and synced to its final place.
pub fn rename_file(temporary: &Path, path: &Path) -> Result<()> {
    files::rename(temporary, path).map_err(|error| write_error(path, &error))?;
    sync_folder(parent(path))
}

fn remove_folder(path: &Path) -> Result<()> {
    match files::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(path, &error)),
        _ => Ok(()),
    }
}

/// A rename survives a power failure only if the parent folder is synced too.
fn sync_folder(path: &Path) -> Result<()> {
    files::sync(path).map_err(|error| write_error(path, &error))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The path with `suffix` appended to its last part.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn write_replaces_the_file_and_leaves_no_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        // A folder cannot be replaced by a file, so the rename fails.
        let path = dir.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("kept"), "x").unwrap();
        let error = write(&path, b"new").unwrap_err().to_string();
        assert!(error.starts_with(&format!("write `{}`: ", path.display())), "{error}");
        assert_eq!(names(dir.path()), ["state"]);
        assert_eq!(names(&path), ["kept"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_gives_a_hint() {
        let full = Path::new("/dev/full");
        let error = fs::File::create(full).and_then(|mut file| file.write_all(b"x")).unwrap_err();
        let text = write_error(full, &error).to_string();
        let (message, hint) = text.split_once('\n').unwrap();
        assert!(message.starts_with("write `/dev/full`: No space left"), "{message}");
        assert!(hint.starts_with("hint: free some space"), "{hint}");
    }

    #[test]
    fn a_committed_folder_verifies_until_a_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step-000001");
        // Remains of a process that was killed while writing have no effect.
        fs::create_dir(dir.path().join("step-000001.tmp")).unwrap();
        fs::write(dir.path().join("step-000001.tmp/torn"), "x").unwrap();
        commit_dir(&path, |folder| {
            fs::create_dir(folder.join("adapter"))?;
            fs::write(folder.join("adapter/weights"), "abcd")?;
            Ok(fs::write(folder.join("state"), "1")?)
        })
        .unwrap();
        verify_dir(&path).unwrap();
        assert_eq!(names(dir.path()), ["step-000001"]);
        assert_eq!(names(&path), ["adapter", FILE_LIST, "state"]);

        let weights = path.join("adapter/weights");
        for (content, problem) in [("abcx", "is damaged"), ("abc", "expected 4 bytes, found 3")] {
            fs::write(&weights, content).unwrap();
            let error = verify_dir(&path).unwrap_err().to_string();
            assert!(error.contains("adapter/weights") && error.contains(problem), "{error}");
        }
        fs::remove_file(&weights).unwrap();
        assert!(verify_dir(&path).is_err());
    }

    #[test]
    fn a_folder_without_its_list_does_not_verify() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state"), "1").unwrap();
        assert!(verify_dir(dir.path()).is_err());
    }

    #[test]
    fn a_commit_keeps_a_valid_folder_and_replaces_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step-000001");
        let commit = |text: &'static str| commit_dir(&path, move |folder| Ok(fs::write(folder.join("weights"), text)?));
        commit("one").unwrap();
        commit("two").unwrap();
        assert_eq!(fs::read_to_string(path.join("weights")).unwrap(), "one");

        fs::write(path.join("weights"), "torn").unwrap();
        let failed = commit_dir(&path, |folder| {
            fs::write(folder.join("weights"), "part")?;
            bail!("no more disk")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more disk");
        assert_eq!(names(dir.path()), ["step-000001"]);
        commit("two").unwrap();
        assert_eq!(fs::read_to_string(path.join("weights")).unwrap(), "two");
        verify_dir(&path).unwrap();
        assert_eq!(names(dir.path()), ["step-000001"]);
    }

    /// A child process, which runs this test again, commits folders in an endless loop and is killed at different moments. All
    /// folders that exist must be complete, and none that the process reported as saved may be missing.
    #[test]
    fn a_killed_process_leaves_complete_folders() {
        const CHILD: &str = "RFT_TEST_COMMIT_CHILD";
        if let Some(folder) = std::env::var_os(CHILD) {
            for round in 0.. {
                let path = Path::new(&folder).join(format!("step-{round:06}"));
                commit_dir(&path, |folder| {
                    fs::write(folder.join("weights"), vec![round as u8; 1 << 18])?;
                    Ok(fs::write(folder.join("state"), round.to_string())?)
                })
                .unwrap();
                println!("saved {round}");
            }
        }
        for delay in (1..=40).step_by(3) {
            let dir = tempfile::tempdir().unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "disk::atomic::tests::a_killed_process_leaves_complete_folders"])
                .env(CHILD, dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            assert!(lines.any(|line| line.ends_with("saved 0")));
            std::thread::sleep(Duration::from_millis(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            let said = lines.filter_map(|line| line.strip_prefix("saved ")?.parse().ok()).last().unwrap_or(0);
            let committed: Vec<String> = names(dir.path()).into_iter().filter(|name| !name.ends_with(".tmp")).collect();
            assert!(committed.len() > said, "{said} was reported as saved, found {committed:?}");
            for name in committed {
                verify_dir(&dir.path().join(name)).unwrap();
            }
        }
    }
}
