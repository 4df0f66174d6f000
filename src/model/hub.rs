//! Files from the Hugging Face hub, in the cache that Python's library shares.
//!
//! The crate `hf-hub` lays out the cache and asks for listings. A repository's folder has `refs/` (branch ► commit),
//! `snapshots/COMMIT/` (links under the files' names) and `blobs/` (the files under their hashes, `.incomplete` during a
//! download). We add `.rft/COMMIT.json`, what the hub listed, so that a snapshot is known to be complete without a request.
//!
//! Files are downloaded by our own code ([`http`]), because the crate's (0.5) sends the token to the host that a file is
//! redirected to, fails if a server ignores `Range`, has no timeouts, waits no longer than five seconds for another download
//! of the same file, and checks neither size nor SHA-256.

mod dataset;
mod http;

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hf_hub::{Cache, CacheRepo};
use serde::{Deserialize, Serialize};

pub use dataset::{dataset_file, dataset_file_from, dataset_files, dataset_files_from};
pub use http::HubError;

use crate::disk::atomic;

/// How to reach the hub and where to keep its files.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Address without a slash at its end.
    pub endpoint: String,
    pub cache: PathBuf,
    pub token: Option<Token>,
    /// Use the cache alone.
    pub offline: bool,
    /// How often in a row a download may stop without having brought a byte before it is given up.
    pub retries: u32,
}

/// A secret: goes to the hub and nowhere else.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn new(token: &str) -> Self {
        Self(token.to_owned())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("Token(..)")
    }
}

impl HubConfig {
    /// Reads the variables that Python's library reads: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`,
    /// `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN` and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`HubConfig::from_env`], from any source of variables.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|it| !it.trim().is_empty());
        let is_on =
            |name: &str| set(name).is_some_and(|it| ["1", "true", "yes", "on"].contains(&it.to_lowercase().as_str()));
        let folder = |name: &str| set(name).map(PathBuf::from);
        let home = match folder("HF_HOME") {
            Some(home) => home,
            None => folder("XDG_CACHE_HOME")
                .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
                .context("no home folder is known\nhint: set HF_HOME to the folder that shall hold downloads")?
                .join("huggingface"),
        };
        let token = match set("HF_TOKEN") {
            Some(token) => Some(token),
            None if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            None => fs::read_to_string(folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok(),
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        ensure!(
            endpoint.starts_with("https://") || endpoint.starts_with("http://"),
            "HF_ENDPOINT is not an address that begins with https://"
        );
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: folder("HF_HUB_CACHE")
                .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            token: token.map(|it| Token(it.trim().to_owned())).filter(|it| !it.0.is_empty()),
            offline: is_on("HF_HUB_OFFLINE"),
            retries: 5,
        })
    }
}

pub use hf_hub::RepoType as Kind;

/// A repository at a branch, tag or commit.
#[derive(Clone, Debug)]
pub struct Repo {
    kind: Kind,
    id: String,
    /// The same for the crate.
    inner: hf_hub::Repo,
}

impl Repo {
    pub fn new(kind: Kind, id: &str, revision: &str) -> Result<Self> {
        ensure!(is_hub_id(id), "`{id}` is not a hub id\nhint: hub ids have the form org/name");
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+@/".contains(c);
        let inside = Path::new(revision).components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(
            inside && !revision.is_empty() && revision.chars().all(plain),
            "`{revision}` is not a revision\nhint: give a branch, a tag or a commit"
        );
        let inner = hf_hub::Repo::with_revision(id.to_owned(), kind, revision.to_owned());
        Ok(Self { kind, id: id.to_owned(), inner })
    }

    fn revision(&self) -> &str {
        self.inner.revision()
    }

    fn cache(&self, config: &HubConfig) -> CacheRepo {
        Cache::new(config.cache.clone()).repo(self.inner.clone())
    }

    /// The repository's folder in the cache.
    fn folder(&self, config: &HubConfig) -> PathBuf {
        config.cache.join(self.inner.folder_name())
    }
}

/// Whether a name has the form `org/name`.
pub fn is_hub_id(name: &str) -> bool {
    let part = |it: &str| {
        !it.is_empty()
            && !it.starts_with(['.', '-'])
            && !it.contains("..")
            && it.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    name.split_once('/').is_some_and(|(org, name)| part(org) && part(name))
}

/// What the hub says about a repository at one commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Listing {
    commit: String,
    files: Vec<RemoteFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RemoteFile {
    path: String,
    /// Bytes.
    size: Option<u64>,
    /// Name in `blobs/`: SHA-256 of a large file, git's hash of a small one.
    blob: String,
    /// SHA-256 of the content, known for large files.
    sha256: Option<String>,
}

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
    /// Finds out, from the cache or else from the hub, which files `select` wants of all those that the repository has.
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
                    tracing::warn!("cannot reach {endpoint} ({reason}); taking `{}` as it is in the cache", repo.id);
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

/// The files that a model needs, out of all that its repository has.
pub fn model_files(names: &[String]) -> Result<Vec<String>> {
    use super::checkpoint::{INDEX, SINGLE, pickle_refused};
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

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        let find = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
        HubConfig::from_variables(find).unwrap()
    }

    #[test]
    fn variables_mean_what_they_mean_in_python() {
        let plain = config(&[("HF_HOME", "/nowhere/hf")]);
        assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
        assert_eq!(plain.cache, Path::new("/nowhere/hf/hub"));
        assert!(plain.token.is_none());
        assert_eq!(config(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        let set = config(&[
            ("HF_HOME", "/nowhere/hf"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "https://mirror/"),
            ("HF_TOKEN", " hf_secret\n"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        assert_eq!(
            (set.endpoint.as_str(), set.cache.as_path(), set.offline),
            ("https://mirror", Path::new("/c"), true)
        );
        assert_eq!(set.token.as_ref().unwrap().0, "hf_secret");
        assert!(!format!("{set:?}").contains("hf_secret"));
        assert!(HubConfig::from_variables(|name| (name == "HF_ENDPOINT").then(|| "ftp://x".into())).is_err());
    }

    #[test]
    fn the_token_file_is_read() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(config(&[("HF_HOME", path)]).token.unwrap().0, "hf_file");
        assert!(config(&[("HF_HOME", path), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token.is_none());
    }

    #[test]
    fn hub_ids_have_two_plain_parts() {
        for id in ["Qwen/Qwen2.5-7B", "RUC-AIBOX/STILL-3-Preview-RL-Data", "a/b_c"] {
            assert!(is_hub_id(id), "{id}");
        }
        for id in ["tiny", "a/b/c", "../x", "./x", "a/..", "/a", "a/", "a b/c", "a/b?x"] {
            assert!(!is_hub_id(id), "{id}");
        }
        assert!(Repo::new(Kind::Model, "a/b", "refs/pr/1").is_ok());
        for revision in ["", "../x", "/x", "a/../b", "main?x", "a b", "a#b", "a%2fb"] {
            assert!(Repo::new(Kind::Model, "a/b", revision).is_err(), "{revision}");
        }
    }

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
