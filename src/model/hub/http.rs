//! The hub over HTTP: listings by the crate `hf-hub`, and downloads that resume where they stopped.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::config::HubConfig;
use super::repo::{Kind, Listing, RemoteFile, Repo};
use crate::disk::budget::Budget;
use crate::disk::hash;

/// Maximum number of bytes of the list of a repository's files.
const LISTING: u64 = 64 << 20;
/// Maximum number of bytes of a file whose size is not listed.
const UNLISTED: u64 = 64 << 30;

/// Time limit for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for a reply to begin, and for each read of it.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Failures of requests to the Hub. Each message is one line and a hint; none contains the token.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(
        "cannot reach {endpoint}: {reason}\nhint: check the network and HF_ENDPOINT, or pass a local folder or file"
    )]
    Unreachable { endpoint: String, reason: String },
    #[error(
        "`{id}` is not completely in the cache, and HF_HUB_OFFLINE is set\nhint: unset HF_HUB_OFFLINE once to download it"
    )]
    Offline { id: String },
    #[error(
        "unknown repository `{id}`, or it is private (401)\nhint: check the spelling; for a private repository, set HF_TOKEN"
    )]
    NoToken { id: String },
    #[error("the Hub does not accept the token for `{id}` (401)\nhint: create a new one at {endpoint}/settings/tokens")]
    BadToken { id: String, endpoint: String },
    #[error(
        "`{id}` is gated and your access to it is not granted ({status})\nhint: accept its terms at {page}, then set HF_TOKEN"
    )]
    Gated { id: String, status: u16, page: String },
    #[error("the Hub has no {what} (404)\nhint: check the spelling of the id and the revision")]
    NotFound { what: String },
    #[error("the Hub returned {status} for {url}\nhint: try again later")]
    Status { status: u16, url: String },
    #[error(
        "the download of `{file}` stopped at {done} of {size} bytes: {reason}\nhint: run the same command again to resume it"
    )]
    Interrupted { file: String, done: u64, size: String, reason: String },
    #[error(
        "no space is left for `{file}` in {folder}\nhint: free {needed} bytes there, or set HF_HOME to a larger disk"
    )]
    DiskFull { file: String, folder: String, needed: String },
    #[error(
        "`{file}` arrived damaged: its SHA-256 differs from the Hub's\nhint: run the same command again to download it again"
    )]
    Damaged { file: String },
    #[error("invalid reply from the Hub for `{id}`: {reason}\nhint: check that HF_ENDPOINT is the address of a Hub")]
    Nonsense { id: String, reason: String },
    #[error(
        "the Hub sends more than the {limit} bytes of `{file}`{listed}\nhint: try again later; if it happens again, download the file \
         yourself"
    )]
    TooLarge { file: String, limit: u64, listed: &'static str },
    #[error("cannot write {path}: {source}")]
    Io { path: String, source: std::io::Error },
}

