//! `rft watch`: the page and its events, as a browser gets them.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rft::sweep::SweepFile;
use rft::sweep::folder::SweepFolder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{error, folder, rft, rft_path};
use crate::progress::until;
use crate::report::Lab;
use crate::require::require;

/// A running `rft watch`.
struct Watch {
    child: Child,
    /// Host and port.
    address: String,
}

impl Watch {
    fn new(folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(rft_path());
        command.current_dir(folder).arg("watch").args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { child, address }
    }

    /// The reader of the response to a request, after its status line, which is returned as well.
    fn send(&self, request: &str) -> (String, BufReader<TcpStream>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        (status.trim().trim_start_matches("HTTP/1.1 ").to_owned(), reader)
    }

    /// Status and the rest of the response: headers and body.
    fn get(&self, path: &str, headers: &str) -> (String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", self.address);
        let (status, mut reader) = self.send(&request);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        (status, rest)
    }

    fn events(&self, query: &str) -> Events {
        let (status, reader) = self.send(&format!("GET /events{query} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address));
        assert_eq!(status, "200 OK");
        Events { reader }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream of events.
struct Events {
    reader: BufReader<TcpStream>,
}

impl Events {
    /// The data of the next event `name`; others are skipped.
    fn next(&mut self, name: &str) -> Value {
        let mut is_named = false;
        loop {
            let mut line = String::new();
            assert_ne!(self.reader.read_line(&mut line).unwrap(), 0, "the stream ended before an event `{name}`");
            if let Some(found) = line.strip_prefix("event: ") {
                is_named = found.trim() == name;
            } else if let Some(data) = line.strip_prefix("data: ")
                && is_named
            {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

/// Appends the record of a group of two completions with this text.
fn log_group(run: &Path, step: usize, text: &str) {
    let completion = |reward: f64, verdict: &str| {
        json!({ "text": text, "tokens": 5, "finish": "stop", "rewards": { "accuracy": reward, "judge": null }, "reward": reward,
            "verdict": verdict, "answer": "4", "advantage": 2.0 * reward - 1.0 })
    };
    let group = json!({ "step": step, "question_id": "sum/1", "question": format!("2 + 2? {text}"), "gold": "4",
        "prompt_sha256": "00", "completions": [completion(0.0, "wrong"), completion(1.0, "correct")] });
    append(&run.join("completions.jsonl"), &format!("{group}\n"));
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

const HOSTILE: &str =
    "</script><img src=x onerror=\"document.title='attacked'\">\u{1b}[31m\u{202e}\nevent: run\n<think>";

#[test]
fn a_trained_run_is_shown_from_its_files() {
    let folder = folder();
    let sets = "rollout.prompts_per_step=2 rollout.num_generations=4 rollout.max_completion_length=24 eval.questions=4";
    let sets = sets.split(' ').flat_map(|set| ["--set", set]);
    let train = ["train", "--ppe", "null-example", "--steps", "2", "--name", "first"].into_iter().chain(sets);
    assert!(rft(folder.path()).args(train).output().unwrap().status.success());
    let run = folder.path().join("runs/first");
    let lines = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(run.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    let watch = Watch::new(folder.path(), &["runs/first"]);
    let mut events = watch.events("");
    let header = events.next("run");
    assert_eq!((&header["name"], &header["state"], &header["step"]), (&json!("first"), &json!("done"), &json!(2)));
    assert_eq!(header["prior_prompts"][0]["name"], "null-example");
    assert!(header["prior_prompts"][0]["text"].as_str().unwrap().contains("<examples>"));
    assert_eq!(events.next("metrics"), json!({ "restarted": false, "rows": lines("metrics.jsonl") }));
    let (group, last) = (events.next("group"), lines("completions.jsonl").pop().unwrap());
    assert_eq!((&group["step"], &group["count"]), (&json!(2), &json!(4)));
    assert_eq!(group["question"], last["question"]);
    for (shown, logged) in group["completions"].as_array().unwrap().iter().zip(last["completions"].as_array().unwrap())
    {
        for key in ["text", "tokens", "rewards", "reward", "verdict", "answer", "advantage"] {
            assert_eq!(shown[key], logged[key], "{key}");
        }
    }

    let watch = Watch::new(folder.path(), &[]);
    let mut events = watch.events("?run=first");
    assert_eq!(events.next("run")["name"], "first");
}

#[test]
fn new_steps_and_groups_are_sent_when_they_are_written() {
    let lab = Lab::new();
    let run = lab.run("half", "reasoning", 1, 3);
    let watch = Watch::new(&lab.path(""), &["runs/half"]);
    let mut events = watch.events("");
    assert_eq!(events.next("metrics")["rows"].as_array().unwrap().len(), 3);

    append(&run.join("metrics.jsonl"), "{\"step\":4,\"reward\":0.5}\n{\"step\":5,\"rew");
    assert_eq!(events.next("metrics"), json!({ "restarted": false, "rows": [{ "step": 4, "reward": 0.5 }] }));
    append(&run.join("metrics.jsonl"), "ard\":0.25}\n");
    assert_eq!(events.next("metrics")["rows"], json!([{ "step": 5, "reward": 0.25 }]));
    log_group(&run, 5, HOSTILE);
    let group = events.next("group");
    assert_eq!((&group["step"], &group["completions"][1]["advantage"]), (&json!(5), &json!(1.0)));
    let text = group["completions"][0]["text"].as_str().unwrap();
    assert!(text.contains("\\u{1b}[31m\\u{202e}\nevent: run\n<think>"), "{text}");

    // A resumed run removes the lines after its checkpoint.
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let kept: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(run.join("metrics.jsonl"), kept).unwrap();
    let again = events.next("metrics");
    assert_eq!((&again["restarted"], again["rows"].as_array().unwrap().len()), (&json!(true), 2));

    // A damaged line is reported, and the next good one is shown.
    append(&run.join("completions.jsonl"), "{\"step\":6}\n");
    assert!(events.next("problem").as_str().unwrap().contains("last line: missing field"));
    log_group(&run, 7, "four");
    assert_eq!(events.next("group")["step"], 7);
    assert_eq!(events.next("problem"), "");

    // So is a damaged line of the metrics, and the lines after it are shown.
    append(&run.join("metrics.jsonl"), "damaged\n{\"step\":8,\"reward\":0.75}\n");
    assert_eq!(events.next("metrics")["rows"], json!([{ "step": 8, "reward": 0.75 }]));
    assert!(events.next("problem").as_str().unwrap().contains("metrics.jsonl"));

    fs::remove_dir_all(&run).unwrap();
    assert!(events.next("problem").as_str().unwrap().starts_with("no run directory"));
}

#[test]
fn the_runs_of_a_folder_are_a_table() {
    let lab = Lab::new();
    lab.run("whole", "none", 1, 20);
    lab.run("half", "reasoning", 2, 7);
    fs::write(lab.run("torn", "reasoning", 4, 3).join("manifest.json"), "{").unwrap();
    let watch = Watch::new(&lab.path(""), &["runs"]);
    let mut events = watch.events("");
    let table = events.next("table");
    let rows: Vec<_> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("{} {} {} of {} {}", row["name"], row["state"], row["step"], row["steps"], row["arm"]))
        .collect();
    let half = r#""half" "interrupted" 7 of 20 "reasoning""#;
    assert_eq!(rows.len(), 2);
    assert!(
        rows.contains(&half.to_owned()) && rows.contains(&r#""whole" "done" 20 of 20 "none""#.to_owned()),
        "{rows:?}"
    );
    assert!(table["skipped"][0].as_str().unwrap().contains("runs/torn"), "{table}");
    append(&lab.path("runs/half/metrics.jsonl"), "{\"step\":8,\"reward\":0.5}\n");
    let rows = events.next("table")["rows"].clone();
    assert!(rows.as_array().unwrap().iter().any(|row| row["step"] == 8 && row["reward"] == 0.5), "{rows}");

    // A folder before its first run.
    let empty = folder();
    let watch = Watch::new(empty.path(), &[]);
    let mut events = watch.events("");
    assert_eq!(events.next("table")["rows"], json!([]));
}

#[test]
fn the_runs_of_a_sweep_are_a_table_with_those_that_wait() {
    let lab = Lab::new();
    let sweep = rft::sweep::expand(&SweepFile::read("ppe-study-tiny", &[]).unwrap()).unwrap();
    let (_, record, _lock) = SweepFolder::prepare(&lab.path("study"), &sweep).unwrap();
    let first = &record.runs[0];
    fs::rename(lab.run("half", "none", first.seed, 7), lab.path("study/runs").join(&first.name)).unwrap();
    let watch = Watch::new(&lab.path(""), &["study"]);
    let table = watch.events("").next("table");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), record.runs.len());
    assert_eq!(
        (&rows[0]["name"], &rows[0]["state"], &rows[0]["step"]),
        (&json!(first.name), &json!("interrupted"), &json!(7))
    );
    assert_eq!(
        (&rows[1]["state"], &rows[1]["is_started"], &rows[1]["step"]),
        (&json!("waiting"), &json!(false), &json!(0))
    );
    assert_eq!(rows[1]["arm"], json!(record.runs[1].arm));
    let note = format!("0 of {} runs done; evaluations: {} waiting", rows.len(), record.evals.len());
    assert_eq!(table["note"], json!(note));
    assert_eq!(watch.events(&format!("?run={}", first.name)).next("run")["step"], 7);
    assert_eq!(watch.get(&format!("/events?run={}", record.runs[1].name), "").0, "404 Not Found");
}

#[test]
fn other_sites_get_nothing() {
    let lab = Lab::new();
    lab.run("half", "reasoning", 1, 3);
    let watch = Watch::new(&lab.path(""), &[]);
    let (status, page) = watch.get("/", "");
    assert_eq!(status, "200 OK");
    let page = page.to_lowercase();
    assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{page}");
    assert!(page.contains("frame-ancestors 'none'") && page.contains("x-content-type-options: nosniff"), "{page}");
    for path in ["/", "/watch.js", "/style.css", "/events", "/events?run=half"] {
        for headers in ["origin: http://evil.example\r\n", "origin: null\r\n", "sec-fetch-site: cross-site\r\n"] {
            assert_eq!(watch.get(path, headers).0, "403 Forbidden", "{path} {headers}");
        }
        let (status, _) =
            watch.send(&format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n"));
        assert_eq!(status, "403 Forbidden", "{path}");
    }
    let post = format!("POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", watch.address);
    assert_eq!(watch.send(&post).0, "405 Method Not Allowed");
}

#[test]
fn a_request_cannot_leave_the_folder() {
    let lab = Lab::new();
    let run = lab.run("half", "reasoning", 1, 3);
    fs::create_dir(lab.path("inner")).unwrap();
    fs::rename(run, lab.path("outside")).unwrap();
    let watch = Watch::new(&lab.path(""), &["inner"]);
    for name in ["../outside", "..%2Foutside", "%2e%2e/outside", "/etc", "..", ".", "", "none", "%00", "%ff"] {
        assert_eq!(watch.get(&format!("/events?run={name}"), "").0, "404 Not Found", "{name}");
    }
    for path in ["/../Cargo.toml", "/etc/passwd", "/runs", "//"] {
        assert_eq!(watch.get(path, "").0, "404 Not Found", "{path}");
    }
}

#[test]
fn what_cannot_be_watched_is_an_error() {
    let dir = folder();
    let said = error(&dir, &["watch", "elsewhere"]);
    assert!(said.starts_with("error: `elsewhere` is not a folder\nhint: pass a run, a sweep or a folder"), "{said}");
    let watch = Watch::new(dir.path(), &[]);
    let port = watch.address.rsplit_once(':').unwrap().1;
    let said = error(&dir, &["watch", "--port", port]);
    assert!(
        said.starts_with(&format!("error: listen on 127.0.0.1:{port}: ")) && said.contains("hint: pass another --port")
    );
}

/// A headless Chromium, controlled through its debugging pipe: messages are JSON that ends with a zero byte.
struct Browser {
    child: Child,
    messages: fs::File,
    replies: BufReader<fs::File>,
    session: Value,
    sent: u64,
    _folder: TempDir,
}

impl Browser {
    /// Starts the browser. Without one this returns `None`, and the test is skipped.
    fn open() -> Option<Self> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let named =
            |name: &str| std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
        let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(named);
        let path = require("browser", found.ok_or("there is no Chromium"))?;
        let folder = tempfile::tempdir().unwrap();
        let pipes = ["messages", "replies"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<messages 4>replies"]).arg(path).current_dir(folder.path());
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let messages = OpenOptions::new().write(true).open(&pipes[0]).unwrap();
        let replies = BufReader::new(fs::File::open(&pipes[1]).unwrap());
        Some(Self { child, messages, replies, session: Value::Null, sent: 0, _folder: folder })
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if self.session.is_string() {
            message["sessionId"] = self.session.clone();
        }
        self.messages.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut reply = Vec::new();
            self.replies.read_until(0, &mut reply).unwrap();
            let reply: Value = serde_json::from_slice(&reply[..reply.len() - 1]).unwrap();
            if reply["id"] == self.sent {
                // A page that is still loading has an error, which `evaluate` returns as null.
                assert!(reply["error"].is_null() || method == "Runtime.evaluate", "{method}: {reply}");
                return reply["result"].clone();
            }
        }
    }

    fn show(&mut self, url: &str) {
        self.session = Value::Null;
        let target = self.call("Target.createTarget", json!({ "url": url }))["targetId"].clone();
        let attached = self.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        self.session = attached["sessionId"].clone();
    }

    fn evaluate(&mut self, script: &str) -> Value {
        self.call("Runtime.evaluate", json!({ "expression": script, "returnByValue": true }))["result"]["value"].clone()
    }

    /// The page's markup once it contains `text`.
    fn markup_with(&mut self, text: &str) -> String {
        until(text, || {
            let markup = self.evaluate("document.documentElement.outerHTML");
            markup.as_str().filter(|markup| markup.contains(text)).map(str::to_owned)
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_browser_draws_the_run_and_runs_no_text_as_a_script() {
    let Some(mut browser) = Browser::open() else { return };
    let lab = Lab::new();
    let run = lab.run("half", "reasoning", 1, 12);
    log_group(&run, 12, HOSTILE);
    let watch = Watch::new(&lab.path(""), &[]);
    browser.show(&format!("http://{}/", watch.address));
    let page = browser.markup_with("<a href=\"/?run=half\">half</a>");
    assert!(page.contains("12 of 20"), "{page}");

    browser.evaluate("document.querySelector('td a').click()");
    let page = browser.markup_with("Step 12, question sum/1");
    assert!(page.contains("interrupted: step 12 of 20") && page.contains("<title>12/20 half</title>"), "{page}");
    assert!(page.contains("aria-label=\"reward over steps\""), "{page}");
    assert!(page.contains("The same at every step: completion length 30 tokens"), "{page}");
    assert!(page.contains("<b class=\"tag\">&lt;think&gt;</b>"), "{page}");
    assert!(page.contains("&lt;img src=x") && !page.contains("<img"), "{page}");
    let best = page.find("reward 1, advantage +1.00").expect("the better completion");
    assert!(best < page.find("reward 0, advantage −1.00").expect("the other one"), "{page}");

    // New steps are drawn; a group that is kept stays.
    browser.evaluate("document.getElementById('hold').click()");
    append(&run.join("metrics.jsonl"), "{\"step\":13,\"reward\":0.875}\n");
    log_group(&run, 13, "four");
    let page = browser.markup_with("<title>13/20 half</title>");
    assert!(page.contains("<dd>0.875</dd>") && page.contains("Step 12, question sum/1"), "{page}");
    browser.evaluate("document.getElementById('hold').click()");
    browser.markup_with("Step 13, question sum/1");

    // The page says that it is not live any more.
    drop(watch);
    browser.markup_with("The connection to `rft watch` is lost.");
}
