//! Uploads to the Hub: a stub of its commit API on this machine, and the card that arrives there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rft::model::hub::{HubConfig, Token, UploadFile, push};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::cli::rft;
use crate::train::SMALL;

const SECRET: &str = "hf_verysecrettokenofatest";
const ID: &str = "org/name";
/// Bytes from which the stub stores a file by its hash, and the size of a part.
const LARGE: u64 = 10_000;
const PART: u64 = 4096;

/// What the stub has received.
#[derive(Default)]
struct HubState {
    /// Method, path and whether the token was sent.
    requests: Vec<(String, bool)>,
    created: Option<Value>,
    /// By address.
    parts: BTreeMap<String, Vec<u8>>,
    /// By hash.
    stored: BTreeMap<String, Vec<u8>>,
    /// The committed files.
    files: BTreeMap<String, Vec<u8>>,
    commits: usize,
}

/// How the stub misbehaves.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Large files are sent in parts.
    multipart: bool,
    /// The first request to the storage fails.
    storage_fails_once: bool,
    /// Every request gets this status.
    status: Option<u16>,
}

struct HubStub {
    address: String,
    state: Arc<Mutex<HubState>>,
}

impl HubStub {
    fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        // The storage is another host for a client: the same machine under another name.
        let storage = format!("http://localhost:{}/storage", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(HubState::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, storage) = (shared.clone(), storage.clone());
                thread::spawn(move || while converse(stream.as_ref().unwrap(), &state, &storage, faults).is_some() {});
            }
        });
        Self { address, state }
    }

    fn config(&self) -> HubConfig {
        HubConfig {
            endpoint: self.address.clone(),
            cache: PathBuf::from("/nowhere"),
            token: Some(Token::new(SECRET)),
            offline: false,
            retries: 2,
        }
    }
}

fn converse(mut stream: &TcpStream, state: &Mutex<HubState>, storage: &str, faults: Faults) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut token, mut length) = (false, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        token |= name.eq_ignore_ascii_case("authorization") && value == format!("Bearer {SECRET}");
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (status, etag, answer) = match faults.status {
        Some(status) => (status, None, json!({ "error": "no write access" })),
        None => answer(&mut state.lock().unwrap(), &method, &path, token, body, storage, faults),
    };
    let answer = answer.to_string();
    let etag = etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n{etag}\r\n", answer.len());
    stream.write_all(format!("{head}{answer}").as_bytes()).ok()
}