pub(super) struct Client<'a> {
    config: &'a HubConfig,
    api: Api,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(config: &'a HubConfig) -> anyhow::Result<Self> {
        let https = config.endpoint.starts_with("https://");
        let agent = Agent::config_builder()
            .user_agent(concat!("rft/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity") // sizes and ranges are those of the file itself
            .http_status_as_error(false)
            .https_only(https)
            .max_redirects(0) // the token follows a redirect only to the same origin, see `get`
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .build();
        let token = config.token.as_ref().filter(|_| keeps_secrets(&config.endpoint)).map(|token| token.0.clone());
        let api = ApiBuilder::from_cache(Cache::new(config.cache.clone())).with_endpoint(config.endpoint.clone());
        let api = api.with_token(token).with_user_agent("rft", env!("CARGO_PKG_VERSION")).build();
        Ok(Self { config, api: api.context("prepare requests to the Hub")?, agent: agent.into() })
    }

    pub(super) fn listing(&self, repo: &Repo) -> Result<Listing, HubError> {
        let request = self.api.repo(repo.inner.clone()).info_request().query("blobs", "true");
        let request = request
            .config()
            .http_status_as_error(false)
            .https_only(self.config.endpoint.starts_with("https://"))
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .build();
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        if response.status() != StatusCode::OK {
            let url = format!("{}/api/{}", self.config.endpoint, repo.inner.api_url());
            return Err(self.refused(repo, &url, None, &response));
        }
        let nonsense = |reason| HubError::Nonsense { id: repo.id.clone(), reason };
        let text = match Budget::new(LISTING).read(response.body_mut().as_reader()) {
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                return Err(nonsense(format!("the list of files has more than {} MiB", LISTING >> 20)));
            }
            text => text.map_err(|error| self.unreachable(&error.into()))?,
        };
        let text = String::from_utf8(text).map_err(|_| nonsense("it is not UTF-8 text".to_owned()))?;
        parse_listing(&text).map_err(nonsense)
    }

    pub(super) fn file_url(&self, repo: &Repo, commit: &str, path: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.config.endpoint, repo.inner.url(), escape(path))
    }

    /// Downloads `url` into `partial`, from where that file ends.
    pub(super) fn download(
        &self,
        repo: &Repo,
        url: &str,
        file: &RemoteFile,
        partial: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let io = |source| HubError::Io { path: format!("`{}`", partial.display()), source };
        let mut out = OpenOptions::new().create(true).append(true).open(partial).map_err(io)?;
        let mut done = out.metadata().map_err(io)?.len();
        let mut failures = 0;
        while file.size != Some(done) {
            if file.size.is_some_and(|size| done > size) {
                out.set_len(0).map_err(io)?;
                done = 0;
            }
            let before = done;
            let reason = match self.get(url, done) {
                Err(error) => reason(&error),
                Ok(response) => {
                    let status = response.status();
                    let goes_on =
                        status == StatusCode::PARTIAL_CONTENT && range_start(response.headers()) == Some(done);
                    let later = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                    let range_refused =
                        [StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE].contains(&status);
                    if done > 0 && !goes_on && (status == StatusCode::OK || range_refused) {
                        // The server does not support ranges, or our part is not the beginning of the file: start again.
                        out.set_len(0).map_err(io)?;
                        done = 0;
                    }
                    if goes_on || status == StatusCode::OK {
                        let limit = file.size.unwrap_or(UNLISTED);
                        match copy(response.into_body(), &mut out, &mut done, limit, progress) {
                            Ok(()) if file.size.is_none_or(|size| size == done) => break,
                            Ok(()) => "the connection ended early".to_owned(),
                            Err(CopyError::Read(reason)) => reason,
                            Err(CopyError::TooLarge) => {
                                // What is there is not the beginning of the file that was listed.
                                out.set_len(0).map_err(io)?;
                                let listed = if file.size.is_some() { " that it lists" } else { " that are allowed" };
                                return Err(HubError::TooLarge { file: file.path.clone(), limit, listed });
                            }
                            Err(CopyError::Write(error)) => return Err(self.write_failed(error, file, partial, done)),
                        }
                    } else if later || range_refused {
                        format!("the Hub returned {}", status.as_u16())
                    } else {
                        return Err(self.refused(repo, url, Some(&file.path), &response));
                    }
                }
            };
            failures = if done > before { 1 } else { failures + 1 };
            if failures > self.config.retries {
                let size = file.size.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                return Err(HubError::Interrupted { file: file.path.clone(), done, size, reason });
            }
            tracing::info!("`{}` stopped at {done} bytes ({reason}); resuming", file.path);
            std::thread::sleep(Duration::from_millis(250 << failures.min(6)));
        }
        out.sync_all().map_err(|error| self.write_failed(error, file, partial, done))?;
        drop(out);
        if let Some(expected) = &file.sha256
            && hash::sha256_file(partial).map_err(io)? != *expected
        {
            std::fs::remove_file(partial).map_err(io)?;
            return Err(HubError::Damaged { file: file.path.clone() });
        }
        Ok(())
    }

    /// Requests `url` from byte `from` on, and follows redirects. The token is sent only to the scheme, host and port of the hub.
    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, ureq::Error> {
        const MOST_REDIRECTS: usize = 10;
        let hub: Uri = url.parse().map_err(ureq::http::Error::from)?;
        let mut url = hub.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(&url);
            if let Some(token) = &self.config.token
                && keeps_secrets(&self.config.endpoint)
                && origin(&url) == origin(&hub)
            {
                request = request.header("Authorization", format!("Bearer {}", token.0));
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.call()?;
            let target = response.headers().get("Location").and_then(|it| it.to_str().ok());
            match target.filter(|_| matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)) {
                Some(target) => url = resolved(&url, target)?,
                None => return Ok(response),
            }
        }
        Err(ureq::Error::TooManyRedirects)
    }

    fn unreachable(&self, error: &ureq::Error) -> HubError {
        HubError::Unreachable { endpoint: self.config.endpoint.clone(), reason: reason(error) }
    }

    /// The error behind a status. The Hub's `X-Error-Code` is more precise than the status, which is 401 both for
    /// what does not exist and for what is gated.
    fn refused(&self, repo: &Repo, url: &str, file: Option<&str>, response: &Response<Body>) -> HubError {
        let (id, endpoint) = (repo.id.clone(), &self.config.endpoint);
        let status = response.status().as_u16();
        let code = response.headers().get("X-Error-Code").and_then(|it| it.to_str().ok()).unwrap_or_default();
        match (status, code) {
            (401 | 403, "GatedRepo") | (403, _) => {
                HubError::Gated { page: format!("{endpoint}/{}", repo.inner.url()), id, status }
            }
            (401, _) if self.config.token.is_none() => HubError::NoToken { id },
            (401, _) => HubError::BadToken { id, endpoint: endpoint.clone() },
            (404, code) => {
                let what = match (code, file) {
                    ("RevisionNotFound", _) => format!("revision `{}` of `{id}`", repo.revision()),
                    (_, Some(file)) => format!("file `{file}` in `{id}`"),
                    _ => format!("{} `{id}`", if matches!(repo.kind, Kind::Model) { "model" } else { "data set" }),
                };
                HubError::NotFound { what }
            }
            _ => HubError::Status { status, url: url.to_owned() },
        }
    }

    fn write_failed(&self, error: std::io::Error, file: &RemoteFile, partial: &Path, done: u64) -> HubError {
        let file_name = file.path.clone();
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => HubError::DiskFull {
                file: file_name,
                folder: self.config.cache.display().to_string(),
                needed: file.size.map_or_else(|| "some".to_owned(), |size| size.saturating_sub(done).to_string()),
            },
            _ => HubError::Io { path: format!("`{}`", partial.display()), source: error },
        }
    }
}

