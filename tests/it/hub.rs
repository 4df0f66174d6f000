//! Models and data sets from the hub: a stub of it on this machine, with the faults that real ones have.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use hf_hub::Cache;
use hf_hub::api::sync::ApiBuilder;
use rft::config::LoraSection;
use rft::model::config::ModelConfig;
use rft::model::hub::{HubConfig, HubError, Kind, Plan, Repo, Token, dataset_files_from, model_files};
use rft::model::lora::Adapter;
use rft::model::peft::save_adapter;
use rft::model::safetensors::{Dtype, Writer};
use rft::model::source::ModelSource;
use rft::model::weights::{RandomWeights, Weights};
use sha2::{Digest, Sha256};

use crate::cli::rft;

const ID: &str = "org/name";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SECRET: &str = "hf_verysecrettokenofatest";

/// What the stub serves, how it misbehaves, and what it was asked.
#[derive(Default)]
pub struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    /// Every answer has this status and `X-Error-Code`.
    status: Option<(u16, &'static str)>,
    /// Replies with files end after this number of bytes, this number of times.
    cut: Option<(usize, usize)>,
    /// Ranges are not understood: a request for one gets the whole file.
    no_ranges: bool,
    /// File bodies are sent with one byte changed.
    damage: bool,
    /// The same for the next body alone.
    damage_next: bool,
    /// File bodies have this many bytes more than are listed.
    longer: usize,
    /// Files are redirected to this address, as the hub does for large ones.
    elsewhere: Option<String>,
    requests: Vec<Request>,
}

#[derive(Clone, Debug)]
struct Request {
    path: String,
    range: Option<usize>,
    token: bool,
}

pub struct Stub {
    pub address: String,
    hub: Arc<Mutex<Hub>>,
}

impl Hub {
    /// A hub that serves these files without faults.
    pub fn with<N: Into<String>>(files: impl IntoIterator<Item = (N, Vec<u8>)>) -> Self {
        Self { files: files.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect(), ..Self::default() }
    }
}

impl Stub {
    pub fn start(hub: Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let hub = Arc::new(Mutex::new(hub));
        let shared = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), &mut shared.lock().unwrap()); // a client may hang up
            }
        });
        Self { address, hub }
    }

    fn config(&self, cache: &Path) -> HubConfig {
        HubConfig {
            endpoint: self.address.clone(),
            cache: cache.to_owned(),
            token: Some(Token::new(SECRET)),
            offline: false,
            retries: 0,
        }
    }

    fn set(&self, change: impl FnOnce(&mut Hub)) {
        change(&mut self.hub.lock().unwrap());
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.hub.lock().unwrap().requests)
    }
}

fn answer(stream: TcpStream, hub: &mut Hub) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().unwrap_or(Ok(String::new()))?.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path: path.clone(), range: None, token: false };
    for line in lines.by_ref() {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        request.token |= line == format!("authorization: bearer {SECRET}");
        if let Some(range) = line.strip_prefix("range: bytes=") {
            request.range = range.trim_end_matches('-').parse().ok();
        }
    }
    hub.requests.push(request.clone());
    let send = |status: &str, headers: &str, body: &[u8], sent: usize| {
        let mut stream = &stream;
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
        stream.write_all(&body[..sent])
    };
    if let Some((status, code)) = hub.status {
        return send(&format!("{status} No"), &format!("X-Error-Code: {code}\r\n"), b"no", 2);
    }
    if path.starts_with("/api/") {
        let siblings: Vec<_> = hub.files.iter().map(|(name, bytes)| listed(name, bytes)).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return send("200 OK", "", body.as_bytes(), body.len());
    }
    let name = path.split_once(&format!("/resolve/{COMMIT}/")).map_or(&path[1..], |(_, name)| name);
    if let Some(elsewhere) = &hub.elsewhere {
        let headers = format!("Location: {elsewhere}/{name}\r\nETag: \"{name}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
        return send("302 Found", &headers, b"", 0);
    }
    let Some(mut bytes) = hub.files.get(name).cloned() else { return send("404 No", "", b"", 0) };
    if hub.damage || std::mem::take(&mut hub.damage_next) {
        bytes[0] ^= 1;
    }
    bytes.extend(vec![b' '; hub.longer]);
    let start = request.range.filter(|_| !hub.no_ranges).unwrap_or(0);
    let body = &bytes[start..];
    let sent = match &mut hub.cut {
        Some((at, times)) if *times > 0 && body.len() > *at => {
            *times -= 1;
            *at
        }
        _ => body.len(),
    };
    match request.range.filter(|_| !hub.no_ranges) {
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            send("206 Partial Content", &range, body, sent)
        }
        None => send("200 OK", "", body, sent),
    }
}

