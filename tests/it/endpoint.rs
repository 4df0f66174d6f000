//! Completions from a server. The test starts a server on this machine, which has the faults that real ones have.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rft::config::{ConfigLayers, resolve};
use rft::eval::endpoint::Endpoint;
use rft::eval::engine::{Completer, Draw, EvalCompletion, EvalJob, EvalWatch, LENGTH};
use rft::model::source::ModelSource;
use rft::prompt::template::Rendered;
use rft::rollout::Sampling;
use rft::rollout::policy::Policy;
use rft::server::{ApiKey, ServerOptions};
use serde_json::{Value, json};

use crate::cli;
use crate::progress::{HANG, ends, until};

const SECRET: &str = "sk-verysecretkeyofatest";
const MODEL: &str = "org/model";

/// A fault: what the server does instead of a correct reply.
#[derive(Clone)]
enum Fault {
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

type Plan = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

/// A received request.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    key: Option<String>,
    body: Value,
    /// Number of times this body was received, including this one.
    time: usize,
    at: Instant,
}

#[derive(Default)]
struct Log {
    asked: Vec<Asked>,
    /// Number of requests in progress, and its maximum.
    now: usize,
    most: usize,
    /// Number of accepted connections.
    connections: usize,
}

/// A server whose completions are the seed of the request.
struct Stub {
    url: String,
    log: Arc<Mutex<Log>>,
}

#[derive(Clone)]
struct Behavior {
    models: Vec<String>,
    /// The server waits for this number of simultaneous requests before its first reply to a sample.
    together: usize,
    /// Counts the tokens of a text.
    count: Arc<dyn Fn(&str) -> usize + Send + Sync>,
    /// Whether a token is added to every text.
    adds_bos: bool,
    /// The completion of a request.
    text: Arc<dyn Fn(&Value) -> String + Send + Sync>,
    /// Whether fields that OpenAI's API does not have are refused.
    strict: bool,
    plan: Arc<Mutex<Plan>>,
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

fn faulty(plan: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) -> Behavior {
    Behavior { plan: Arc::new(Mutex::new(Box::new(plan))), ..Behavior::default() }
}

impl Stub {
    fn start(behavior: Behavior) -> Self {
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

    fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().asked.clone()
    }

    /// The requests for samples, without those that check how prompts are tokenized.
    fn samples(&self) -> Vec<Asked> {
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

fn read_request(stream: &TcpStream) -> Option<(String, String, Option<String>, Value)> {
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
fn send(mut stream: &TcpStream, status: u16, headers: &str, body: &str, more: usize) -> Option<()> {
    let length = body.len() + more;
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).ok()
}

const MAX_TOKENS: usize = 40;

/// Prompts of 3, 4, 5 ... words and the same number of tokens.
fn prompts(count: usize) -> Vec<Rendered> {
    let prompt = |i: usize| Rendered { text: format!("question {i}{}", " word".repeat(i + 1)), ids: vec![9; i + 3] };
    (0..count).map(prompt).collect()
}

fn jobs(prompts: &[Rendered], samples: usize) -> Vec<EvalJob<'_>> {
    let job =
        |(question, prompt)| EvalJob { question, prompt, key: 1000 + question as u64, samples: (0..samples).collect() };
    prompts.iter().enumerate().map(job).collect()
}

fn draw() -> Draw {
    let sampling = Sampling { temperature: 0.6, top_p: 0.95, top_k: 0, min_p: 0.0 };
    Draw { sampling, max_tokens: MAX_TOKENS, stop: Vec::new(), seed: 7 }
}

fn options(stub: &Stub) -> ServerOptions {
    ServerOptions {
        concurrency: 4,
        tries: 4,
        pause: Duration::from_millis(4),
        time_out: HANG,
        key: Some(ApiKey::new(SECRET)),
        ..ServerOptions::new(&stub.url)
    }
}

/// Stores the samples, and checks that each comes once.
#[derive(Default)]
struct Kept {
    samples: BTreeMap<(usize, usize), EvalCompletion>,
    tokens: usize,
    /// Cancels when this number of samples is stored.
    enough: Option<usize>,
}

impl EvalWatch for Kept {
    fn sample(&mut self, question: usize, sample: usize, completion: EvalCompletion) -> anyhow::Result<()> {
        assert_eq!(self.samples.insert((question, sample), completion), None, "{question} {sample} was passed twice");
        Ok(())
    }

