//! A client for servers with OpenAI's API: which requests are retried, and where the key may be sent.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::Value;
use ureq::http::{HeaderMap, HeaderValue, Request, Response, Uri};
use ureq::{Agent, AsSendBody, Body};

use crate::disk::budget::Budget;
use crate::rng::Stream;

/// Maximum number of bytes of a reply. A completion of a million tokens is smaller.
const LONGEST_REPLY: u64 = 64 << 20;

/// The address of a server and how to send requests to it.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `http://127.0.0.1:8000`, with or without `/v1` at the end.
    pub url: String,
    /// Maximum number of concurrent requests.
    pub concurrency: usize,
    /// Number of times that a request is sent before its failure is final.
    pub tries: u32,
    /// Maximum time for one reply, from the connection to its last byte.
    pub time_out: Duration,
    /// Approximate wait before the second try; it doubles with each further try.
    pub pause: Duration,
    /// Sent only over https or to this machine.
    pub key: Option<ApiKey>,
}

impl ServerOptions {
    /// The server at `url`, with the key from the environment.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            concurrency: 16,
            tries: 6,
            time_out: Duration::from_secs(30 * 60), // a slow or busy server can take this long
            pause: Duration::from_secs(1),
            key: ApiKey::from_env(),
        }
    }
}

/// The API key. It is never shown: neither in `Debug` nor in an error.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    pub fn new(key: &str) -> Self {
        Self(key.to_owned())
    }

    /// `RFT_ENDPOINT_KEY`, else `OPENAI_API_KEY`; empty values count as unset.
    pub fn from_env() -> Option<Self> {
        let variable = |name| std::env::var(name).ok().filter(|key: &String| !key.trim().is_empty());
        let key = variable("RFT_ENDPOINT_KEY").or_else(|| variable("OPENAI_API_KEY"))?;
        Some(Self::new(key.trim()))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// The reason why there is no reply.
#[derive(Debug)]
pub struct ServerFailure {
    /// `None`: there was no complete reply.
    status: Option<u16>,
    /// One line, and a hint if there is a remedy.
    message: String,
    /// Whether the same request may succeed later.
    passing: bool,
    /// The wait that the server asks for.
    after: Option<Duration>,
}

impl ServerFailure {
    fn passing(message: String) -> Self {
        Self { status: None, message, passing: true, after: None }
    }

    /// Whether the server rejects a field or its value.
    pub fn misunderstood(&self) -> bool {
        matches!(self.status, Some(400 | 422))
    }

    /// A failure that no repetition helps against.
    pub fn lasting(message: String) -> Self {
        Self { status: None, message, passing: false, after: None }
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        self.passing
    }

    /// Whether there was no complete reply.
    pub fn is_unanswered(&self) -> bool {
        self.status.is_none()
    }

    /// Whether the server does not know the path or the model.
    pub fn is_unknown_path(&self) -> bool {
        self.status == Some(404)
    }

    /// The wait that the server asks for.
    pub fn asked_wait(&self) -> Option<Duration> {
        self.after
    }

    /// One line, and a hint if there is a remedy.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn into_error(self) -> anyhow::Error {
        anyhow!(self.message)
    }
}

/// Sends requests to one server.
pub struct ServerClient {
    agent: Agent,
    /// Without a slash or `/v1` at the end.
    url: String,
    key: Option<ApiKey>,
    /// The header with the key, if the key may be sent.
    authorization: Option<HeaderValue>,
    tries: u32,
    pause: Duration,
    time_out: Duration,
}