/// A file as the hub lists it: large ones, here the safetensors, with their SHA-256.
fn listed(name: &str, bytes: &[u8]) -> serde_json::Value {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": &digest[..40]});
    if name.ends_with(".safetensors") {
        file["lfs"] = serde_json::json!({"sha256": digest, "size": bytes.len(), "pointerSize": 130});
    }
    file
}

fn config() -> ModelConfig {
    ModelConfig { max_position_embeddings: 256, eos_token_ids: vec![1], ..ModelConfig::qwen2(2, 32, (4, 2), 64, 512) }
}

/// A repository with a model of random weights in two shards, and files that are not needed.
fn model() -> Hub {
    let folder = tempfile::tempdir().unwrap();
    let weights = RandomWeights::new(&config(), 1);
    let mut map = serde_json::Map::new();
    let tensors = config().tensors();
    for (number, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let name = format!("model-{:05}-of-00002.safetensors", number + 1);
        let mut writer = Writer::create(&folder.path().join(&name), part, Dtype::F32).unwrap();
        for (tensor, shape) in part {
            writer.write(tensor, &weights.get(tensor, shape).unwrap()).unwrap();
            map.insert(tensor.clone(), name.clone().into());
        }
        writer.finish().unwrap();
    }
    let mut hub = Hub::default();
    for file in fs::read_dir(folder.path()).unwrap().flatten() {
        hub.files.insert(file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap());
    }
    let mut text = |name: &str, text: String| hub.files.insert(name.to_owned(), text.into_bytes());
    text("model.safetensors.index.json", serde_json::json!({"weight_map": map}).to_string());
    text("config.json", config().to_json("float32").to_string());
    text("tokenizer.json", "{}".to_owned());
    text("README.md", "not wanted".to_owned());
    text("pytorch_model.bin", "not wanted".to_owned());
    hub
}

fn check_weights(source: &ModelSource) {
    let random = RandomWeights::new(&config(), 1);
    for (name, shape) in config().tensors() {
        assert_eq!(source.weights.get(&name, &shape).unwrap(), random.get(&name, &shape).unwrap(), "{name}");
    }
}

fn error(config: &HubConfig) -> String {
    let error = ModelSource::open_hub(config, ID, "main").err().expect("the hub refuses");
    let text = format!("{error:#}");
    assert!(error.downcast_ref::<HubError>().is_some(), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("hint: "), "{text}");
    assert!(!text.contains(SECRET) && !format!("{error:?}{config:?}").contains(SECRET));
    text
}

