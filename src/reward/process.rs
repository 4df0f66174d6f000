//! A child process that communicates in lines and cannot block the caller indefinitely.
//!
//! Threads write its input and read its two outputs, so that a full pipe cannot block both sides. It leads its own
//! process group: a Ctrl-C meant for the run does not end it, and the processes that it started end with it. A second
//! process ends the group if this one dies, however it dies.

use std::collections::VecDeque;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A longer line is passed on in pieces.
const LONGEST_LINE: u64 = 1 << 20;
/// Number of lines read ahead; a process that writes more has to wait.
const LINES_AHEAD: usize = 1024;
/// Number of bytes kept of its standard error.
const LAST_WORDS: usize = 600;
/// Time for a process to end by itself after its input has ended.
const GRACE: Duration = Duration::from_millis(500);

pub struct RewardProcess {
    /// `None` after it has ended.
    child: Option<Child>,
    guard: Option<GroupGuard>,
    /// `None` after the input is closed.
    input: Option<Sender<String>>,
    output: Receiver<String>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
    /// Closed after all of standard error has been read.
    stderr: Receiver<()>,
}

/// The next output of a process.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// A line, without its end.
    Line(String),
    /// No output in the given time.
    Nothing,
    /// Its output has ended.
    End,
}

impl RewardProcess {
    /// Starts a program with its arguments, without a shell, in the current folder. Of the environment it gets all variables
    /// except secrets that are not among `passed`.
    pub fn start(command: &[String], passed: &[String]) -> Result<RewardProcess> {
        let mut start = Command::new(&command[0]);
        for (name, value) in env::vars_os() {
            let (text, value) = (name.to_string_lossy(), value.to_string_lossy());
            if is_secret(&text, &value) && !passed.iter().any(|it| *it == text) {
                start.env_remove(&name);
            }
        }
        let mut child = start
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| {
                let program = &command[0];
                format!(
                    "start `{program}`\nhint: set `command` to a program on the PATH, or to an executable file seen from \
                     the folder where you run rft, followed by its arguments as separate strings"
                )
            })?;
        let guard = GroupGuard::start(child.id());
        let mut stdin = child.stdin.take().expect("piped above");
        let (stdout, stderr) = (child.stdout.take().expect("piped above"), child.stderr.take().expect("piped above"));
        let (input, texts) = mpsc::channel::<String>();
        // A process that has ended does not read any more: the reader of its output will notice.
        thread::spawn(move || texts.iter().try_for_each(|text| stdin.write_all(text.as_bytes())));
        let (lines, output) = mpsc::sync_channel(LINES_AHEAD);
        thread::spawn(move || read_lines(stdout, &lines));
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let (reading, stderr_ended) = mpsc::channel();
        let words = last_words.clone();
        thread::spawn(move || keep_last(stderr, &words, reading));
        Ok(RewardProcess { child: Some(child), guard, input: Some(input), output, last_words, stderr: stderr_ended })
    }

    /// Queues text for its input; never waits for the process to read it.
    pub fn send(&self, text: String) {
        if let Some(input) = &self.input {
            _ = input.send(text);
        }
    }

    /// The next line of its output.
    pub fn hear(&self, deadline: Instant) -> Said {
        match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Said::Line(line),
            Err(RecvTimeoutError::Timeout) => Said::Nothing,
            Err(RecvTimeoutError::Disconnected) => Said::End,
        }
    }

    /// Closes its input, waits a moment, and ends it with all its child processes. Returns its status and the end of
    /// its stderr.
    pub fn end(&mut self, grace: Duration) -> (String, String) {
        let Some(mut child) = self.child.take() else { return Default::default() };
        self.input = None;
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && matches!(self.hear(deadline), Said::Line(_)) {}
        // Before `wait`, after which the system may reuse the group's number.
        kill_group(child.id());
        self.guard = None;
        _ = child.kill();
        let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        // A process that left the group may hold standard error open.
        _ = self.stderr.recv_timeout(GRACE);
        let words: Vec<u8> = self.last_words.lock().unwrap_or_else(|it| it.into_inner()).iter().copied().collect();
        (status, String::from_utf8_lossy(&words).trim().to_owned())
    }
}

impl Drop for RewardProcess {
    fn drop(&mut self) {
        self.end(GRACE);
    }
}

/// The standard library can signal one process only; every shell can signal a group.
const KILL_GROUP: &str = "kill -s KILL -- \"-$0\"";

fn kill_group(leader: u32) {
    _ = Command::new("sh").args(["-c", KILL_GROUP, &leader.to_string()]).stderr(Stdio::null()).status();
}

/// A shell that waits for the end of its input, which only this process can write to, and then kills the process group.
struct GroupGuard(Child);