    fn tokens(&mut self, count: usize) {
        self.tokens += count;
    }

    fn cancelled(&mut self) -> bool {
        self.enough.is_some_and(|count| self.samples.len() >= count)
    }
}

fn run(options: ServerOptions, questions: usize, samples: usize) -> (Kept, anyhow::Result<()>) {
    let prompts = prompts(questions);
    let mut kept = Kept::default();
    let done =
        Endpoint::connect(&options, None).and_then(|mut it| it.complete(&jobs(&prompts, samples), &draw(), &mut kept));
    if let Err(error) = &done {
        assert!(!format!("{error:#} {error:?}").contains(SECRET), "{error:#}");
    }
    (kept, done)
}

fn error(options: ServerOptions, questions: usize) -> String {
    format!("{:#}", run(options, questions, 1).1.unwrap_err())
}

#[test]
fn samples_are_requested_in_parallel_and_passed_once() {
    let stub = Stub::start(Behavior { together: 4, ..Behavior::default() });
    let (kept, done) = run(options(&stub), 5, 4);
    done.unwrap();
    assert_eq!(kept.samples.len(), 20);
    assert_eq!(kept.tokens, 60);
    let asked = stub.samples();
    assert_eq!(asked.len(), 20);
    assert!(asked.iter().all(|it| it.key.as_deref() == Some(&format!("Bearer {SECRET}"))));
    // Every sample has its own seed, and its text contains it.
    let seeds: BTreeMap<String, u64> =
        asked.iter().map(|it| (format!("says {}", it.body["seed"]), it.body["seed"].as_u64().unwrap())).collect();
    assert_eq!(seeds.len(), 20);
    assert!(seeds.values().all(|&seed| seed < 1 << 31));
    assert!(kept.samples.values().all(|it| seeds.contains_key(&it.text) && it.finish == "stop" && it.tokens == 3));
    let log = stub.log.lock().unwrap();
    assert_eq!(log.most, 4, "requests at once");
    assert!(log.connections <= 2 * 4, "{} connections for {} requests", log.connections, log.asked.len());
}

#[test]
fn samples_do_not_depend_on_the_order_of_requests() {
    let stub = Stub::start(Behavior::default());
    let prompts = prompts(4);
    let complete = |jobs: &[EvalJob], concurrency| {
        let mut kept = Kept::default();
        let options = ServerOptions { concurrency, ..options(&stub) };
        Endpoint::connect(&options, None).unwrap().complete(jobs, &draw(), &mut kept).unwrap();
        kept.samples
    };
    let all = complete(&jobs(&prompts, 3), 8);
    let mut backwards = jobs(&prompts, 3);
    backwards.reverse();
    assert_eq!(complete(&backwards, 1), all);
    let mut some = jobs(&prompts, 3);
    some.remove(1);
    some[0].samples = vec![2];
    some[1].samples = vec![];
    let some = complete(&some, 3);
    assert_eq!(some.keys().copied().collect::<Vec<_>>(), [(0, 2), (3, 0), (3, 1), (3, 2)]);
    assert!(some.iter().all(|(key, completion)| all[key] == *completion));
    assert_eq!(complete(&[], 3), BTreeMap::new());
}

/// The first request for each sample fails, in different ways; the second succeeds.
#[test]
fn transient_failures_are_retried() {
    let kinds: [(&str, Fault); 8] = [
        ("500", Fault::Status(500, "", "oops".into())),
        ("502", Fault::Status(502, "", "<html>".into())),
        ("503", Fault::Status(503, "", json!({ "error": { "message": "Loading model" } }).to_string())),
        ("cut body", Fault::CutBody),
        ("cut JSON", Fault::CutJson),
        ("hang-up", Fault::HangUp),
        ("no usage", Fault::Edit("usage", "abusage")),
        ("no choices", Fault::Edit("\"choices\":[{", "\"choices\":[],\"other\":[{")),
    ];
    for (name, fault) in kinds {
        let stub = Stub::start(faulty(move |it| (it.path != "/v1/models" && it.time == 1).then(|| fault.clone())));
        let (kept, done) = run(options(&stub), 3, 2);
        done.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(kept.samples.len(), 6, "{name}");
        assert_eq!(stub.samples().len(), 12, "{name}");
    }
}

#[test]
fn a_sample_may_fail_twice_but_not_four_times() {
    let failing = |times| {
        let fault = Fault::Status(
            500,
            "",
            json!({ "error": { "message": format!("broken {SECRET}\x1b[1m\nmore") } }).to_string(),
        );
        Stub::start(faulty(move |it| (it.body["max_tokens"] == MAX_TOKENS && it.time <= times).then(|| fault.clone())))
    };
    let stub = failing(2);
    let (kept, done) = run(options(&stub), 2, 1);
    done.unwrap();
    assert_eq!((kept.samples.len(), stub.samples().len()), (2, 6));

    let stub = failing(100);
    let told = error(options(&stub), 1);
    assert_eq!(told, "sample 0 of question 0: the server returned 500: broken (key)[1m (4 tries)");
    assert_eq!(stub.samples().len(), 4);
}

#[test]
fn samples_before_a_failure_are_kept() {
    let last = |it: &Asked| it.body["max_tokens"] == MAX_TOKENS && it.body["prompt"].to_string().contains("question 2");
    let stub = Stub::start(faulty(move |it| last(it).then(|| Fault::Status(500, "", String::new()))));
    let (kept, done) = run(ServerOptions { concurrency: 1, ..options(&stub) }, 3, 2);
    assert!(done.is_err());
    assert_eq!(kept.samples.keys().copied().collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 0), (1, 1)]);
}