enum CopyError {
    Read(String),
    TooLarge,
    Write(std::io::Error),
}

/// Appends a body to a file, which may become `limit` bytes long.
fn copy(
    body: Body,
    out: &mut File,
    done: &mut u64,
    limit: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), CopyError> {
    let mut reader = body.into_reader();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error.to_string())),
        };
        if *done + read as u64 > limit {
            return Err(CopyError::TooLarge);
        }
        out.write_all(&buffer[..read]).map_err(CopyError::Write)?;
        *done += read as u64;
        progress(*done);
    }
}

/// Whether a token may be sent there: over TLS, or to this machine.
pub(super) fn keeps_secrets(endpoint: &str) -> bool {
    let host = endpoint.strip_prefix("http://").map(|it| it.split(['/', ':']).next().unwrap_or_default());
    host.is_none_or(|host| ["localhost", "127.0.0.1"].contains(&host))
}

/// The scheme, host and port of a URL.
fn origin(url: &Uri) -> (Option<&str>, Option<&str>, Option<u16>) {
    let port = url.port_u16().or_else(|| match url.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    });
    (url.scheme_str(), url.host(), port)
}

/// The address of a `Location` in an answer from `url`: whole, or without scheme, host or folder.
fn resolved(url: &Uri, target: &str) -> Result<Uri, ureq::Error> {
    let scheme = url.scheme_str().unwrap_or("https");
    let authority = url.authority().map_or("", |it| it.as_str());
    let address = if target.contains("://") {
        target.to_owned()
    } else if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{target}")
    };
    Ok(address.parse::<Uri>().map_err(ureq::http::Error::from)?)
}

/// The first byte that a partial answer contains.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("Content-Range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "unknown host name".to_owned(),
        error => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Percent-encodes what is not plain in a path of folders.
fn escape(path: &str) -> String {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    utf8_percent_encode(path, ESCAPED).to_string()
}