impl GroupGuard {
    /// `None` on a machine without a shell. There, the commands of a killed run may keep running.
    fn start(leader: u32) -> Option<Self> {
        let script = format!("read -r line; {KILL_GROUP}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, &leader.to_string()]);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        shell.spawn().ok().map(Self)
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Whether an environment variable is a secret, by its name, or because its value is an address with a password.
fn is_secret(name: &str, value: &str) -> bool {
    const INSIDE: [&str; 5] = ["SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL"];
    const PARTS: [&str; 10] = ["TOKEN", "TOKENS", "KEY", "KEYS", "PAT", "PW", "PASS", "DSN", "AUTH", "PRIVATE"];
    const ENDS: [&str; 2] = ["TOKEN", "APIKEY"];
    let name = name.to_uppercase();
    let authority = value.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
    INSIDE.iter().any(|part| name.contains(part))
        || name.split('_').any(|part| PARTS.contains(&part))
        || ENDS.iter().any(|end| name.ends_with(end))
        || authority.split_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn read_lines(stdout: ChildStdout, lines: &SyncSender<String>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while matches!(reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        if lines.send(text).is_err() {
            break;
        }
        line.clear();
    }
}

fn keep_last(mut stderr: ChildStderr, last: &Mutex<VecDeque<u8>>, _reading: Sender<()>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let mut last = last.lock().unwrap_or_else(|it| it.into_inner());
        last.extend(&buffer[..count]);
        let surplus = last.len().saturating_sub(LAST_WORDS);
        last.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> RewardProcess {
        RewardProcess::start(&["sh", "-c", script].map(String::from), &[]).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn exists(pid: &str) -> bool {
        // A process that has ended but is not reaped yet does not count.
        let script = "kill -0 \"$0\" 2>/dev/null && ! grep -qs '^State:.*Z' \"/proc/$0/status\"";
        Command::new("sh").args(["-c", script, pid]).status().unwrap().success()
    }

    #[test]
    fn lines_are_written_and_read() {
        let mut process = sh("while read -r line; do echo \"<$line>\"; done; echo bye >&2; exit 3");
        process.send("one\ntwo\n".into());
        assert_eq!(process.hear(soon()), Said::Line("<one>".into()));
        assert_eq!(process.hear(soon()), Said::Line("<two>".into()));
        assert_eq!(process.hear(Instant::now() + Duration::from_millis(20)), Said::Nothing);
        assert_eq!(process.end(Duration::from_secs(20)), ("exit status: 3".into(), "bye".into()));
        assert_eq!(process.hear(soon()), Said::End);
    }

    /// Both pipes hold 64 KiB: if both sides wrote everything before reading, each would wait for the other.
    #[test]
    fn full_pipes_block_neither_side() {
        let process = sh("cat; cat >/dev/null");
        let line = "x".repeat(1000);
        let text = format!("{line}\n").repeat(3000);
        process.send(text);
        thread::sleep(Duration::from_millis(50));
        for _ in 0..3000 {
            assert_eq!(process.hear(soon()), Said::Line(line.clone()));
        }
        // This process reads nothing, and sending does not wait.
        let deaf = sh("sleep 60");
        (0..100).for_each(|_| deaf.send(line.repeat(10)));
    }

    #[test]
    fn child_processes_end_with_it() {
        let process = sh("sleep 600 & echo $!; echo $$; trap '' TERM; sleep 600");
        let pids: Vec<String> = (0..2)
            .map(|_| match process.hear(soon()) {
                Said::Line(pid) => pid,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(pids.iter().all(|pid| exists(pid)));
        drop(process);
        // The grandchild is reaped by another process, a moment later.
        let gone = |pid: &String| {
            (0..200).any(|_| {
                !exists(pid) || {
                    thread::sleep(Duration::from_millis(20));
                    false
                }
            })
        };
        assert!(pids.iter().all(gone), "{pids:?} are still running");
    }

    #[test]
    fn secrets_are_recognized_by_their_names() {
        for name in ["HF_TOKEN", "hf_token", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_PAT", "PGPASSWORD"] {
            assert!(is_secret(name, "x"), "{name}");
        }
        for name in ["SSH_AUTH_SOCK", "GOOGLE_APPLICATION_CREDENTIALS", "KEY", "SENTRY_DSN", "DB_PASS"] {
            assert!(is_secret(name, "x"), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "TOKENIZERS_PARALLELISM",
            "GIT_AUTHOR_NAME",
            "KEYBOARD",
            "PYTHONPATH",
            "LD_LIBRARY_PATH",
            "CUDA_VISIBLE_DEVICES",
        ] {
            assert!(!is_secret(name, "x"), "{name}");
        }
        assert!(is_secret("HTTPS_PROXY", "http://ada:lovelace@proxy:3128"));
        assert!(!is_secret("HTTPS_PROXY", "http://proxy:3128/a@b:c"));
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let process = sh("yes | tr -d '\\n'");
        let Said::Line(piece) = process.hear(soon()) else { panic!("no piece") };
        assert_eq!(piece.len(), LONGEST_LINE as usize);
    }

    #[test]
    fn the_end_of_stderr_is_kept() {
        let mut process = sh("i=0; while [ $i -lt 500 ]; do echo word $i >&2; i=$((i + 1)); done");
        assert_eq!(process.hear(soon()), Said::End);
        let (status, words) = process.end(Duration::ZERO);
        assert_eq!(status, "exit status: 0");
        assert!(words.ends_with("word 498\nword 499") && words.len() <= LAST_WORDS, "{words}");
    }
}