impl ServerClient {
    pub fn new(options: &ServerOptions) -> Result<Self> {
        let ServerAddress { url, on_this_machine, keeps_secrets } = ServerAddress::parse(&options.url)?;
        let authorization = match &options.key {
            Some(key) if keeps_secrets => {
                let header = HeaderValue::from_str(&format!("Bearer {}", key.0));
                let mut header =
                    header.map_err(|_| anyhow!("the API key contains characters that are not valid in a header"))?;
                header.set_sensitive(true);
                Some(header)
            }
            _ => None,
        };
        let mut agent = Agent::config_builder()
            .user_agent(concat!("rft/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0) // the user decides where the key is sent, not a reply
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(options.time_out))
            .max_idle_connections(options.concurrency)
            .max_idle_connections_per_host(options.concurrency)
            .max_idle_age(Duration::from_secs(3)); // below the 5 s after which Python servers close a connection
        if on_this_machine {
            agent = agent.proxy(None);
        }
        Ok(Self {
            agent: agent.build().into(),
            url,
            key: options.key.clone(),
            authorization,
            tries: options.tries.max(1),
            pause: options.pause,
            time_out: options.time_out,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The page at `path`. It is requested once: a missing server usually means a wrong URL.
    ///
    /// # Errors
    /// See [`ServerFailure`].
    pub fn get(&self, path: &str) -> Result<String, ServerFailure> {
        self.send(Request::get(format!("{}{path}", self.url)).body(()).map_err(unsendable)?)
    }

    /// Posts JSON until `read` accepts the reply, or no tries are left. `stream` varies the waits between
    /// tries.
    ///
    /// # Errors
    /// See [`ServerFailure`].
    pub fn post<T>(
        &self,
        path: &str,
        body: &str,
        stream: &Stream,
        given_up: &dyn Fn() -> bool,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ServerFailure> {
        let mut tried = 0;
        loop {
            if given_up() {
                return Err(ServerFailure::passing("canceled".into()));
            }
            let request = Request::post(format!("{}{path}", self.url))
                .header("Content-Type", "application/json")
                .body(body.to_owned());
            let answer = request.map_err(unsendable).and_then(|request| self.send(request));
            let incomplete = |reason| ServerFailure::passing(format!("invalid reply from the server: {reason}"));
            let mut failure = match answer.and_then(|body| read(&body).map_err(incomplete)) {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            tried += 1;
            if failure.passing && tried >= self.tries && tried > 1 {
                let (line, hint) = failure.message.split_once('\n').unwrap_or((&failure.message, ""));
                failure.message = format!("{line} ({tried} tries)\n{hint}").trim_end().to_owned();
            }
            if !failure.passing || tried >= self.tries {
                return Err(failure);
            }
            let wait = self.wait(tried, stream).max(failure.after.unwrap_or_default());
            tracing::info!("{}; retrying in {:.1} s", first_line(&failure.message), wait.as_secs_f64());
            thread::sleep(wait);
        }
    }

    /// The wait after `tried` tries: it doubles, up to half a minute, and less than half of it is random, so that requests that
    /// failed together are not sent again together.
    fn wait(&self, tried: u32, stream: &Stream) -> Duration {
        let full = self.pause.saturating_mul(1 << (tried - 1).min(16)).min(Duration::from_secs(30));
        full.mul_f64(0.5 + 0.5 * stream.f64(u64::from(tried)))
    }

    /// The body of a successful reply.
    fn send(&self, mut request: Request<impl AsSendBody>) -> Result<String, ServerFailure> {
        if let Some(header) = &self.authorization {
            request.headers_mut().insert("Authorization", header.clone());
        }
        let mut response = self.agent.run(request).map_err(|error| self.unanswered(&error))?;
        if response.status().as_u16() != 200 {
            return Err(self.refused(response));
        }
        match Budget::new(LONGEST_REPLY).read(response.body_mut().as_reader()) {
            Ok(body) => match String::from_utf8(body) {
                Ok(body) => Ok(self.redacted(body)),
                Err(_) => Err(ServerFailure::passing("the reply is not UTF-8 text".into())),
            },
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                let message = format!("the reply is too large: {error}");
                Err(ServerFailure { status: Some(200), message, passing: false, after: None })
            }
            Err(error) => Err(self.unanswered(&error.into())),
        }
    }

    fn unanswered(&self, error: &ureq::Error) -> ServerFailure {
        let message = match error {
            ureq::Error::Timeout(ureq::Timeout::Global) => format!(
                "no reply within {:.0?}\nhint: lower --concurrency or --max-tokens; the server may be overloaded",
                self.time_out
            ),
            ureq::Error::HostNotFound => "unknown host name\nhint: check the URL and the network".to_owned(),
            error => {
                format!("{}\nhint: check that a server is running at {}", self.clean(&error.to_string()), self.url)
            }
        };
        ServerFailure::passing(message)
    }

    /// The failure for a status.
    fn refused(&self, response: Response<Body>) -> ServerFailure {
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|it| it.to_str().ok());
        if (300..400).contains(&status) {
            let target = self.clean(header("Location").unwrap_or("nowhere"));
            let message = format!("the server redirects to {target}\nhint: if you trust that address, pass its URL");
            return ServerFailure { status: Some(status), message, passing: false, after: None };
        }
        let passing = matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 529);
        let after = retry_after(response.headers());
        let mut body = Vec::new();
        let _ = response.into_body().into_reader().take(64 << 10).read_to_end(&mut body); // a partial body is enough
        let said = self.clean(&message(&String::from_utf8_lossy(&body)));
        let hint = match status {
            400 | 422 => "check that the prompt and --max-tokens fit in the server's context",
            401 | 403 => match (&self.key, &self.authorization) {
                (None, _) => "set RFT_ENDPOINT_KEY",
                (_, None) => "use https; the key was not sent, because it is sent only over https or to this machine",
                _ => "check the key in RFT_ENDPOINT_KEY, else OPENAI_API_KEY",
            },
            404 => "check the model's name, and pass the part of the URL before /v1/completions",
            _ => "",
        };
        let colon = if said.is_empty() { "" } else { ": " };
        let mut message = format!("the server returned {status}{colon}{said}");
        if !hint.is_empty() {
            message.push_str("\nhint: ");
            message.push_str(hint);
        }
        ServerFailure { status: Some(status), message, passing, after }
    }

    /// A reply in which no text contains the key: replies are stored, and a server may repeat the headers of a request.
    fn redacted(&self, body: String) -> String {
        /// A shorter key is a placeholder, such as vLLM's `EMPTY`, and could be a part of any word.
        const SHORTEST: usize = 8;
        let Some(ApiKey(key)) = self.key.as_ref().filter(|key| key.0.len() >= SHORTEST) else { return body };
        if !body.contains(key.as_str()) && !body.contains('\\') {
            return body;
        }
        match serde_json::from_str::<Value>(&body) {
            Ok(mut reply) => {
                if redact(&mut reply, key) {
                    reply.to_string()
                } else {
                    body
                }
            }
            Err(_) => body.replace(key.as_str(), REDACTED),
        }
    }

    /// The first line of an external text, safe to print: bounded, without control characters and without the key, which a
    /// server may repeat.
    fn clean(&self, text: &str) -> String {
        const LONGEST: usize = 300;
        let text = match &self.key {
            Some(key) => text.replace(&key.0, REDACTED),
            None => text.to_owned(),
        };
        let line = first_line(text.trim()).chars().filter(|it| !it.is_control());
        let mut shown: String = line.clone().take(LONGEST).collect();
        if line.count() > LONGEST {
            shown.push_str(" ...");
        }
        shown
    }
}

/// The text that replaces the key.
const REDACTED: &str = "(key)";

/// Replaces `key` in all texts of `value`, also those that JSON writes with escapes. Returns whether there was any.
fn redact(value: &mut Value, key: &str) -> bool {
    match value {
        Value::String(text) if text.contains(key) => {
            *text = text.replace(key, REDACTED);
            true
        }
        Value::Array(items) => items.iter_mut().fold(false, |found, item| redact(item, key) | found),
        Value::Object(fields) => fields.values_mut().fold(false, |found, item| redact(item, key) | found),
        _ => false,
    }
}

fn unsendable(error: ureq::http::Error) -> ServerFailure {
    ServerFailure::passing(error.to_string())
}

/// The text of an error reply: the message in one of the usual forms, else the body itself.
fn message(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let places = ["/error/message", "/error", "/message", "/detail/0/msg", "/detail"];
    let found = places.iter().find_map(|place| json.pointer(place)?.as_str());
    found.unwrap_or(body).to_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The wait that the server asks for, at most ten minutes. A date is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get("Retry-After")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(600)))
}

/// A server's address.
#[derive(Debug, PartialEq, Eq)]
struct ServerAddress {
    url: String,
    on_this_machine: bool,
    /// Over TLS, or to this machine.
    keeps_secrets: bool,
}

impl ServerAddress {
    fn parse(url: &str) -> Result<Self> {
        const HINT: &str = "hint: write it as http://127.0.0.1:8000";
        // The URL itself may contain a password, and is not printed before that is excluded.
        ensure!(
            !url.contains('@'),
            "the server's URL contains a user name or a password\nhint: set RFT_ENDPOINT_KEY instead"
        );
        let uri: Uri = url.trim().parse().map_err(|error| anyhow!("invalid URL `{url}`: {error}\n{HINT}"))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            bail!("`{url}` is not the URL of a server\n{HINT}");
        };
        ensure!(uri.query().is_none(), "unexpected query in `{url}`\n{HINT}");
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path);
        let authority = uri.authority().expect("it has a host");
        let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
        let on_this_machine = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| it.is_loopback());
        let url = format!("{scheme}://{authority}{path}");
        Ok(Self { url, on_this_machine, keeps_secrets: scheme == "https" || on_this_machine })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_accepted_with_or_without_v1() {
        let place = |url| ServerAddress::parse(url).unwrap();
        for url in ["http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/"] {
            assert_eq!(place(url).url, "http://h:8000");
        }
        assert_eq!(place("https://h/api/v1").url, "https://h/api");
        for bad in ["", "h:8000", "ftp://h", "http://", "http://h/?a=b", "not a url"] {
            assert!(ServerAddress::parse(bad).is_err(), "{bad}");
        }
        let secret = ServerAddress::parse("https://me:secret@h/v1").unwrap_err().to_string();
        assert!(!secret.contains("secret"), "{secret}");
    }

    #[test]
    fn keys_are_sent_over_tls_or_to_this_machine() {
        for url in ["https://h", "http://localhost:1", "http://127.0.0.1/v1", "http://127.9.9.9", "http://[::1]:80"] {
            assert!(ServerAddress::parse(url).unwrap().keeps_secrets, "{url}");
        }
        for url in
            ["http://h", "http://10.0.0.1", "http://127.0.0.1.example", "http://localhost.example", "http://0.0.0.0"]
        {
            assert!(!ServerAddress::parse(url).unwrap().keeps_secrets, "{url}");
        }
        let key = Some(ApiKey::new("secret"));
        let far =
            ServerClient::new(&ServerOptions { key: key.clone(), ..ServerOptions::new("http://node1:8000") }).unwrap();
        assert_eq!(far.authorization, None);
        let near = ServerClient::new(&ServerOptions { key, ..ServerOptions::new("http://127.0.0.1:8000") }).unwrap();
        assert_eq!(near.authorization.as_ref().unwrap(), "Bearer secret");
        assert!(!format!("{:?}", near.authorization).contains("secret"));
    }

    #[test]
    fn replies_do_not_contain_the_key() {
        let client = |key: &str| {
            let options = ServerOptions { key: Some(ApiKey::new(key)), ..ServerOptions::new("http://127.0.0.1:8000") };
            ServerClient::new(&options).unwrap()
        };
        let secret = client("sk-secret-1");
        let redacted = |body: &str| secret.redacted(body.to_owned());
        assert_eq!(redacted(r#"{"text": "a sk-secret-1", "p": 0.1}"#), r#"{"text":"a (key)","p":0.1}"#);
        assert_eq!(redacted(r#"{"a": [{"text": "\u0073k-secret-1"}]}"#), r#"{"a":[{"text":"(key)"}]}"#);
        assert_eq!(redacted("no JSON: sk-secret-1"), "no JSON: (key)");
        for same in [r#"{"text": "a\nb", "p": 0.1}"#, "{}", ""] {
            assert_eq!(redacted(same), same);
        }
        let placeholder = r#"{"text": "the list is EMPTY"}"#;
        assert_eq!(client("EMPTY").redacted(placeholder.to_owned()), placeholder);
    }

    #[test]
    fn a_server_message_is_bounded_and_without_the_key() {
        let options = ServerOptions { key: Some(ApiKey::new("secret")), ..ServerOptions::new("http://127.0.0.1:8000") };
        assert!(!format!("{options:?}").contains("secret"));
        let client = ServerClient::new(&options).unwrap();
        assert_eq!(client.clean("\n bad key \u{1b}[31msecret\u{7}!\nmore"), "bad key [31m(key)!");
        assert_eq!(client.clean(&"é".repeat(1000)).chars().count(), 304);
    }

    #[test]
    fn waits_double_and_are_bounded() {
        let client = ServerClient::new(&ServerOptions::new("http://h")).unwrap();
        let stream = Stream::new(1, crate::rng::Purpose::Test, &[]);
        let waits: Vec<f64> = (1..=40).map(|tried| client.wait(tried, &stream).as_secs_f64()).collect();
        for (i, wait) in waits.iter().enumerate() {
            let full = f64::from(1u32 << i.min(16)).min(30.0);
            assert!((0.5 * full..full).contains(wait), "{i}: {wait}");
        }
        assert_eq!(waits[3], client.wait(4, &stream).as_secs_f64());
    }

    #[test]
    fn error_replies_are_read_in_every_form() {
        for (body, text) in [
            (r#"{"error":{"message":"too long","type":"x"}}"#, "too long"),
            (r#"{"error":"too long"}"#, "too long"),
            (r#"{"object":"error","message":"too long"}"#, "too long"),
            (r#"{"detail":"too long"}"#, "too long"),
            (r#"{"detail":[{"loc":["body"],"msg":"too long"}]}"#, "too long"),
            ("<html>too long", "<html>too long"),
        ] {
            assert_eq!(message(body), text);
        }
    }
}