#[test]
fn a_sharded_model_is_downloaded_once_into_pythons_layout() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(model());
    let hub = stub.config(cache.path());
    let plan = Plan::new(&hub, Repo::new(Kind::Model, ID, "main").unwrap(), model_files).unwrap();
    let wanted: usize =
        stub.hub.lock().unwrap().files.iter().filter(|it| !it.1.starts_with(b"not wanted")).map(|it| it.1.len()).sum();
    assert_eq!(plan.bytes(), wanted as u64);
    let mut last = 0;
    plan.fetch(&mut |done| {
        assert!(done >= last);
        last = done;
    })
    .unwrap();
    assert_eq!(last, plan.bytes());

    let source = ModelSource::open_hub(&hub, ID, "main").unwrap();
    check_weights(&source);
    assert_eq!((source.name.as_str(), &source.config), (ID, &config()));
    let requests = stub.requests();
    assert_eq!(requests.len(), 6, "{requests:?}"); // the listing and five files
    assert!(requests.iter().all(|it| it.token && !it.path.contains("README") && !it.path.contains(".bin")));

    let repository = cache.path().join("models--org--name");
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let shard = repository.join("snapshots").join(COMMIT).join("model-00001-of-00002.safetensors");
    let target = fs::read_link(&shard).unwrap();
    assert!(target.starts_with("../../blobs") && target.file_name().unwrap().len() == 64, "{target:?}");
    let blobs: Vec<_> = fs::read_dir(repository.join("blobs")).unwrap().flatten().map(|it| it.file_name()).collect();
    assert_eq!(blobs.len(), 5, "{blobs:?}");

    // With the cache full, neither an absent hub nor the offline switch matters.
    let gone = HubConfig { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
    check_weights(&ModelSource::open_hub(&gone, ID, "main").unwrap());
    check_weights(&ModelSource::open_hub(&HubConfig { offline: true, ..gone }, ID, COMMIT).unwrap());
    assert!(stub.requests().is_empty());
}

#[test]
fn a_cache_filled_by_another_program_is_used_without_the_hub() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(model());
    ModelSource::open_hub(&stub.config(cache.path()), ID, "main").unwrap();
    fs::remove_dir_all(cache.path().join("models--org--name/.rft")).unwrap();
    let gone = HubConfig { endpoint: "http://127.0.0.1:1".into(), ..stub.config(cache.path()) };
    check_weights(&ModelSource::open_hub(&gone, ID, "main").unwrap());
    check_weights(&ModelSource::open_hub(&HubConfig { offline: true, ..gone }, ID, "main").unwrap());
    let shard = cache.path().join("models--org--name/snapshots").join(COMMIT).join("model-00002-of-00002.safetensors");
    fs::remove_file(shard).unwrap();
    let offline = HubConfig { offline: true, ..stub.config(cache.path()) };
    assert!(
        format!("{:#}", ModelSource::open_hub(&offline, ID, "main").err().unwrap()).contains("model-00002-of-00002")
    );
}

#[test]
fn an_interrupted_download_is_resumed() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(Hub { cut: Some((20_000, 1)), ..model() });
    let hub = stub.config(cache.path());
    let text = error(&hub);
    assert!(text.contains("stopped at 20000 of") && text.contains("to resume it"), "{text}");
    let first = stub.requests().last().unwrap().clone();
    check_weights(&ModelSource::open_hub(&hub, ID, "main").unwrap());
    let resumed = stub.requests().into_iter().find(|it| it.range.is_some()).expect("a request for a range");
    assert_eq!((resumed.path, resumed.range), (first.path, Some(20_000)));
}

#[test]
fn several_interruptions_of_a_download_are_retried() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(Hub { cut: Some((20_000, 3)), ..model() });
    let hub = HubConfig { retries: 1, ..stub.config(cache.path()) };
    check_weights(&ModelSource::open_hub(&hub, ID, "main").unwrap());
    assert!(stub.requests().iter().filter(|it| it.range.is_some()).count() >= 3);
}

#[test]
fn a_server_without_ranges_sends_the_file_again() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(Hub { cut: Some((20_000, 1)), no_ranges: true, ..model() });
    let hub = stub.config(cache.path());
    error(&hub);
    check_weights(&ModelSource::open_hub(&hub, ID, "main").unwrap());
}

#[test]
fn damaged_bytes_are_detected_and_downloaded_again() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(Hub { damage: true, ..model() });
    // Small files come without a checksum that is checked, so the large ones go first.
    stub.set(|hub| hub.files.retain(|name, _| name.ends_with(".safetensors") || name.ends_with(".json")));
    let hub = stub.config(cache.path());
    let shards = |names: &[String]| Ok(names.iter().filter(|it| it.ends_with(".safetensors")).cloned().collect());
    let fetch = || Plan::new(&hub, Repo::new(Kind::Model, ID, "main").unwrap(), shards).unwrap().fetch(&mut |_| {});
    let text = fetch().unwrap_err().to_string();
    assert!(text.contains("arrived damaged"), "{text}");
    stub.set(|hub| hub.damage = false);
    fetch().unwrap();
    check_weights(&ModelSource::open_hub(&hub, ID, "main").unwrap());
}