fn answer(
    state: &mut HubState,
    method: &str,
    path: &str,
    token: bool,
    body: Vec<u8>,
    storage: &str,
    faults: Faults,
) -> (u16, Option<String>, Value) {
    state.requests.push((format!("{method} {path}"), token));
    let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let done = |value| (200, None, value);
    match path {
        "/api/repos/create" => {
            let again = state.created.is_some();
            state.created = Some(parsed);
            if again { (409, None, json!({ "error": "You already created this model repo" })) } else { done(json!({})) }
        }
        "/api/models/org/name/preupload/main" => {
            let mode = |file: &Value| {
                let by_hash = file["size"].as_u64().unwrap() > LARGE;
                assert!(BASE64.decode(file["sample"].as_str().unwrap()).unwrap().len() <= 512);
                json!({ "path": file["path"], "uploadMode": if by_hash { "lfs" } else { "regular" } })
            };
            done(json!({ "files": parsed["files"].as_array().unwrap().iter().map(mode).collect::<Vec<_>>() }))
        }
        "/org/name.git/info/lfs/objects/batch" => {
            let (oid, size) =
                (parsed["objects"][0]["oid"].as_str().unwrap(), parsed["objects"][0]["size"].as_u64().unwrap());
            if state.stored.contains_key(oid) {
                return done(json!({ "objects": [{ "oid": oid, "size": size }] }));
            }
            let upload = if faults.multipart {
                let mut header = json!({ "chunk_size": PART.to_string() });
                for number in 1..=size.div_ceil(PART) {
                    header[format!("{number:05}")] = json!(format!("{storage}/{oid}/{number:05}"));
                }
                json!({ "href": format!("{}/complete", storage.replace("localhost", "127.0.0.1")), "header": header })
            } else {
                json!({ "href": format!("{storage}/{oid}") })
            };
            done(
                json!({ "transfer": "basic", "objects": [{ "oid": oid, "size": size, "actions": { "upload": upload } }] }),
            )
        }
        "/storage/complete" => {
            let oid = parsed["oid"].as_str().unwrap();
            let mut whole = Vec::new();
            for part in parsed["parts"].as_array().unwrap() {
                let bytes = &state.parts[&format!("/storage/{oid}/{:05}", part["partNumber"].as_u64().unwrap())];
                assert_eq!(part["etag"], json!(format!("\"{}\"", bytes.len())));
                whole.extend_from_slice(bytes);
            }
            state.stored.insert(oid.to_owned(), whole);
            done(json!({}))
        }
        "/api/models/org/name/commit/main" => {
            let lines = String::from_utf8(body).unwrap();
            for line in lines.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let value = &line["value"];
                let bytes = match line["key"].as_str().unwrap() {
                    "header" => continue,
                    "file" => BASE64.decode(value["content"].as_str().unwrap()).unwrap(),
                    "lfsFile" => state.stored[value["oid"].as_str().unwrap()].clone(),
                    other => panic!("{other}"),
                };
                state.files.insert(value["path"].as_str().unwrap().to_owned(), bytes);
            }
            state.commits += 1;
            done(json!({ "commitOid": "0123abc", "commitUrl": "x" }))
        }
        address if method == "PUT" => {
            let failed = state.requests.iter().filter(|(path, _)| path.starts_with("PUT")).count() == 1;
            if faults.storage_fails_once && failed {
                return (503, None, json!({}));
            }
            let name = address.strip_prefix("/storage/").unwrap();
            let etag = format!("\"{}\"", body.len());
            match name.split_once('/') {
                Some(_) => drop(state.parts.insert(address.to_owned(), body)),
                None => {
                    let hash: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
                    assert_eq!(hash, name, "the bytes of a file are those of its hash");
                    state.stored.insert(name.to_owned(), body);
                }
            }
            (200, Some(etag), json!({}))
        }
        other => (404, None, json!({ "error": format!("{other} not found") })),
    }
}

/// A folder with a small and a large file.
fn files() -> (TempDir, Vec<UploadFile>) {
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..2 * LARGE).map(|i| (i % 251) as u8).collect();
    let file = |name: &str, bytes: &[u8]| {
        let source = folder.path().join(name);
        fs::write(&source, bytes).unwrap();
        UploadFile { path: name.to_owned(), source }
    };
    let list = vec![file("README.md", b"# card\n"), file("weights", &large)];
    (folder, list)
}

#[test]
fn all_files_arrive_in_one_commit_and_the_token_goes_only_to_the_hub() {
    for multipart in [false, true] {
        let stub = HubStub::start(Faults { multipart, storage_fails_once: true, ..Faults::default() });
        let (_folder, list) = files();
        let pushed = push(&stub.config(), ID, true, &list, "Upload", &mut |_| {}).unwrap();
        assert_eq!((pushed.url, pushed.commit.as_str()), (format!("{}/{ID}", stub.address), "0123abc"));
        let again = push(&stub.config(), ID, true, &list, "Upload", &mut |path| panic!("{path} is there already"));
        assert!(again.is_ok());

        let state = stub.state.lock().unwrap();
        assert_eq!(state.commits, 2);
        for file in &list {
            assert_eq!(state.files[&file.path], fs::read(&file.source).unwrap());
        }
        assert_eq!(state.created.as_ref().unwrap()["private"], true);
        for (request, token) in &state.requests {
            assert_eq!(*token, !request.starts_with("PUT"), "{request}");
        }
    }
}

#[test]
fn refusals_are_explained_without_the_token() {
    let (_folder, list) = files();
    let refused = |config: &HubConfig| {
        let error = format!("{:#}", push(config, ID, false, &list, "Upload", &mut |_| {}).unwrap_err());
        assert!(!error.contains(SECRET), "{error}");
        error
    };
    let stub = HubStub::start(Faults { status: Some(401), ..Faults::default() });
    let error = refused(&stub.config());
    assert!(error.contains("the Hub returned 401: no write access") && error.contains("/settings/tokens"), "{error}");
    let forbidden = HubStub::start(Faults { status: Some(403), ..Faults::default() });
    assert!(refused(&forbidden.config()).contains("hint: the token needs write access"));
    assert!(refused(&HubConfig { token: None, ..stub.config() }).contains("hint: set HF_TOKEN"));
    assert!(refused(&HubConfig { offline: true, ..stub.config() }).contains("HF_HUB_OFFLINE"));
    let open = HubConfig { endpoint: "http://hub.example".into(), ..stub.config() };
    assert!(refused(&open).contains("without encryption"));
}

