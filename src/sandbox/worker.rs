//! A process of this program that works on untrusted input for it.
//!
//! Code that interprets such input may use up its stack or the memory, or not end. No process can handle this in itself, but the one
//! that started it can. The process limits itself when it starts, so that no code runs between `fork` and `exec`, and it
//! answers one request after the other. Its language is Rust, not that of the input, so it needs no isolation from files.
//!
//! A message is its length as 4 bytes, little-endian, and that number of bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use super::session::processor_time;

/// Bytes of address space.
const MEMORY: u64 = 768 << 20;
/// Seconds of processor time for one request, rounded up to whole seconds of the process.
const SECONDS: u64 = 1;
/// Longest message in bytes.
const LONGEST: usize = 512 << 20;

/// Whether this program has the hidden subcommands that call [`serve`].
static ENABLED: AtomicBool = AtomicBool::new(false);

/// Declares that this program has the hidden subcommands, so that untrusted input is given to separate processes. A program that
/// only uses this library does not have them.
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

pub fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// A running process. It ends when this is dropped.
pub struct Worker {
    child: Child,
    requests: ChildStdin,
    replies: ChildStdout,
    /// How it ended, if it has.
    over: Option<String>,
}

impl Worker {
    /// Starts this program with the subcommand `name`, which has to call [`serve`].
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(name: &str) -> Result<Worker> {
        // Also right if the file was replaced while the program runs.
        let mut child = Command::new("/proc/self/exe")
            .arg0("rft")
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A Ctrl-C stops the run at the end of a step, until which it is needed.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start the process `rft {name}`"))?;
        let (requests, replies) = (child.stdin.take(), child.stdout.take());
        let (requests, replies) = (requests.expect("piped above"), replies.expect("piped above"));
        Ok(Worker { child, requests, replies, over: None })
    }

    /// The reply to a request.
    ///
    /// # Errors
    /// The process ended, by one of its limits or otherwise; all later requests fail with the same reason.
    pub fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        if let Some(reason) = &self.over {
            bail!("{reason}");
        }
        ensure!(request.len() <= LONGEST, "a request of more than {} MiB", LONGEST >> 20);
        let reply = send(&mut self.requests, request).and_then(|()| receive(&mut self.replies));
        match reply {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) | Err(_) => {
                _ = self.child.kill();
                let reason = reason(self.child.wait().ok());
                self.over = Some(reason.clone());
                bail!("{reason}")
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.over.is_none() {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

/// Why a process ended before its reply.
fn reason(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "its process ended".to_owned() };
    match (status.signal(), status.code()) {
        (Some(libc::SIGXCPU), _) => format!("it needs more than {SECONDS} s of processor time"),
        // An allocation that fails and a stack overflow both abort a Rust program.
        (Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS), _) => {
            format!("it nests values too deeply, or needs more than {} MiB of memory", MEMORY >> 20)
        }
        // A panic, with which the library that does the work answers some input.
        (_, Some(101)) => "it has a value that is not supported".to_owned(),
        _ => format!("its process ended ({status})"),
    }
}

/// Answers requests until the program that started this process closes the channel.
///
/// # Errors
/// A limit cannot be set, or the channel fails.
pub fn serve(mut reply: impl FnMut(&[u8]) -> Vec<u8>) -> Result<()> {
    // Sent to all processes of a job when it should stop; this one ends with the run.
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    limit(Resource::Core, 0)?;
    limit(Resource::As, MEMORY)?;
    let (mut requests, mut replies) = (io::stdin().lock(), io::stdout().lock());
    while let Some(request) = receive(&mut requests)? {
        let used = processor_time(std::process::id()).unwrap_or(Duration::ZERO);
        limit(Resource::Cpu, used.as_secs() + 1 + SECONDS)?;
        send(&mut replies, &reply(&request))?;
    }
    Ok(())
}

/// A text or an error as a reply.
pub fn reply(result: Result<String>) -> Vec<u8> {
    let (mark, text) = match result {
        Ok(text) => (OK, text),
        Err(error) => (ERROR, format!("{error:#}")),
    };
    let mut reply = text.into_bytes();
    reply.push(mark);
    reply
}

/// The text of a [`reply`].
///
/// # Errors
/// The error of the reply.
pub fn read_reply(mut reply: Vec<u8>) -> Result<String> {
    let mark = reply.pop();
    let text = String::from_utf8(reply)?;
    if mark == Some(OK) { Ok(text) } else { Err(anyhow!(text)) }
}

/// The last byte of a reply.
const OK: u8 = b'+';
const ERROR: u8 = b'-';

/// Lowers a limit, or raises it up to the highest value that is allowed.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    let current = Some(value.min(maximum.unwrap_or(u64::MAX)));
    Ok(setrlimit(resource, Rlimit { current, maximum })?)
}

fn send(mut to: impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| too_long())?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(message)?;
    to.flush()
}

/// The next message; none at the end of the channel.
fn receive(mut from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(too_long());
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn too_long() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a message is too long")
}
