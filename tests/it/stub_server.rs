//! A server of completions on this machine, with the faults that real ones have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use rft::config::{ConfigLayers, resolve};
use rft::model::source::ModelSource;
use rft::rollout::policy::Policy;
use serde_json::{Value, json};

use crate::progress::until;

pub const MODEL: &str = "org/model";
/// Samples are requested with this length, tests of the tokenizer with another.
pub const MAX_TOKENS: usize = 40;

/// A fault: what the server does instead of a correct reply.
#[derive(Clone)]
pub enum Fault {
    /// This status, these headers, this body.
    Status(u16, &'static str, String),
    /// Nothing is ever sent.
    Silence,
    /// The body is shorter than the headers state.
    CutBody,
    /// The body is complete, but its JSON is not.
    CutJson,
    /// The connection is closed before any byte is sent.
    HangUp,
    /// The correct reply, with the first text replaced by the second.
    Edit(&'static str, &'static str),
}

pub type Plan = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

/// A received request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub key: Option<String>,
    pub body: Value,
    /// Number of times this body was received, including this one.
    pub time: usize,
    pub at: Instant,
}

#[derive(Default)]
pub struct Log {
    pub asked: Vec<Asked>,
    /// Number of requests in progress, and its maximum.
    pub now: usize,
    pub most: usize,
    /// Number of accepted connections.
    pub connections: usize,
}

/// A server whose completions are the seed of the request.
pub struct Stub {
    pub url: String,
    pub log: Arc<Mutex<Log>>,
}

#[derive(Clone)]
pub struct Behavior {
    pub models: Vec<String>,
    /// The server waits for this number of simultaneous requests before its first reply to a sample.
    pub together: usize,
    /// Counts the tokens of a text.
    pub count: Arc<dyn Fn(&str) -> usize + Send + Sync>,
    /// Whether a token is added to every text.
    pub adds_bos: bool,
    /// The completion of a request.
    pub text: Arc<dyn Fn(&Value) -> String + Send + Sync>,
    /// Whether fields that OpenAI's API does not have are refused.
    pub strict: bool,
    pub plan: Arc<Mutex<Plan>>,
}

impl Default for Behavior {
    fn default() -> Self {
        let plan: Plan = Box::new(|_| None);
        Self {
            models: vec![MODEL.into()],
            together: 1,
            count: Arc::new(|text| text.split_whitespace().count()),
            adds_bos: false,
            text: Arc::new(|request| format!("says {}", request["seed"])),
            strict: false,
            plan: Arc::new(Mutex::new(plan)),
        }
    }
}

/// A server that counts the tokens of the embedded model, whose prompts `rft` therefore accepts.
pub fn like_tiny() -> Behavior {
    let config = resolve(&ConfigLayers::default()).unwrap().config;
    let policy = Policy::load(&ModelSource::open("tiny", "main").unwrap(), &config).unwrap();
    let count = Arc::new(move |text: &str| policy.tokenizer.encode_around(text, &[]).len());
    Behavior { count, ..Behavior::default() }
}

pub fn faulty(plan: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) -> Behavior {
    Behavior { plan: Arc::new(Mutex::new(Box::new(plan))), ..Behavior::default() }
}

impl Stub {
    pub fn start(behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = log.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (behavior, log) = (behavior.clone(), shared.clone());
                log.lock().unwrap().connections += 1;
                thread::spawn(move || while converse(stream.as_ref().unwrap(), &behavior, &log).is_some() {});
            }
        });
        Self { url, log }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().asked.clone()
    }

    /// The requests for samples, without those that check how prompts are tokenized.
    pub fn samples(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|it| it.body["max_tokens"] == MAX_TOKENS).collect()
    }
}

/// Replies to one request; `None` closes the connection.
fn converse(stream: &TcpStream, behavior: &Behavior, log: &Mutex<Log>) -> Option<()> {
    let (method, path, key, body) = read_request(stream)?;
    let asked = {
        let mut log = log.lock().unwrap();
        let time = 1 + log.asked.iter().filter(|it| it.path == path && it.body == body).count();
        let asked = Asked { path, key, body, time, at: Instant::now() };
        log.asked.push(asked.clone());
        log.now += 1;
        log.most = log.most.max(log.now);
        asked
    };
    let fault = (behavior.plan.lock().unwrap())(&asked);
    let (status, answer) = match (method.as_str(), asked.path.as_str()) {
        ("GET", "/v1/models") => {
            let models: Vec<Value> = behavior.models.iter().map(|id| json!({ "id": id, "object": "model" })).collect();
            (200, json!({ "object": "list", "data": models }))
        }
        ("POST", "/v1/completions") => {
            if asked.body["max_tokens"] == MAX_TOKENS {
                until("more requests at once", || (log.lock().unwrap().most >= behavior.together).then_some(()));
            }
            complete(&asked.body, behavior)
        }
        _ => (404, json!({ "detail": "Not Found" })),
    };
    let answer = answer.to_string();
    log.lock().unwrap().now -= 1;
    match fault {
        None => send(stream, status, "", &answer, 0),
        Some(Fault::Silence) => loop {
            thread::park();
        },
        Some(Fault::Status(status, headers, body)) => send(stream, status, headers, &body, 0),
        Some(Fault::Edit(from, to)) => {
            assert!(answer.contains(from), "{answer}");
            send(stream, status, "", &answer.replace(from, to), 0)
        }
        Some(Fault::CutJson) => send(stream, status, "", &answer[..answer.len() - 5], 0),
        Some(Fault::CutBody) => send(stream, status, "", &answer, 100).and(None),
        Some(Fault::HangUp) => None,
    }
}

fn complete(request: &Value, behavior: &Behavior) -> (u16, Value) {
    let standard = ["model", "prompt", "n", "max_tokens", "temperature", "top_p", "seed", "stop"];
    if let Some(field) = request.as_object().unwrap().keys().find(|it| !standard.contains(&it.as_str()))
        && behavior.strict
    {
        return (400, json!({ "error": { "message": format!("Unrecognized request argument: {field}") } }));
    }
    let prompt_tokens = match &request["prompt"] {
        Value::String(text) => (behavior.count)(text) + usize::from(behavior.adds_bos),
        ids => ids.as_array().unwrap().len(),
    };
    let one = request["max_tokens"] == 1;
    let (finish, tokens) = if one { ("length", 1) } else { ("stop", 3) };
    let text = (behavior.text)(request);
    let usage = json!({ "prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": 0 });
    let choice = json!({ "index": 0, "text": text, "finish_reason": finish, "stop_reason": null });
    (200, json!({ "object": "text_completion", "model": request["model"], "choices": [choice], "usage": usage }))
}

/// Method, path, key and body of a request; `None` if the connection has ended.
pub fn read_request(stream: &TcpStream) -> Option<(String, String, Option<String>, Value)> {
    let mut reader = BufReader::new(stream); // a client waits for the reply before it sends more
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let (method, rest) = line.split_once(' ').unwrap();
    let path = rest.split(' ').next().unwrap().to_owned();
    let (mut key, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => key = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method.to_owned(), path, key, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Sends a reply whose header states a length that is `more` bytes too large; `None` if the client has closed the connection.
pub fn send(mut stream: &TcpStream, status: u16, headers: &str, body: &str, more: usize) -> Option<()> {
    let length = body.len() + more;
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).ok()
}
