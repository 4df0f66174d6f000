//! A language model as a judge, which is asked about one class at a time through an OpenAI-compatible server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Class;
use crate::disk::{atomic, files, hash};
use crate::rng::{Purpose, Stream, name_hash};
use crate::server::{ServerClient, ServerFailure, ServerOptions};

const SEED: u64 = 42;
/// Enough for the two lines. A longer reply cannot be parsed and is counted as such.
const MAX_TOKENS: usize = 64;
/// The judge's reply about one class in one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Opinion {
    /// Number of occurrences of the class; 0 means `no`.
    Count(usize),
    /// The reply does not have the requested form. It is never treated as 0.
    Unparsable,
}

/// A model on a server, selected by name, used with temperature 0 and a fixed seed.
pub struct ModelJudge {
    client: ServerClient,
    model: String,
    cache: PathBuf,
}

impl ModelJudge {
    /// Replies are stored in the folder `cache` and not requested again.
    ///
    /// # Errors
    /// An invalid URL.
    pub fn new(server: &ServerOptions, model: &str, cache: &Path) -> Result<Self> {
        Ok(Self { client: ServerClient::new(server)?, model: model.to_owned(), cache: cache.to_owned() })
    }

    /// Asks how often `response` shows `class`.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the request; the cache cannot be written.
    pub fn ask(&self, class: Class, problem: &str, response: &str) -> Result<Opinion> {
        let words = words();
        let message = words.message(class, problem, response);
        let id = hash::sha256(json!([words.system, message, self.model, SEED]).to_string().as_bytes());
        let file = self.cache.join(format!("{id}.json"));
        if let Ok(text) = std::fs::read_to_string(&file)
            && let Ok(cached) = serde_json::from_str::<CachedReply>(&text)
        {
            return Ok(parse(&cached.reply));
        }
        let reply = self.reply(&words.system, &message, &id)?;
        files::create_dir_all(&self.cache).map_err(|error| atomic::write_error(&self.cache, &error))?;
        let cached = CachedReply { model: self.model.clone(), class, reply };
        atomic::write(&file, serde_json::to_string(&cached)?.as_bytes())?;
        Ok(parse(&cached.reply))
    }

    fn reply(&self, system: &str, message: &str, id: &str) -> Result<String> {
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "system", "content": system }, { "role": "user", "content": message }],
            "temperature": 0,
            "seed": SEED,
            "max_tokens": MAX_TOKENS,
        })
        .to_string();
        let waits = Stream::new(SEED, Purpose::Endpoint, &[name_hash(id)]);
        let reply = self.client.post("/v1/chat/completions", &body, &waits, &|| false, content);
        reply.map_err(ServerFailure::into_error).with_context(|| format!("ask the judge at {}", self.client.url()))
    }
}

/// The message in a reply; the error describes what was received instead.
fn content(body: &str) -> Result<String, String> {
    let reply: Value =
        serde_json::from_str(body).map_err(|error| format!("a reply that is not valid JSON: {error}"))?;
    let content = reply["choices"][0]["message"]["content"].as_str();
    content.map(str::to_owned).ok_or_else(|| "a reply without a message".to_owned())
}

/// A reply as it is stored in the cache.
#[derive(Serialize, Deserialize)]
struct CachedReply {
    model: String,
    class: Class,
    reply: String,
}

/// Parses exactly the two requested lines: `no` with 0, `yes` with a larger count.
fn parse(reply: &str) -> Opinion {
    let lines: Vec<String> =
        reply.lines().map(|line| line.trim().to_ascii_lowercase()).filter(|it| !it.is_empty()).collect();
    let [present, count] = lines.as_slice() else { return Opinion::Unparsable };
    let present = present.strip_prefix("present:").map(|it| it.trim().trim_end_matches('.'));
    let count = count.strip_prefix("count:").and_then(|it| it.trim().trim_end_matches('.').parse::<usize>().ok());
    match (present, count) {
        (Some("no"), Some(0)) => Opinion::Count(0),
        (Some("yes"), Some(count)) if count > 0 => Opinion::Count(count),
        _ => Opinion::Unparsable,
    }
}

