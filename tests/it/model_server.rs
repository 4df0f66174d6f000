//! A server on this machine that behaves like vLLM, with the embedded model, and with the faults that real ones have.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rft::device::cpu::decoder::CpuDecoder;
use rft::device::cpu::engine::CpuEngine;
use rft::model::lora::Adapter;
use rft::model::peft::load_adapter;
use rft::model::source::ModelSource;
use rft::rollout::{Completion, Engine, Prompt, RolloutRequest, Sampling, Unwatched};
use serde_json::{Value, json};

use crate::stub_server::{read_request, send};

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFault {
    /// It replies as the base model from the load of adapter number `after` on.
    Base { after: usize },
    /// It replies with the adapter before the requested one, from the load of adapter number `after` on.
    Stale { after: usize },
    /// It hangs up on `count` requests after `after` completions, and has forgotten its adapters then.
    Restart { after: usize, count: usize },
    /// It refuses the first `count` requests for completions, because it is busy.
    Busy { count: usize },
    /// Its replies have no log-probabilities.
    NoLogprobs,
    /// It was started without adapters.
    NoAdapters,
}

/// What a server has done.
#[derive(Default)]
pub struct Served {
    /// Names of adapters in the order in which they were loaded and unloaded.
    pub loaded: Vec<String>,
    pub unloaded: Vec<String>,
    /// Number of requests for completions, refused ones too.
    pub asked: usize,
    /// Seeds of the completions that were sent.
    pub seeds: Vec<u64>,
    /// Requests on which it hung up or which it refused.
    pub failed: usize,
    adapters: BTreeMap<String, Adapter>,
}

pub struct ModelServer {
    pub url: String,
    pub served: Arc<Mutex<Served>>,
}

/// Which adapter a server uses.
#[derive(Clone)]
pub enum Fixed {
    /// Requests name the adapter, like those to vLLM.
    ByName,
    /// The one whose folder this file names.
    Named(PathBuf),
}

struct State {
    source: ModelSource,
    fault: Option<ServerFault>,
    fixed: Fixed,
    served: Arc<Mutex<Served>>,
}

impl ModelServer {
    pub fn start(fault: Option<ServerFault>) -> Self {
        Self::start_with(fault, Fixed::ByName)
    }

    pub fn start_with(fault: Option<ServerFault>, fixed: Fixed) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Served::default()));
        let state = State { source: ModelSource::open_embedded().unwrap(), fault, fixed, served: served.clone() };
        let state = Arc::new(state);
        thread::spawn(move || {
            let weights = state.source.weights.as_ref();
            let model = Arc::new(CpuDecoder::load(state.source.config.clone(), weights, 512).unwrap());
            for stream in listener.incoming() {
                let (state, model) = (state.clone(), model.clone());
                thread::spawn(move || while state.converse(stream.as_ref().unwrap(), &model).is_some() {});
            }
        });
        Self { url, served }
    }
}

impl State {
    /// Replies to one request; `None` closes the connection.
    fn converse(&self, stream: &TcpStream, model: &CpuDecoder) -> Option<()> {
        let (_, path, _, body) = read_request(stream)?;
        let (status, answer) = match path.as_str() {
            "/v1/models" => (200, json!({ "object": "list", "data": [{ "id": "org/tiny" }] })),
            "/v1/load_lora_adapter" if self.fault != Some(ServerFault::NoAdapters) => self.load(&body),
            "/v1/unload_lora_adapter" => self.unload(&body),
            "/v1/completions" => {
                let refused = {
                    let mut served = self.served.lock().unwrap();
                    served.asked += 1;
                    match self.fault {
                        Some(ServerFault::Restart { after, count })
                            if served.seeds.len() >= after && served.failed < count =>
                        {
                            served.failed += 1;
                            served.adapters.clear();
                            return None;
                        }
                        Some(ServerFault::Busy { count }) if served.failed < count => {
                            served.failed += 1;
                            true
                        }
                        _ => false,
                    }
                };
                if refused {
                    (429, json!({ "error": { "message": "too many requests" } }))
                } else {
                    self.complete(&body, model)
                }
            }
            _ => (404, json!({ "detail": "Not Found" })),
        };
        send(stream, status, "", &answer.to_string(), 0)
    }

