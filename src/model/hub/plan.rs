//! The files of a repository that are needed: found in the cache, or listed and downloaded.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::config::HubConfig;
use super::http::{self, HubError};
use super::repo::{Listing, RemoteFile, Repo};
use crate::disk::atomic;

/// The files of a repository that are wanted, and which of them are still to be downloaded.
#[derive(Debug)]
pub struct Plan {
    config: HubConfig,
    repo: Repo,
    listing: Listing,
    wanted: Vec<String>,
    missing: Vec<RemoteFile>,
}

impl Plan {
    /// Selects files with `select` from the names in the cache, or else from the list of the Hub.
    /// Downloads nothing.
    pub fn new(config: &HubConfig, repo: Repo, select: impl Fn(&[String]) -> Result<Vec<String>>) -> Result<Self> {
        let whole = |listing| {
            let plan = Self::of_listing(config, &repo, listing, &select).ok()?;
            plan.missing.is_empty().then_some(plan)
        };
        if let Some(plan) = cached_listing(config, &repo).and_then(whole) {
            return Ok(plan);
        }
        if config.offline {
            return match snapshot_listing(config, &repo) {
                Some(listing) => Self::of_listing(config, &repo, listing, &select),
                None => bail!(HubError::Offline { id: repo.id }),
            };
        }
        let listing = match http::Client::new(config)?.listing(&repo) {
            Err(HubError::Unreachable { endpoint, reason }) => match snapshot_listing(config, &repo).and_then(whole) {
                Some(plan) => {
                    tracing::warn!("cannot reach {endpoint} ({reason}); using `{}` from the cache", repo.id);
                    return Ok(plan);
                }
                None => bail!(HubError::Unreachable { endpoint, reason }),
            },
            listing => listing?,
        };
        Self::of_listing(config, &repo, listing, &select)
    }

    fn of_listing(
        config: &HubConfig,
        repo: &Repo,
        listing: Listing,
        select: &impl Fn(&[String]) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let names: Vec<String> = listing.files.iter().map(|file| file.path.clone()).collect();
        let wanted = select(&names).with_context(|| format!("choose the files of `{}`", repo.id))?;
        let snapshot = snapshot(config, repo, &listing.commit);
        let missing =
            listing.files.iter().filter(|file| wanted.contains(&file.path) && !snapshot.join(&file.path).exists());
        Ok(Self { config: config.clone(), repo: repo.clone(), missing: missing.cloned().collect(), wanted, listing })
    }

    /// Bytes still to be downloaded, if the Hub gives sizes; bytes of an earlier attempt are not counted again.
    pub fn bytes(&self) -> u64 {
        self.missing.iter().filter_map(|file| file.size).sum()
    }

    /// The folder that contains the repository's files under their own names, once fetched.
    pub fn folder(&self) -> PathBuf {
        snapshot(&self.config, &self.repo, &self.listing.commit)
    }

