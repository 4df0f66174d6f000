//! Uploads to the Hub: one commit with all files of a folder.
//!
//! The Hub says which files it stores by hash (LFS) and which are part of the commit itself. The former are sent to addresses
//! that it names, which do not get the token; then a commit names all of them. Until the commit, nothing changes in the repository.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use ureq::http::{Method, Request};
use ureq::{Agent, SendBody};

use super::config::HubConfig;
use super::http::keeps_secrets;
use super::repo::is_hub_id;
use crate::disk::budget::Budget;
use crate::disk::hash::sha256_file;

/// Maximum number of bytes of a reply.
const REPLY: u64 = 16 << 20;
/// Time limit for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for a reply to begin; a commit of many files can take a while.
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes at the start of a file that the Hub looks at.
const SAMPLE: u64 = 512;
/// The branch that gets the commit.
const BRANCH: &str = "main";

/// A file to upload.
#[derive(Clone, Debug)]
pub struct UploadFile {
    /// Its path in the repository.
    pub path: String,
    pub source: PathBuf,
}

/// The result of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The address of the repository.
    pub url: String,
    /// The new commit.
    pub commit: String,
}

/// Uploads `files` to the model repository `id`, which is created if it does not exist. `progress` gets the path of each file
/// that is stored by hash, when it is sent.
///
/// # Errors
/// Without a token, if the Hub refuses, and if a file changes meanwhile.
pub fn push(
    config: &HubConfig,
    id: &str,
    private: bool,
    files: &[UploadFile],
    message: &str,
    progress: &mut dyn FnMut(&str),
) -> Result<Pushed> {
    ensure!(is_hub_id(id), "`{id}` is not a hub id\nhint: hub ids have the form org/name");
    ensure!(!config.offline, "HF_HUB_OFFLINE is set, so nothing can be uploaded\nhint: unset it, or use --dry-run");
    ensure!(
        config.token.is_some(),
        "no token for the Hub\nhint: set HF_TOKEN to a token with write access, or use --dry-run"
    );
    ensure!(
        keeps_secrets(&config.endpoint),
        "the token would be sent to {} without encryption\nhint: use an https address in HF_ENDPOINT",
        config.endpoint
    );
    let hub = Hub::new(config, id);
    hub.create(private)?;
    let modes = hub.modes(files)?;
    let mut lines = vec![json!({ "key": "header", "value": { "summary": message, "description": "" } })];
    for (file, by_hash) in files.iter().zip(modes) {
        let value = if by_hash {
            let (oid, size) = (sha256_file(&file.source)?, file.source.metadata()?.len());
            hub.send_by_hash(file, &oid, size, progress)?;
            json!({ "key": "lfsFile", "value": { "path": file.path, "algo": "sha256", "oid": oid, "size": size } })
        } else {
            let bytes = std::fs::read(&file.source).with_context(|| format!("read `{}`", file.source.display()))?;
            json!({ "key": "file", "value": { "path": file.path, "encoding": "base64", "content": BASE64.encode(bytes) } })
        };
        lines.push(value);
    }
    let commit = hub.commit(&lines)?;
    Ok(Pushed { url: format!("{}/{id}", config.endpoint), commit })
}

/// A model repository on the Hub.
struct Hub<'a> {
    config: &'a HubConfig,
    id: &'a str,
    agent: Agent,
}

/// A reply with its status.
struct HubReply {
    status: u16,
    body: String,
}