#[test]
fn the_retry_after_header_is_obeyed() {
    let busy = Fault::Status(429, "Retry-After: 1\r\n", json!({ "error": "slow down" }).to_string());
    let stub =
        Stub::start(faulty(move |it| (it.body["max_tokens"] == MAX_TOKENS && it.time == 1).then(|| busy.clone())));
    run(options(&stub), 1, 1).1.unwrap();
    let times: Vec<Instant> = stub.samples().iter().map(|it| it.at).collect();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
}

#[test]
fn a_request_without_a_reply_times_out() {
    let unanswered = |stub: &Stub, tries| {
        let options =
            ServerOptions { time_out: Duration::from_millis(400), pause: Duration::ZERO, tries, ..options(stub) };
        // On a busy machine a reply may also be late.
        let mut endpoint = until("a connection", || Endpoint::connect(&options, None).ok());
        let mut kept = Kept::default();
        let done = endpoint.complete(&jobs(&prompts(1), 2), &draw(), &mut kept);
        (kept, done)
    };
    let stub = Stub::start(faulty(|it| (it.path != "/v1/models" && it.time == 1).then_some(Fault::Silence)));
    let (kept, done) = unanswered(&stub, 1000);
    done.unwrap();
    assert_eq!(kept.samples.len(), 2);

    let stub = Stub::start(faulty(|it| (it.path != "/v1/models").then_some(Fault::Silence)));
    let told = format!("{:#}", unanswered(&stub, 2).1.unwrap_err());
    assert!(told.contains("no reply within 400ms (2 tries)\nhint: "), "{told}");
}

#[test]
fn a_prompt_that_the_server_tokenizes_differently_is_an_error() {
    let more = |it: &Asked| it.path != "/v1/models" && it.body["prompt"].to_string().contains("question 1");
    let stub =
        Stub::start(faulty(move |it| more(it).then_some(Fault::Edit("\"prompt_tokens\":4", "\"prompt_tokens\":6"))));
    let told = error(options(&stub), 3);
    assert!(told.contains("the prompt of question 1 has 4 tokens, but the server counts 6"), "{told}");
    assert!(told.contains("\nhint: "), "{told}");
    assert!(stub.samples().is_empty(), "no sample is requested if prompts are tokenized differently");

    // If the check at the start does not find the difference, the sample does.
    let late = move |it: &Asked| more(it) && it.body["max_tokens"] == MAX_TOKENS;
    let stub =
        Stub::start(faulty(move |it| late(it).then_some(Fault::Edit("\"prompt_tokens\":4", "\"prompt_tokens\":3"))));
    let told = error(options(&stub), 3);
    assert!(told.contains("the prompt of question 1 has 4 tokens, but the server counts 3"), "{told}");
}