    /// Downloads what is missing and gives the paths of the wanted files. `progress` gets the bytes done so far, of
    /// [`Plan::bytes`]. This call or the next one resumes an interrupted download.
    pub fn fetch(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<PathBuf>> {
        if !self.missing.is_empty() {
            let client = http::Client::new(&self.config)?;
            let mut before = 0;
            for file in &self.missing {
                let url = client.file_url(&self.repo, &self.listing.commit, &file.path);
                let blob = self.fetch_blob(&client, &url, file, &mut |done| progress(before + done))?;
                link(&blob, &self.folder().join(&file.path))?;
                before += file.size.unwrap_or(0);
            }
            self.remember()?;
        }
        Ok(self.wanted.iter().map(|name| self.folder().join(name)).collect())
    }

    /// Brings one file into `blobs/`. A lock keeps two programs from writing the same one.
    fn fetch_blob(
        &self,
        client: &http::Client,
        url: &str,
        file: &RemoteFile,
        progress: &mut dyn FnMut(u64),
    ) -> Result<PathBuf> {
        let blob = self.repo.cache(&self.config).blob_path(&file.blob);
        let locks = self.config.cache.join(".locks").join(self.repo.inner.folder_name());
        let lock = locks.join(format!("{}.lock", file.blob));
        create_parent(&blob)?;
        create_parent(&lock)?;
        let lock = fs::File::create(&lock).with_context(|| format!("create `{}`", lock.display()))?;
        lock.lock().context("wait for another download of the same file")?;
        if !blob.exists() {
            let partial = blob.with_file_name(format!("{}.incomplete", file.blob));
            match client.download(&self.repo, url, file, &partial, progress) {
                // The damaged file was removed. A second one would come from the same source.
                Err(HubError::Damaged { file: name }) => {
                    tracing::warn!("`{name}` arrived damaged; downloading it again");
                    client.download(&self.repo, url, file, &partial, progress)?;
                }
                done => done?,
            }
            fs::rename(&partial, &blob).with_context(|| format!("write `{}`", blob.display()))?;
        }
        Ok(blob)
    }

    /// Notes the branch's commit and the listing, once all files are there.
    fn remember(&self) -> Result<()> {
        let listing = self.repo.folder(&self.config).join(".rft").join(format!("{}.json", self.listing.commit));
        create_parent(&listing)?;
        atomic::write(&listing, &serde_json::to_vec(&self.listing)?)?;
        if self.repo.revision() != self.listing.commit {
            let noted = self.repo.cache(&self.config).create_ref(&self.listing.commit);
            noted.with_context(|| format!("note the commit of `{}` in the cache", self.repo.id))?;
        }
        Ok(())
    }
}

/// The files of a model other than its weights, among all files of its repository.
pub fn text_files(names: &[String]) -> Result<Vec<String>> {
    const TEXTS: [&str; 5] =
        ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    ensure!(names.iter().any(|name| name == "config.json"), "there is no `config.json`");
    Ok(TEXTS.iter().filter(|text| names.iter().any(|name| name == *text)).map(|&it| it.to_owned()).collect())
}

/// The files of an adapter, among all files of its repository.
pub fn adapter_files(names: &[String]) -> Result<Vec<String>> {
    use crate::model::checkpoint::pickle_refused;
    use crate::model::peft::{CONFIG, WEIGHTS};
    let has = |name: &str| names.iter().any(|it| it == name);
    ensure!(has(CONFIG), "there is no `{CONFIG}`: it is not an adapter");
    if !has(WEIGHTS) && has("adapter_model.bin") {
        bail!(pickle_refused("adapter_model.bin"));
    }
    ensure!(has(WEIGHTS), "there is no `{WEIGHTS}`");
    Ok(vec![CONFIG.to_owned(), WEIGHTS.to_owned()])
}

/// The files that a model needs, out of all that its repository has.
pub fn model_files(names: &[String]) -> Result<Vec<String>> {
    use crate::model::checkpoint::{INDEX, SINGLE, pickle_refused};
    let has = |name: &str| names.iter().any(|it| it == name);
    let mut wanted = Vec::new();
    if has(SINGLE) {
        wanted.push(SINGLE.to_owned());
    } else if has(INDEX) {
        wanted.push(INDEX.to_owned());
        let is_shard =
            |name: &&String| name.starts_with("model-") && name.ends_with(".safetensors") && !name.contains('/');
        wanted.extend(names.iter().filter(is_shard).cloned());
    } else if let Some(name) = names.iter().find(|it| it.ends_with(".bin") || it.ends_with(".pth")) {
        bail!(pickle_refused(name));
    } else if names.iter().any(|it| it.ends_with(".gguf")) {
        bail!("there are GGUF files only\nhint: download one and name it with --model FILE.gguf");
    } else {
        bail!("there are no safetensors weights\nhint: `{SINGLE}`, or `{INDEX}` and its shards, are needed");
    }
    let mut files = text_files(names)?;
    files.append(&mut wanted);
    Ok(files)
}

/// The commit that the cache has for the repository's revision.
fn cached_commit(config: &HubConfig, repo: &Repo) -> Option<String> {
    let reference = repo.folder(config).join("refs").join(repo.revision());
    let commit = fs::read_to_string(reference).map_or_else(|_| repo.revision().to_owned(), |it| it.trim().to_owned());
    let plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
    (plain && snapshot(config, repo, &commit).is_dir()).then_some(commit)
}

/// What the hub listed when the snapshot was downloaded.
fn cached_listing(config: &HubConfig, repo: &Repo) -> Option<Listing> {
    let commit = cached_commit(config, repo)?;
    let path = repo.folder(config).join(".rft").join(format!("{commit}.json"));
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The files that are there, for a snapshot that another program downloaded.
fn snapshot_listing(config: &HubConfig, repo: &Repo) -> Option<Listing> {
    fn walk(folder: &Path, prefix: &str, files: &mut Vec<RemoteFile>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.path() {
                folder if folder.is_dir() => walk(&folder, &format!("{path}/"), files),
                file if file.exists() => {
                    files.push(RemoteFile { path, size: None, blob: String::new(), sha256: None });
                }
                _ => {}
            }
        }
    }
    let commit = cached_commit(config, repo)?;
    let mut files = Vec::new();
    walk(&snapshot(config, repo, &commit), "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Some(Listing { commit, files })
}

fn snapshot(config: &HubConfig, repo: &Repo, commit: &str) -> PathBuf {
    repo.cache(config).pointer_path(commit)
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a path in the cache has a parent")?;
    fs::create_dir_all(parent)
        .with_context(|| format!("create `{}`\nhint: HF_HOME names the folder that holds downloads", parent.display()))
}

/// Puts a blob under a file's name in a snapshot: a relative link, as Python's library makes it.
fn link(blob: &Path, name: &Path) -> Result<()> {
    create_parent(name)?;
    if name.exists() {
        return Ok(());
    }
    let _ = fs::remove_file(name); // a link whose blob is gone
    #[cfg(unix)]
    let linked = {
        // snapshots/COMMIT/a/b ► ../../../blobs/X: as many steps up as there are folders below the repository's own
        let repository = blob.parent().and_then(Path::parent).context("a blob is in the blobs folder")?;
        let inner = name.strip_prefix(repository).context("a snapshot is next to its blobs")?;
        let up: PathBuf = inner.components().skip(1).map(|_| Component::ParentDir).collect();
        std::os::unix::fs::symlink(up.join(blob.strip_prefix(repository)?), name)
    };
    #[cfg(not(unix))]
    let linked = fs::hard_link(blob, name).or_else(|_| fs::copy(blob, name).map(|_| ()));
    linked.with_context(|| format!("create `{}`", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_needs_its_texts_and_one_set_of_weights() {
        let chosen = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
            model_files(&names).map_err(|error| error.to_string())
        };
        let texts = ["config.json", "tokenizer.json"];
        let one = [&texts[..], &["README.md", "model.safetensors", "pytorch_model.bin"]].concat();
        assert_eq!(chosen(&one).unwrap(), ["config.json", "tokenizer.json", "model.safetensors"]);
        let shards = ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "consolidated.safetensors"];
        let wanted = ["config.json", "tokenizer.json", shards[0], shards[1]];
        assert_eq!(chosen(&[&texts[..], &shards].concat()).unwrap(), wanted);
        assert!(chosen(&[&texts[..], &["pytorch_model.bin"]].concat()).unwrap_err().contains("pickle"));
        assert!(chosen(&[&texts[..], &["x.gguf"]].concat()).unwrap_err().contains("GGUF"));
        assert!(chosen(&texts).unwrap_err().contains("no safetensors"));
    }
}