#[test]
fn a_file_that_arrives_damaged_once_is_downloaded_again() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(model());
    let hub = stub.config(cache.path());
    let shards = |names: &[String]| Ok(names.iter().filter(|it| it.ends_with(".safetensors")).cloned().collect());
    let plan = Plan::new(&hub, Repo::new(Kind::Model, ID, "main").unwrap(), shards).unwrap();
    stub.set(|hub| hub.damage_next = true);
    stub.requests();
    plan.fetch(&mut |_| {}).unwrap();
    assert_eq!(stub.requests().len(), 3, "two shards, the first of them twice");
    check_weights(&ModelSource::open_hub(&hub, ID, "main").unwrap());
}

#[test]
fn refusals_end_in_one_line_and_a_hint() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(model());
    let with = stub.config(cache.path());
    let without = HubConfig { token: None, ..with.clone() };
    for (status, code, config, reason) in [
        (401, "", &with, "does not accept the token"),
        (401, "RepoNotFound", &without, "or it is private (401)"),
        (401, "GatedRepo", &without, "is gated"),
        (403, "GatedRepo", &with, "is gated and your access to it is not granted (403)"),
        (403, "", &with, "(403)"),
        (404, "RepoNotFound", &with, "no model `org/name` (404)"),
        (404, "RevisionNotFound", &with, "no revision `main` of `org/name` (404)"),
        (500, "", &with, "returned 500"),
    ] {
        stub.set(|hub| hub.status = Some((status, code)));
        let text = error(config);
        assert!(text.contains(reason), "{status} {code}: {text}");
    }
    let gone = HubConfig { endpoint: "http://127.0.0.1:1".into(), ..with.clone() };
    assert!(error(&gone).contains("cannot reach http://127.0.0.1:1"));
    let unknown = HubConfig { endpoint: "http://no-such-host.invalid".into(), ..with.clone() };
    assert!(error(&unknown).contains("cannot reach http://no-such-host.invalid"));
    assert!(error(&HubConfig { offline: true, ..with.clone() }).contains("HF_HUB_OFFLINE"));
    stub.set(|hub| {
        hub.status = None;
        hub.files = BTreeMap::from([("../../evil".to_owned(), Vec::new())]);
    });
    assert!(error(&with).contains("invalid reply from the Hub"));
    assert!(!cache.path().join("models--org--name/refs").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_a_hint() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(model());
    // /dev/full answers every write as a full disk does.
    let blobs = cache.path().join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    for (name, bytes) in stub.hub.lock().unwrap().files.iter().filter(|(_, bytes)| *bytes != b"not wanted") {
        let file = listed(name, bytes);
        let blob = file["lfs"]["sha256"].as_str().or(file["blobId"].as_str()).unwrap();
        std::os::unix::fs::symlink("/dev/full", blobs.join(format!("{blob}.incomplete"))).unwrap();
    }
    let text = error(&stub.config(cache.path()));
    assert!(text.contains("no space is left"), "{text}");
}

#[test]
fn the_token_is_sent_to_the_hub_only() {
    let storage = Stub::start(model());
    // Another host, as the hub's storage is (the same machine under another name), and another port of the same host.
    for elsewhere in [storage.address.replace("127.0.0.1", "localhost"), storage.address.clone()] {
        let cache = tempfile::tempdir().unwrap();
        let stub = Stub::start(Hub { elsewhere: Some(elsewhere.clone()), ..model() });
        check_weights(&ModelSource::open_hub(&stub.config(cache.path()), ID, "main").unwrap());
        assert!(stub.requests().iter().all(|it| it.token));
        let stored = storage.requests();
        assert!(!stored.is_empty() && stored.iter().all(|it| !it.token), "{elsewhere}: {stored:?}");
    }
}

