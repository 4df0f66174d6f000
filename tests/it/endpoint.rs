//! Completions from a server.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rft::eval::endpoint::Endpoint;
use rft::eval::engine::{Completer, Draw, EvalCompletion, EvalJob, EvalWatch, LENGTH};
use rft::prompt::template::Rendered;
use rft::rollout::Sampling;
use rft::server::{ApiKey, ServerOptions};
use serde_json::{Value, json};

use crate::cli;
use crate::progress::{HANG, ends, until};
use crate::stub_server::{Asked, Behavior, Fault, MAX_TOKENS, MODEL, Stub, faulty, like_tiny};

const SECRET: &str = "sk-verysecretkeyofatest";

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
fn a_key_that_the_server_repeats_is_not_stored() {
    let text = Arc::new(|_: &Value| format!("Your header was: Bearer {SECRET}\nbye"));
    let stub = Stub::start(Behavior { text, ..Behavior::default() });
    let (kept, done) = run(options(&stub), 1, 2);
    done.unwrap();
    assert!(kept.samples.values().all(|it| it.text == "Your header was: Bearer (key)\nbye"), "{:?}", kept.samples);
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

#[test]
fn rft_eval_takes_samples_from_a_server() {
    let stub = Stub::start(like_tiny());
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

#[test]
fn a_reply_is_read_up_to_a_limit() {
    let flood = faulty(|_| Some(Fault::Status(200, "", " ".repeat(65 << 20))));
    let stub = Stub::start(flood);
    let error = error(options(&stub), 1);
    assert!(
        error.contains("the reply is too large: it takes more than 64 MiB when it is read, the limit\nhint: "),
        "{error}"
    );
}