#[test]
fn a_server_that_adds_a_token_to_every_text_gets_token_ids() {
    let stub = Stub::start(Behavior { adds_bos: true, ..Behavior::default() });
    let (kept, done) = run(options(&stub), 4, 2);
    done.unwrap();
    assert_eq!(kept.samples.len(), 8);
    assert!(stub.samples().iter().all(|it| it.body["prompt"].is_array()));
}

#[test]
fn a_server_without_extensions_gets_standard_fields_only() {
    let stub = Stub::start(Behavior { strict: true, ..Behavior::default() });
    let (kept, done) = run(options(&stub), 2, 2);
    done.unwrap();
    assert_eq!(kept.samples.len(), 4);
    assert!(stub.samples().iter().all(|it| it.body.get("top_k").is_none() && it.body["top_p"] == 0.95));

    let (prompts, mut wants) = (prompts(1), draw());
    wants.sampling.top_k = 20;
    let done =
        Endpoint::connect(&options(&stub), None).unwrap().complete(&jobs(&prompts, 1), &wants, &mut Kept::default());
    let told = format!("{:#}", done.unwrap_err());
    assert!(told.contains("the server returned 400: Unrecognized request argument: top_k"), "{told}");
}

#[test]
fn a_context_that_is_too_short_is_an_error() {
    let cut = |it: &Asked| it.path != "/v1/models" && it.body["max_tokens"] != 1;
    let edit = Fault::Edit("\"finish_reason\":\"stop\"", "\"finish_reason\":\"length\"");
    let stub = Stub::start(faulty(move |it| cut(it).then(|| edit.clone())));
    let told = error(options(&stub), 1);
    assert!(
        told.contains(
            "the server truncated the completion at 3 of 40 tokens\nhint: restart the server with a longer context"
        ),
        "{told}"
    );

    let (prompts, mut kept) = (prompts(1), Kept::default());
    let all = Draw { max_tokens: 3, ..draw() };
    Endpoint::connect(&options(&stub), None).unwrap().complete(&jobs(&prompts, 1), &all, &mut kept).unwrap();
    assert_eq!(kept.samples[&(0, 0)].finish, LENGTH);
}

#[test]
fn refused_requests_are_not_retried() {
    for (status, headers, hint) in [
        (400, "", "check that the prompt"),
        (401, "", "check the key"),
        (403, "", "check the key"),
        (404, "", "check the model's name"),
        (307, "Location: http://elsewhere.example/v1/completions\r\n", "if you trust that address"),
    ] {
        let body = json!({ "error": { "message": format!("no: {SECRET}") } }).to_string();
        let stub = Stub::start(faulty(move |it| {
            (it.body["max_tokens"] == MAX_TOKENS).then(|| Fault::Status(status, headers, body.clone()))
        }));
        let told = error(ServerOptions { concurrency: 1, ..options(&stub) }, 2);
        assert!(told.contains(hint) && told.contains("sample 0 of question 0"), "{status}: {told}");
        assert_eq!(stub.samples().len(), 1, "{status}");
    }
    let locked = Stub::start(faulty(|_| Some(Fault::Status(401, "", "who are you?".into()))));
    let told = error(ServerOptions { key: None, ..options(&locked) }, 1);
    assert!(told.contains("the server returned 401: who are you?\nhint: set RFT_ENDPOINT_KEY"), "{told}");
    assert_eq!(locked.asked().len(), 1);
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Stub::start(Behavior::default());
    let location: &'static str = format!("Location: {}/v1/models\r\n", elsewhere.url).leak();
    let stub = Stub::start(faulty(move |_| Some(Fault::Status(302, location, String::new()))));
    let told = error(options(&stub), 1);
    assert!(told.contains(&format!("redirects to {}/v1/models", elsewhere.url)), "{told}");
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn the_model_is_chosen_from_those_that_are_served() {
    let two = Stub::start(Behavior { models: vec!["a".into(), "b".into()], ..Behavior::default() });
    let named = |name: Option<&str>| Endpoint::connect(&options(&two), name);
    assert_eq!(named(Some("b")).unwrap().model(), "b");
    let told = format!("{:#}", named(Some("c")).err().unwrap());
    assert_eq!(told, "the server does not have the model `c`\nhint: use one of `a`, `b`");
    let told = format!("{:#}", named(None).err().unwrap());
    assert_eq!(told, "the server has 2 models\nhint: select one with --served-model: `a`, `b`");

    let one = Stub::start(Behavior::default());
    let endpoint =
        Endpoint::connect(&ServerOptions { url: format!("{}/v1/", one.url), ..options(&one) }, None).unwrap();
    assert_eq!((endpoint.model(), endpoint.url()), (MODEL, one.url.as_str()));
    let none = Stub::start(Behavior { models: Vec::new(), ..Behavior::default() });
    assert!(error(options(&none), 1).contains("has no models"));
    let other = Stub::start(faulty(|_| Some(Fault::Status(200, "", "<html>hello".into()))));
    assert!(error(options(&other), 1).contains("check that this is an OpenAI-compatible server"));
}

#[test]
fn a_server_that_cannot_be_reached_is_an_error() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{gone}");
    let told = format!("{:#}", Endpoint::connect(&ServerOptions::new(&url), None).err().unwrap());
    assert!(told.contains(&url) && told.contains("\nhint: check that a server is running"), "{told}");
}