/// The judge's instructions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    #[expect(dead_code, reason = "documents the version of the file")]
    version: u32,
    system: String,
    head: String,
    tail: String,
    ask: BTreeMap<Class, String>,
}

impl Words {
    fn message(&self, class: Class, problem: &str, response: &str) -> String {
        // Filled in one pass, because a completion may itself contain `{problem}`.
        let (before, rest) = self.head.split_once("{problem}").expect("the head has both placeholders");
        let (between, after) = rest.split_once("{response}").expect("the head has both placeholders");
        format!("{before}{problem}{between}{response}{after}{}{}", self.ask[&class], self.tail)
    }
}

fn words() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    WORDS.get_or_init(|| toml::from_str(include_str!("judge.toml")).expect("the judge's instructions are valid"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::server::ApiKey;

    /// A server that sends these replies (status and content) in order, and the requests that it received.
    fn server(replies: Vec<(u16, &'static str)>) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (status, content) in replies {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    head += &line;
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                log.lock().unwrap().push(head + std::str::from_utf8(&body).unwrap());
                let body = json!({ "choices": [{ "message": { "content": content } }] }).to_string();
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                reader.into_inner().write_all((head + &body).as_bytes()).unwrap();
            }
        });
        (address, seen)
    }

    fn options(address: &str) -> ServerOptions {
        let pause = Duration::from_millis(5);
        ServerOptions { key: Some(ApiKey::new("s3cret")), pause, ..ServerOptions::new(address) }
    }

    #[test]
    fn replies_are_cached() {
        let cache = tempfile::tempdir().unwrap();
        let (address, seen) = server(vec![(429, ""), (200, "present: yes\ncount: 2\n"), (200, "It does.")]);
        let judge = ModelJudge::new(&options(&address), "m-2026", cache.path()).unwrap();
        for _ in 0..2 {
            assert_eq!(judge.ask(Class::Code, "{response}?", "x {problem}").unwrap(), Opinion::Count(2));
        }
        assert_eq!(judge.ask(Class::Planning, "p", "r").unwrap(), Opinion::Unparsable);
        assert_eq!(
            judge.ask(Class::Planning, "p", "r").unwrap(),
            Opinion::Unparsable,
            "an invalid reply is also cached"
        );

        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3, "the 429 is retried, cached replies are not requested again");
        assert!(seen[0].starts_with("POST /v1/chat/completions ") && seen[0].to_lowercase().contains("bearer s3cret"));
        let body: Value = serde_json::from_str(seen[1].split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&body["model"], &body["temperature"], &body["seed"]), (&json!("m-2026"), &json!(0), &json!(SEED)));
        let message = body["messages"][1]["content"].as_str().unwrap();
        assert!(message.contains("{response}?\n") && message.contains("x {problem}\n"), "placeholders are filled once");
        for file in std::fs::read_dir(cache.path()).unwrap() {
            assert!(!std::fs::read_to_string(file.unwrap().path()).unwrap().contains("s3cret"));
        }
    }

    #[test]
    fn the_error_of_a_refusal_does_not_contain_the_key() {
        let cache = tempfile::tempdir().unwrap();
        let (address, _) = server(vec![(401, "")]);
        let judge = ModelJudge::new(&options(&address), "m", cache.path()).unwrap();
        let error = format!("{:#}", judge.ask(Class::Code, "p", "r").unwrap_err());
        assert!(error.contains("401") && error.contains("RFT_ENDPOINT_KEY") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn only_the_requested_form_is_parsed() {
        assert_eq!(parse("present: no\ncount: 0"), Opinion::Count(0));
        assert_eq!(parse(" Present: Yes\n\n Count: 3.\n"), Opinion::Count(3));
        for reply in
            ["", "yes", "present: yes\ncount: 0", "present: no\ncount: 2", "present: yes\ncount: many", "a\nb\nc"]
        {
            assert_eq!(parse(reply), Opinion::Unparsable, "{reply}");
        }
    }

    #[test]
    fn every_class_has_its_question() {
        for class in Class::ALL {
            assert!(words().message(class, "P", "R").contains("Behaviour: "));
        }
    }
}