    fn load(&self, body: &Value) -> (u16, Value) {
        let (name, folder) = (body["lora_name"].as_str().unwrap(), body["lora_path"].as_str().unwrap());
        let adapter = load_adapter(Path::new(folder), &self.source.config, None).unwrap();
        let mut served = self.served.lock().unwrap();
        if served.adapters.contains_key(name) {
            let said = format!("The lora adapter '{name}' has already been loaded.");
            return (400, json!({ "object": "error", "message": said }));
        }
        served.loaded.push(name.to_owned());
        served.adapters.insert(name.to_owned(), adapter);
        (200, json!(format!("Success: LoRA adapter '{name}' added successfully.")))
    }

    fn unload(&self, body: &Value) -> (u16, Value) {
        let name = body["lora_name"].as_str().unwrap();
        let mut served = self.served.lock().unwrap();
        served.unloaded.push(name.to_owned());
        // A stale server needs the adapter before the newest one.
        if !matches!(self.fault, Some(ServerFault::Stale { .. })) {
            served.adapters.remove(name);
        }
        (200, json!(format!("Success: LoRA adapter '{name}' removed successfully.")))
    }

    /// The adapter for a request, or `Err` if its name is unknown.
    fn adapter(&self, name: &str) -> Result<Option<Adapter>, ()> {
        if let Fixed::Named(file) = &self.fixed {
            let folder = fs::read_to_string(file).unwrap();
            return Ok(Some(load_adapter(Path::new(folder.trim()), &self.source.config, None).unwrap()));
        }
        let served = self.served.lock().unwrap();
        let adapter = served.adapters.get(name).ok_or(())?;
        match self.fault {
            Some(ServerFault::Base { after }) if served.loaded.len() >= after => Ok(None),
            Some(ServerFault::Stale { after }) if served.loaded.len() >= after => {
                let newest = served.loaded.len() - 1;
                Ok(Some(served.adapters[&served.loaded[newest - 1]].clone()))
            }
            _ => Ok(Some(adapter.clone())),
        }
    }

    fn complete(&self, body: &Value, model: &CpuDecoder) -> (u16, Value) {
        let name = body["model"].as_str().unwrap();
        let Ok(adapter) = self.adapter(name) else {
            return (404, json!({ "error": { "message": format!("The model `{name}` does not exist.") } }));
        };
        let ids = |list: &Value| -> Vec<u32> {
            list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let (prompt, seed) = (ids(&body["prompt"]), body["seed"].as_u64().unwrap());
        let sampling = match body["top_k"].as_u64() {
            Some(1) => Sampling::greedy(),
            _ => Sampling::plain(body["temperature"].as_f64().unwrap() as f32),
        };
        let request = RolloutRequest {
            prompts: &[Prompt { ids: prompt.clone(), key: 1 }],
            num_generations: 1,
            sampling: &sampling,
            max_completion_length: body["max_tokens"].as_u64().unwrap() as usize,
            seed,
            step: 1,
            ends: &|_| false,
            stop_tokens: &ids(&body["stop_token_ids"]),
        };
        let mut engine = CpuEngine { decoder: model, max_rows: 1 };
        let groups = engine.generate(adapter.as_ref(), &request, &mut Unwatched).unwrap().unwrap();
        let Completion { tokens, logprobs, .. } = &groups[0][0];
        let finish = if groups[0][0].truncated() { "length" } else { "stop" };
        let texts: Vec<String> = tokens.iter().map(|id| format!("token_id:{id}")).collect();
        let logprobs = json!({ "tokens": texts, "token_logprobs": logprobs, "text_offset": [], "top_logprobs": null });
        let logprobs = if self.fault == Some(ServerFault::NoLogprobs) { Value::Null } else { logprobs };
        self.served.lock().unwrap().seeds.push(seed);
        let choice = json!({ "index": 0, "text": "", "finish_reason": finish, "logprobs": logprobs });
        let usage = json!({ "prompt_tokens": prompt.len(), "completion_tokens": tokens.len(), "total_tokens": 0 });
        (200, json!({ "object": "text_completion", "model": name, "choices": [choice], "usage": usage }))
    }
}
