//! A repository of the Hub, and its files at one commit.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};
use hf_hub::{Cache, CacheRepo};
use serde::{Deserialize, Serialize};

use super::config::HubConfig;

pub use hf_hub::RepoType as Kind;

/// A repository at a branch, tag or commit.
#[derive(Clone, Debug)]
pub struct Repo {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// The same for the crate.
    pub(super) inner: hf_hub::Repo,
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

    pub(super) fn revision(&self) -> &str {
        self.inner.revision()
    }

    pub(super) fn cache(&self, config: &HubConfig) -> CacheRepo {
        Cache::new(config.cache.clone()).repo(self.inner.clone())
    }

    /// The repository's folder in the cache.
    pub(super) fn folder(&self, config: &HubConfig) -> PathBuf {
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
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RemoteFile {
    pub(super) path: String,
    /// Bytes.
    pub(super) size: Option<u64>,
    /// Name in `blobs/`: SHA-256 of a large file, git's hash of a small one.
    pub(super) blob: String,
    /// SHA-256 of the content, known for large files.
    pub(super) sha256: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