#[test]
fn a_canceled_evaluation_does_not_wait_for_the_server() {
    let stub = Stub::start(faulty(|it| {
        (it.body["max_tokens"] == MAX_TOKENS && it.body["prompt"].to_string().contains("question 1"))
            .then_some(Fault::Silence)
    }));
    let mut endpoint = Endpoint::connect(&ServerOptions { time_out: 10 * HANG, ..options(&stub) }, None).unwrap();
    let kept = ends("an evaluation that has what it needs", move || {
        let mut kept = Kept { enough: Some(2), ..Kept::default() };
        endpoint.complete(&jobs(&prompts(2), 2), &draw(), &mut kept).unwrap();
        kept
    });
    assert_eq!(kept.samples.keys().copied().collect::<Vec<_>>(), [(0, 0), (0, 1)]);

    // Canceled before the first request.
    let stub = Stub::start(Behavior::default());
    let mut endpoint = Endpoint::connect(&options(&stub), None).unwrap();
    let before = stub.asked().len();
    let mut kept = Kept { enough: Some(0), ..Kept::default() };
    endpoint.complete(&jobs(&prompts(2), 2), &draw(), &mut kept).unwrap();
    assert_eq!((kept.samples.len(), stub.asked().len()), (0, before));
}

/// Storing a sample may also fail, for example on a full disk.
#[test]
fn an_error_of_the_receiver_ends_the_evaluation() {
    struct Full(usize);
    impl EvalWatch for Full {
        fn sample(&mut self, _: usize, _: usize, completion: EvalCompletion) -> anyhow::Result<()> {
            assert_ne!(completion.finish, LENGTH);
            self.0 += 1;
            anyhow::bail!("no space is left")
        }
    }
    let stub = Stub::start(Behavior::default());
    let (prompts, mut full) = (prompts(3), Full(0));
    let told = Endpoint::connect(&options(&stub), None).unwrap().complete(&jobs(&prompts, 2), &draw(), &mut full);
    assert_eq!((told.unwrap_err().to_string().as_str(), full.0), ("no space is left", 1));
}