/// Why files are downloaded by our own code: when this fails, the crate may do it.
#[test]
fn the_crates_download_sends_the_token_elsewhere() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Stub::start(model());
    let elsewhere = storage.address.replace("127.0.0.1", "localhost");
    let stub = Stub::start(Hub { elsewhere: Some(elsewhere), ..model() });
    let builder = ApiBuilder::from_cache(Cache::new(cache.path().to_owned())).with_progress(false);
    let api = builder.with_endpoint(stub.address.clone()).with_token(Some(SECRET.to_owned())).build().unwrap();
    _ = api.model(ID.to_owned()).download("config.json"); // the storage of the stub lacks headers that it needs
    let stored = storage.requests();
    assert!(!stored.is_empty() && stored.iter().all(|it| it.token), "{stored:?}");
}

#[test]
fn the_files_of_a_split_are_downloaded() {
    let cache = tempfile::tempdir().unwrap();
    let files = ["README.md", "main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet"];
    let stub =
        Stub::start(Hub { files: files.map(|it| (it.to_owned(), it.as_bytes().to_vec())).into(), ..Hub::default() });
    let hub = stub.config(cache.path());
    let paths = dataset_files_from(&hub, "openai/gsm8k", "main", "test").unwrap();
    assert_eq!(paths.len(), 1);
    assert_eq!(fs::read_to_string(&paths[0]).unwrap(), files[2]);
    let asked: Vec<String> = stub.requests().into_iter().map(|it| it.path).collect();
    assert_eq!(asked[0], "/api/datasets/openai/gsm8k/revision/main?blobs=true");
    assert_eq!(asked[1], format!("/datasets/openai/gsm8k/resolve/{COMMIT}/{}", files[2]));
    assert_eq!(asked.len(), 2);
    let offline = HubConfig { offline: true, ..hub };
    assert_eq!(dataset_files_from(&offline, "openai/gsm8k", "main", "test").unwrap(), paths);
    assert!(dataset_files_from(&offline, "openai/gsm8k", "main", "train").is_err());
}

#[test]
fn a_file_that_is_larger_than_listed_is_not_downloaded_further() {
    let cache = tempfile::tempdir().unwrap();
    let stub = Stub::start(Hub { longer: 50 << 20, ..model() });
    let hub = stub.config(cache.path());
    let text = error(&hub);
    assert!(text.contains("the Hub sends more than the") && text.contains("that it lists\nhint: "), "{text}");
    let blobs = fs::read_dir(cache.path().join("models--org--name/blobs")).unwrap().flatten();
    assert_eq!(blobs.map(|it| it.metadata().unwrap().len()).sum::<u64>(), 0, "nothing is kept");
    stub.set(|hub| hub.longer = 0);
    check_weights(&ModelSource::open_hub(&hub, ID, "main").unwrap());
}

#[test]
fn a_run_starts_from_an_adapter_on_the_hub() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shape = ModelSource::open("tiny", "main").unwrap().config;
    let adapter = Adapter::new(&shape, &LoraSection::all_linear(2), 1).unwrap();
    save_adapter(&adapter, &folder.path().join("a"), "tiny").unwrap();
    let names = ["adapter_config.json", "adapter_model.safetensors"];
    let files = names.map(|name| (name, fs::read(folder.path().join("a").join(name)).unwrap()));
    let stub = Stub::start(Hub::with(files.into_iter().chain([("README.md", b"not wanted".to_vec())])));
    let args = ["train", "--model=tiny", "--ppe=none", "--init-adapter=org/name", "--steps=1", "--name=run"];
    let small = ["--set=eval.questions=0", "--set=rollout.prompts_per_step=1"];
    let mut command = rft(folder.path());
    command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE");
    let output = command.env("HF_ENDPOINT", &stub.address).env("HF_HOME", cache.path()).args(args).args(small).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("the run starts from the adapter `org/name` of rank 2"), "{said}");
    assert_eq!(stub.requests().iter().filter(|it| it.path.contains("README")).count(), 0);
    let manifest = fs::read_to_string(folder.path().join("runs/run/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let record = &manifest["init_adapter"];
    assert_eq!((record["path"].as_str(), record["revision"].as_str()), (Some("org/name"), Some("main")));
    assert!(names.iter().all(|name| record["files"][name].as_str().is_some_and(|hash| hash.len() == 64)), "{record}");
}