impl<'a> Hub<'a> {
    fn new(config: &'a HubConfig, id: &'a str) -> Self {
        let agent = Agent::config_builder()
            .user_agent(concat!("rft/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .https_only(config.endpoint.starts_with("https://"))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(REPLY_TIMEOUT))
            .build();
        Self { config, id, agent: agent.into() }
    }

    /// Creates the repository, unless it exists.
    fn create(&self, private: bool) -> Result<()> {
        let (organization, name) = self.id.split_once('/').expect("checked by `is_hub_id`");
        let body = json!({ "name": name, "organization": organization, "type": "model", "private": private });
        let what = || format!("create the repository `{}`", self.id);
        let reply = self.post("/api/repos/create", "application/json", &body.to_string()).with_context(what)?;
        // 409: it exists. A token for one repository may not create any, and gets 403 also if the repository exists.
        if matches!(reply.status, 409 | 403) {
            return Ok(());
        }
        self.accepted(reply).with_context(what).map(drop)
    }

    /// Whether each file is stored by its hash.
    fn modes(&self, files: &[UploadFile]) -> Result<Vec<bool>> {
        #[derive(Deserialize)]
        struct Answer {
            files: Vec<Mode>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Mode {
            path: String,
            upload_mode: String,
        }
        let mut list = Vec::new();
        for file in files {
            let read = || -> std::io::Result<Value> {
                let mut sample = Vec::new();
                let size = file.source.metadata()?.len();
                File::open(&file.source)?.take(SAMPLE).read_to_end(&mut sample)?;
                Ok(json!({ "path": file.path, "size": size, "sample": BASE64.encode(sample) }))
            };
            list.push(read().with_context(|| format!("read `{}`", file.source.display()))?);
        }
        let path = format!("/api/models/{}/preupload/{BRANCH}", self.id);
        let body = json!({ "files": list }).to_string();
        let reply = self.post(&path, "application/json", &body).and_then(|reply| self.accepted(reply));
        let reply = reply.with_context(|| format!("prepare the upload to `{}`", self.id))?;
        let answer: Answer = serde_json::from_str(&reply).context("read the Hub's reply about the files")?;
        let modes: BTreeMap<String, String> = answer.files.into_iter().map(|it| (it.path, it.upload_mode)).collect();
        let mode = |file: &UploadFile| match modes.get(&file.path).map(String::as_str) {
            Some("lfs") => Ok(true),
            Some("regular") => Ok(false),
            other => bail!("the Hub does not say how to upload `{}`: {}", file.path, other.unwrap_or("nothing")),
        };
        files.iter().map(mode).collect()
    }

    /// Sends a file to the address that the Hub names for its hash, unless it has it already.
    fn send_by_hash(&self, file: &UploadFile, oid: &str, size: u64, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let what = || format!("upload `{}` to `{}`", file.path, self.id);
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
            "ref": { "name": format!("refs/heads/{BRANCH}") }, "objects": [{ "oid": oid, "size": size }],
        });
        let path = format!("/{}.git/info/lfs/objects/batch", self.id);
        let reply = self.post(&path, "application/vnd.git-lfs+json", &body.to_string());
        let reply = reply.and_then(|reply| self.accepted(reply)).with_context(what)?;
        let answer: Value = serde_json::from_str(&reply).with_context(what)?;
        let object = &answer["objects"][0];
        if let Some(error) = object["error"]["message"].as_str() {
            bail!("{}: the Hub refuses it: {}", what(), plain(error));
        }
        let upload = &object["actions"]["upload"];
        let Some(href) = upload["href"].as_str() else { return Ok(()) }; // the Hub has a file with this hash
        progress(&file.path);
        let header = &upload["header"];
        match header["chunk_size"].as_str().and_then(|size| size.parse::<u64>().ok()).or(header["chunk_size"].as_u64())
        {
            Some(chunk) => self.send_parts(file, oid, size, chunk, href, header).with_context(what)?,
            None => drop(self.put(href, &file.source, 0, size).with_context(what)?),
        }
        if let Some(verify) = object["actions"]["verify"]["href"].as_str() {
            let body = json!({ "oid": oid, "size": size }).to_string();
            let reply = self.request(Method::POST, verify, "application/vnd.git-lfs+json", &body);
            reply.and_then(|reply| self.accepted(reply)).with_context(what)?;
        }
        Ok(())
    }

    /// Sends a large file in parts of `chunk` bytes, each to an address of its own, and confirms them.
    fn send_parts(
        &self,
        file: &UploadFile,
        oid: &str,
        size: u64,
        chunk: u64,
        href: &str,
        header: &Value,
    ) -> Result<()> {
        ensure!(chunk > 0, "the Hub asks for parts of 0 bytes");
        let mut parts = Vec::new();
        for number in 1..=size.div_ceil(chunk).max(1) {
            let key = [format!("{number:05}"), number.to_string()].into_iter().find(|key| header[key].is_string());
            let address = key.and_then(|key| header[&key].as_str()).context("the Hub names too few parts")?;
            let start = (number - 1) * chunk;
            let etag = self.put(address, &file.source, start, chunk.min(size - start))?;
            parts.push(json!({ "partNumber": number, "etag": etag.context("a stored part has no ETag")? }));
        }
        let body = json!({ "oid": oid, "parts": parts }).to_string();
        let reply = self.request(Method::POST, href, "application/vnd.git-lfs+json", &body)?;
        self.accepted(reply).map(drop)
    }

    /// Sends `length` bytes of a file to a storage address, without the token. Returns the stored part's ETag.
    fn put(&self, url: &str, source: &Path, start: u64, length: u64) -> Result<Option<String>> {
        let mut failures = 0;
        loop {
            let mut file = File::open(source).with_context(|| format!("read `{}`", source.display()))?;
            file.seek(SeekFrom::Start(start))?;
            let request = Request::put(url).header("Content-Length", length.to_string());
            let request = request.body(SendBody::from_owned_reader(file.take(length)))?;
            let failure = match self.agent.run(request) {
                Ok(response) if response.status().is_success() => {
                    let etag = response.headers().get("ETag").and_then(|etag| etag.to_str().ok());
                    return Ok(etag.map(str::to_owned));
                }
                Ok(response) if !response.status().is_server_error() => {
                    bail!("the storage returned {}", response.status().as_u16())
                }
                Ok(response) => format!("the storage returned {}", response.status().as_u16()),
                Err(error) => error.to_string(),
            };
            failures += 1;
            ensure!(failures <= self.config.retries, "{} ({failures} tries)", plain(&failure));
            thread::sleep(Duration::from_millis(250 << failures.min(6)));
        }
    }

    fn commit(&self, lines: &[Value]) -> Result<String> {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let path = format!("/api/models/{}/commit/{BRANCH}", self.id);
        let reply = self.post(&path, "application/x-ndjson", &body).and_then(|reply| self.accepted(reply));
        let reply = reply.with_context(|| format!("commit to `{}`", self.id))?;
        let answer: Value = serde_json::from_str(&reply).context("read the Hub's reply to the commit")?;
        Ok(plain(answer["commitOid"].as_str().unwrap_or_default()))
    }

    fn post(&self, path: &str, kind: &str, body: &str) -> Result<HubReply> {
        self.request(Method::POST, &format!("{}{path}", self.config.endpoint), kind, body)
    }

    /// Sends a request, with the token if it goes to the Hub itself.
    fn request(&self, method: Method, url: &str, kind: &str, body: &str) -> Result<HubReply> {
        let mut request =
            Request::builder().method(method).uri(url).header("Content-Type", kind).header("Accept", kind);
        let to_hub = url.strip_prefix(&self.config.endpoint).is_some_and(|rest| rest.starts_with('/'));
        if let (Some(token), true) = (&self.config.token, to_hub) {
            request = request.header("Authorization", format!("Bearer {}", token.0));
        }
        let sent = self.agent.run(request.body(body)?);
        let mut response = sent.map_err(|error| {
            let reason = plain(&error.to_string());
            anyhow::anyhow!("cannot reach {}: {reason}\nhint: check the network and HF_ENDPOINT", self.config.endpoint)
        })?;
        let bytes = Budget::new(REPLY).read(response.body_mut().as_reader()).context("read the Hub's reply")?;
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(HubReply { status: response.status().as_u16(), body })
    }

    /// The body of a successful reply.
    fn accepted(&self, reply: HubReply) -> Result<String> {
        let HubReply { status, body } = reply;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let said: Value = serde_json::from_str(&body).unwrap_or_default();
        let said = said["error"].as_str().or(said["message"].as_str()).map(plain).unwrap_or_default();
        let colon = if said.is_empty() { "" } else { ": " };
        let hint = match status {
            401 => format!("\nhint: create a token with write access at {}/settings/tokens", self.config.endpoint),
            403 => "\nhint: the token needs write access to this repository or organization".to_owned(),
            _ => String::new(),
        };
        bail!("the Hub returned {status}{colon}{said}{hint}")
    }
}

/// The first line of a foreign text, shortened.
fn plain(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect()
}