/// Reads the hub's description of a repository. Paths and hashes become file names here, so they are checked.
fn parse_listing(text: &str) -> Result<Listing, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        sha: String,
        #[serde(default)]
        siblings: Vec<Sibling>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sibling {
        rfilename: String,
        size: Option<u64>,
        blob_id: Option<String>,
        lfs: Option<Lfs>,
    }
    #[derive(serde::Deserialize)]
    struct Lfs {
        sha256: String,
        size: Option<u64>,
    }
    let is_hash = |it: &str| (6..=128).contains(&it.len()) && it.chars().all(|c| c.is_ascii_alphanumeric());
    let answer: Answer = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !is_hash(&answer.sha) {
        return Err("its commit is not a hash".to_owned());
    }
    let file = |it: Sibling| {
        let mut parts = Path::new(&it.rfilename).components();
        let plain = parts.all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || it.rfilename.is_empty() || it.rfilename.contains(['\\', '\0', ':']) {
            return Err(format!("it lists the file `{}`", it.rfilename.escape_default()));
        }
        let (size, sha256) = match it.lfs {
            Some(lfs) => (it.size.or(lfs.size), Some(lfs.sha256)),
            None => (it.size, None),
        };
        // A mirror may leave the hashes out; any name that is the same next time serves then.
        let own_name = || hash::sha256(format!("{}/{}", answer.sha, it.rfilename).as_bytes());
        let blob = sha256.clone().or(it.blob_id).unwrap_or_else(own_name);
        match is_hash(&blob) {
            true => Ok(RemoteFile { path: it.rfilename, size, blob, sha256 }),
            false => Err(format!("the hash of `{}` is none", it.rfilename)),
        }
    };
    let files = answer.siblings.into_iter().map(file).collect::<Result<_, _>>()?;
    Ok(Listing { commit: answer.sha, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_become_files_with_names_that_stay_in_the_cache() {
        let hash = "a".repeat(64);
        let text = format!(
            r#"{{"sha":"0123abcd","siblings":[
                {{"rfilename":"config.json","size":7,"blobId":"0123456789"}},
                {{"rfilename":"data/x.parquet","size":9,"blobId":"0123456789","lfs":{{"sha256":"{hash}","size":9}}}},
                {{"rfilename":"bare.json"}}]}}"#
        );
        let listing = parse_listing(&text).unwrap();
        assert_eq!(listing.commit, "0123abcd");
        assert_eq!((listing.files[0].blob.as_str(), listing.files[0].sha256.as_ref()), ("0123456789", None));
        assert_eq!((&listing.files[1].blob, listing.files[1].size), (&hash, Some(9)));
        assert_eq!(listing.files[2].blob.len(), 64);
        for bad in ["../x", "/etc/x", "a/../b", "a\\\\b", ""] {
            let text = format!(r#"{{"sha":"0123abcd","siblings":[{{"rfilename":"{bad}"}}]}}"#);
            assert!(parse_listing(&text).is_err(), "{bad}");
        }
        assert!(parse_listing(r#"{"sha":"../../x"}"#).is_err());
        assert!(parse_listing(r#"{"sha":"0123abcd","siblings":[{"rfilename":"a","blobId":"../../x/y"}]}"#).is_err());
    }

    #[test]
    fn tokens_go_over_tls_or_stay_on_the_machine() {
        assert!(keeps_secrets("https://huggingface.co") && keeps_secrets("http://127.0.0.1:80/x"));
        assert!(!keeps_secrets("http://mirror.example") && !keeps_secrets("http://127.0.0.1.example"));
    }

    #[test]
    fn redirects_are_resolved_and_origins_compared() {
        let from: Uri = "http://hub.example:8080/a/b?c=d".parse().unwrap();
        for (target, url) in [
            ("https://cdn.example/x?y=z", "https://cdn.example/x?y=z"),
            ("//cdn.example/x", "http://cdn.example/x"),
            ("/x/y", "http://hub.example:8080/x/y"),
            ("y", "http://hub.example:8080/a/y"),
        ] {
            assert_eq!(resolved(&from, target).unwrap().to_string(), url);
        }
        assert!(resolved(&from, "http://[").is_err());
        let same = |a: &str, b: &str| origin(&a.parse().unwrap()) == origin(&b.parse().unwrap());
        assert!(same("https://hub.example/a", "https://hub.example:443/b"));
        for other in ["http://hub.example/", "https://hub.example:8443/", "https://hub.example.net/"] {
            assert!(!same("https://hub.example/", other), "{other}");
        }
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escape("data/a b#1.json"), "data/a%20b%231.json");
    }
}