/// Tasks in the form in which evalplus publishes them. The identity of a task selects its tests, so a score other than 0 or an
/// error shows that it was read.
#[test]
fn humaneval_in_its_published_form_is_scored() {
    let Some(_) = super::code_eval::sandbox() else { return };
    let folder = cli::folder();
    let file = fs::File::create(folder.path().join("HumanEvalPlus.jsonl.gz")).unwrap();
    let mut file = GzEncoder::new(file, Compression::fast());
    for i in 0..164 {
        let task = json!({
            "task_id": format!("HumanEval/{i}"), "entry_point": "add",
            "prompt": format!("def add(x):\n    \"\"\"Adds {i} to x.\"\"\"\n"), "canonical_solution": format!("    return x + {i}\n"),
            "test": "", "contract": "", "atol": 0, "base_input": [[1]], "plus_input": [[1], [-1000]],
        });
        writeln!(file, "{task}").unwrap();
    }
    file.finish().unwrap();
    let config = resolve(&ConfigLayers::default()).unwrap().config;
    let policy = Policy::load(&ModelSource::open("tiny", "main").unwrap(), &config).unwrap();
    let count: Arc<dyn Fn(&str) -> usize + Send + Sync> =
        Arc::new(move |text: &str| policy.tokenizer.encode_around(text, &[]).len());
    // Right on all inputs, right on those of the base tests, and wrong.
    for (body, base, plus) in
        [("x + N", "100.0", "100.0"), ("max(x, 0) + N", "100.0", "0.0"), ("x - N - 1", "0.0", "0.0")]
    {
        let text = Arc::new(move |request: &Value| {
            let prompt = request["prompt"].to_string();
            let number = prompt.split("Adds ").nth(1).and_then(|it| it.split(' ').next()).unwrap_or("0").to_owned();
            format!("```python\ndef add(x):\n    return {}\n```", body.replace('N', &number))
        });
        let stub = Stub::start(Behavior { count: count.clone(), text, ..Behavior::default() });
        for (bench, score) in [("humaneval", base), ("humaneval+", plus)] {
            let mut command = cli::rft(folder.path());
            command.args(["eval", "--data-dir=.", "--samples=1", "--max-tokens=40", "--bench", bench, "--out"]);
            command.arg(format!("{bench}-{}", body.len())).args([
                "--set=rollout.max_prompt_length=500",
                "--endpoint",
                &stub.url,
            ]);
            let output = command.output().unwrap();
            let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            assert!(
                output.status.success() && table.contains(&format!(" {score} % [")),
                "{bench} {body}: {table}{said}"
            );
        }
    }
}

#[test]
fn rft_eval_takes_samples_from_a_server() {
    let config = resolve(&ConfigLayers::default()).unwrap().config;
    let policy = Policy::load(&ModelSource::open("tiny", "main").unwrap(), &config).unwrap();
    let count = Arc::new(move |text: &str| policy.tokenizer.encode_around(text, &[]).len());
    let stub = Stub::start(Behavior { count, ..Behavior::default() });
    let folder = cli::folder();
    let args = ["eval", "--bench=arithmetic-1", "--limit=6", "--samples=2", "--max-tokens=40", "--out=e", "--endpoint"];
    let rft = || {
        let mut command = cli::rft(folder.path());
        command.env("RFT_ENDPOINT_KEY", SECRET);
        command
    };
    let output = rft().args(args).arg(&stub.url).output().unwrap();
    let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && table.contains("first 6 of 256 x 2"), "{table}{said}");
    assert!(stub.asked().iter().all(|it| it.key.as_deref() == Some(&format!("Bearer {SECRET}"))));
    assert_eq!(stub.samples().len(), 12);

    let identity = fs::read_to_string(folder.path().join("e/eval.json")).unwrap();
    assert!(identity.contains(r#""engine": "endpoint""#) && identity.contains(MODEL), "{identity}");
    let samples = fs::read_to_string(folder.path().join("e/arithmetic-1/samples.jsonl")).unwrap();
    assert!(![table, said, identity, samples].iter().any(|it| it.contains(SECRET)), "the key was written");

    // Samples that exist are not requested again.
    rft().args(args).arg(&stub.url).assert().success();
    assert_eq!(stub.samples().len(), 12);

    // A server that counts words tokenizes prompts differently, so there is no score.
    let other = Stub::start(Behavior::default());
    let args = args.map(|arg| if arg == "--out=e" { "--out=f" } else { arg });
    let said = cli::error(&folder, &[&args[..], &[&other.url]].concat());
    assert!(said.contains("tokens") && !folder.path().join("f/arithmetic-1/results.json").exists(), "{said}");
}