/// A folder with a finished run and an evaluation of it.
fn finished() -> &'static Path {
    static FINISHED: LazyLock<TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        rft(folder.path()).args(SMALL).assert().success();
        let eval = ["eval", "--adapter=runs/run", "--bench=arithmetic-1", "--limit=32", "--samples=2", "--threads=1"];
        rft(folder.path()).args(eval).assert().success();
        folder
    });
    FINISHED.path()
}

#[test]
fn a_run_is_pushed_with_a_card() {
    let stub = HubStub::start(Faults::default());
    let output = rft(finished())
        .args(["push", "runs/run", ID, "--private"])
        .env("HF_ENDPOINT", &stub.address)
        .env("HF_TOKEN", SECRET)
        .env("HF_HOME", "/nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), format!("{}/{ID}", stub.address));
    assert!(!finished().join("runs/run/hub").exists());

    let state = stub.state.lock().unwrap();
    let of_run = |name: &str| fs::read(finished().join("runs/run").join(name)).unwrap();
    for (name, source) in [
        ("adapter_model.safetensors", "adapter/adapter_model.safetensors"),
        ("adapter_config.json", "adapter/adapter_config.json"),
        ("config.toml", "config.toml"),
        ("prompt.toml", "prompt.toml"),
        ("manifest.json", "manifest.json"),
    ] {
        assert_eq!(state.files[name], of_run(source), "{name}");
    }
    let pictures = state.files.keys().filter(|name| name.starts_with("curves/")).count();
    assert_eq!(pictures, 4);
    assert!(!state.files.keys().any(|name| name.contains("completions") || name.contains("metrics")), "no data");

    // The numbers on the card are those of the files.
    let card = String::from_utf8(state.files["README.md"].clone()).unwrap();
    let evals = finished().join("evals");
    let folder = fs::read_dir(&evals).unwrap().next().unwrap().unwrap().path();
    let results: Value = serde_json::from_slice(&fs::read(folder.join("arithmetic-1/results.json")).unwrap()).unwrap();
    let percent = |value: &Value| format!("{:.1}", 100.0 * value.as_f64().unwrap());
    let accuracy = &results["accuracy"];
    let row = format!(
        "| arithmetic-1 | `null-example` | {} [{}, {}] | 32 of ",
        percent(&accuracy["value"]),
        percent(&accuracy["low"]),
        percent(&accuracy["high"])
    );
    assert!(card.contains(&row), "{row}\n{card}");
    let summary: Value = serde_json::from_slice(&of_run("summary.json")).unwrap();
    let adapter = summary["sha256"]["adapter"].as_str().unwrap();
    assert!(card.contains(&format!("| adapter weights | `{adapter}` |")), "{card}");
    assert!(
        card.contains("| held-out questions | before training | after training |\n|---|---|---|\n| sampled (16) | ")
    );
    assert!(card.contains("| `train.learning_rate` | 0.001 |") && card.contains("library_name: peft"), "{card}");
    assert!(card.contains("`null-example`, wording `rft`") && card.contains("<examples>"), "the prior prompt: {card}");
}

#[test]
fn a_dry_run_writes_the_folder_and_a_merged_model_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("card");
    let arg = out.display().to_string();
    rft(finished()).args(["push", "runs/run", ID, "--merged", "--dry-run", &arg]).assert().success();
    for name in ["README.md", "model.safetensors", "config.json", "tokenizer.json", "prompt.toml"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    assert!(fs::read_to_string(out.join("README.md")).unwrap().contains("library_name: transformers"));
    let error = crate::cli::rft(finished()).args(["push", "runs/run", ID, "--dry-run", &arg]).output().unwrap();
    assert!(String::from_utf8_lossy(&error.stderr).contains("exists already"));
    let error = rft(finished()).args(["push", "runs/run", "name"]).output().unwrap();
    assert!(String::from_utf8_lossy(&error.stderr).contains("`name` is not a hub id"));
}
