//! The communication with a running program: requests out, answers back, each with its deadline.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::spawn::{Allowance, PipeEnds, SandboxProcess};
use super::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits};

/// Requests that are sent ahead, so that the program does not have to wait for us after each one.
const AHEAD: usize = 16;
/// Factor on the time limit for wall time, while a program waits for a processor.
const CROWDED: u32 = 5;
/// Minimum time between two checks of a program's processor time.
const POLL: Duration = Duration::from_millis(10);
/// Maximum time between two looks at whether the sandbox is stopped.
const STOP_POLL: Duration = Duration::from_millis(200);
/// Time for a process to end after it has closed its channel.
const PATIENCE: Duration = Duration::from_millis(200);

const RUNNER: &str = include_str!("runner.py");

/// A running program that can be called. The kernel kills it when the thread that started it ends.
pub struct SandboxSession {
    talk: Talk,
    limit: Limit,
    /// The reason why there are no more values.
    over: Option<CallOutcome>,
}

impl SandboxSession {
    pub(super) fn start(sandbox: &Sandbox, program: &Program, limits: &SandboxLimits) -> Result<SandboxSession> {
        let (null, null_too) = (OwnedFd::from(nothing()?), OwnedFd::from(nothing()?));
        let (mut talk, header) =
            Talk::start(sandbox, "calls", program.source, program.entry_point, limits, [null, null_too])?;
        let mut limit = Limit::new(talk.id, limits.time);
        talk.send(&header);
        let over = match talk.hear(&mut [&mut limit]) {
            Ok((tag, PythonValue::Bool(true))) if tag == "loaded" => None,
            Ok((tag, _)) if tag == "loaded" => {
                Some(CallOutcome::Raised(format!("NameError: `{}` is not defined", program.entry_point)))
            }
            Ok((tag, payload)) => Some(Talk::outcome(&tag, payload)),
            Err(outcome) => Some(outcome),
        };
        let mut session = SandboxSession { talk, limit, over };
        if session.over.is_some() {
            session.talk.process = None;
        }
        Ok(session)
    }

    /// The number of its process, also after the process has ended.
    pub fn process_id(&self) -> u32 {
        self.talk.id
    }

    /// Calls the function. After the program has timed out or died, every further call returns that outcome.
    pub fn call(&mut self, arguments: &[PythonValue], limit: Duration) -> CallOutcome {
        let mut all = None;
        self.call_all([(arguments, limit)], |outcome, _| {
            all = Some(outcome);
            true
        });
        all.expect("one call has one outcome")
    }

    /// Calls the function with each of these arguments in turn, each within its limit, until `each` returns false. `each`
    /// receives the outcome of the call and the time it took.
    pub fn call_all<'a>(
        &mut self,
        calls: impl IntoIterator<Item = (&'a [PythonValue], Duration)>,
        mut each: impl FnMut(CallOutcome, Duration) -> bool,
    ) {
        let mut calls = calls.into_iter();
        let mut waiting: VecDeque<Duration> = VecDeque::new();
        let mut start = Instant::now();
        loop {
            while waiting.len() < AHEAD {
                let Some((arguments, limit)) = calls.next() else { break };
                waiting.push_back(limit);
                if self.over.is_none() {
                    self.talk.send(&request(arguments));
                }
            }
            let Some(limit) = waiting.pop_front() else { return };
            let outcome = match &self.over {
                Some(outcome) => outcome.clone(),
                None => {
                    let mut limit = Limit::new(self.talk.id, limit);
                    self.talk.answer(&mut [&mut self.limit, &mut limit]).unwrap_or_else(|outcome| outcome)
                }
            };
            let now = Instant::now();
            if self.over.is_none() && !matches!(outcome, CallOutcome::Value(_) | CallOutcome::Raised(_)) {
                self.over = Some(outcome.clone());
                self.talk.process = None;
            }
            if !each(outcome, now - start) {
                // Answers to requests that were sent ahead are not awaited, so no further requests are possible.
                if !waiting.is_empty() {
                    self.over.get_or_insert(CallOutcome::Died("it was stopped".to_owned()));
                    self.talk.process = None;
                }
                return;
            }
            start = now;
        }
    }
}

/// The line that requests a call.
fn request(arguments: &[PythonValue]) -> Vec<u8> {
    let mut line = String::from("(");
    for argument in arguments {
        argument.write_python(&mut line);
        line.push(',');
    }
    line.push_str(")\n");
    line.into_bytes()
}

/// Runs a whole program; its value is its output.
pub(super) fn script(sandbox: &Sandbox, source: &str, stdin: &str, limits: &SandboxLimits) -> Result<CallOutcome> {
    let (input_end, input) = pipe_with(PipeFlags::CLOEXEC)?;
    let (output, output_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (mut talk, header) = Talk::start(sandbox, "script", source, "", limits, [input_end, output_end])?;
    let mut limit = Limit::new(talk.id, limits.time);
    ioctl_fionbio(&input, true)?;
    ioctl_fionbio(&output, true)?;
    let (mut input, mut rest) = (Some(input), stdin.as_bytes());
    let mut header = header.as_slice();
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let (mut is_printing, mut is_talking) = (true, true);
    while is_printing || is_talking {
        if rest.is_empty() {
            // The program reads until the end of its input.
            input = None;
        }
        let mut fds = vec![PollFd::new(&output, PollFlags::IN), PollFd::new(&talk.answers, PollFlags::IN)];
        // A closed descriptor would be ready immediately, forever.
        let mut wanted = [is_printing, is_talking].into_iter();
        fds.retain(|_| wanted.next() == Some(true));
        if !header.is_empty() {
            fds.push(PollFd::new(&talk.requests, PollFlags::OUT));
        }
        fds.extend(input.iter().map(|input| PollFd::new(input, PollFlags::OUT)));
        if !wait(&mut fds, &mut [&mut limit], &talk.stopped) {
            return Ok(CallOutcome::TimedOut);
        }
        give(&talk.requests, &mut header);
        if let Some(input) = &input {
            give(input, &mut rest);
        }
        is_printing = is_printing && take(&output, &mut printed)?;
        is_talking = is_talking && take(&talk.answers, &mut said)?;
        if printed.len() > limits.answer {
            return Ok(CallOutcome::Died(format!("it printed more than {} bytes", limits.answer)));
        }
        if said.len() > limits.answer {
            return Ok(forged());
        }
    }
    let ended = talk.end();
    let said = said.strip_suffix(b"\n").and_then(|line| talk.parse(line));
    Ok(match said {
        Some((tag, payload)) if tag == "raised" => Talk::outcome(&tag, payload),
        // It may also end without an answer, by `os._exit`; then its output counts.
        _ if ended == "exit status 0" => {
            CallOutcome::Value(PythonValue::Str(String::from_utf8_lossy(&printed).into_owned()))
        }
        _ => CallOutcome::Died(ended),
    })
}

fn nothing() -> Result<File> {
    Ok(File::options().read(true).write(true).open("/dev/null")?)
}

/// Both channels of a program.
struct Talk {
    process: Option<SandboxProcess>,
    id: u32,
    requests: OwnedFd,
    answers: OwnedFd,
    /// Bytes that still have to be written.
    outgoing: Vec<u8>,
    /// Requests, sent or not, whose answers are missing.
    unanswered: usize,
    /// Bytes that were read after the last answer.
    buffer: Vec<u8>,
    received: usize,
    /// Maximum length of an answer.
    most: usize,
    /// A secret in every answer of this run.
    nonce: String,
    /// The sandbox ends all programs.
    stopped: Arc<AtomicBool>,
}

impl Talk {
    /// Starts the runner, with these stdin and stdout. The second value is the request that sends the program to it.
    fn start(
        sandbox: &Sandbox,
        mode: &str,
        source: &str,
        entry_point: &str,
        limits: &SandboxLimits,
        [stdin, stdout]: [OwnedFd; 2],
    ) -> Result<(Talk, Vec<u8>)> {
        ensure!(!sandbox.stopped.load(Ordering::Relaxed), "this process has been asked to end");
        let (requests_end, requests) = pipe_with(PipeFlags::CLOEXEC)?;
        let (answers, answers_end) = pipe_with(PipeFlags::CLOEXEC)?;
        ioctl_fionbio(&requests, true)?;
        ioctl_fionbio(&answers, true)?;
        // Larger than usual, if allowed: large answers then need fewer reads.
        _ = fcntl_setpipe_size(&answers, 1 << 20);
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| anyhow!("get random numbers: {error}"))?;
        let nonce = format!("{:032x}", u128::from_le_bytes(random));

        let ends = PipeEnds { stdin, stdout, stderr: nothing()?.into(), requests: requests_end, answers: answers_end };
        // The wall time limit is reached before this limit on processor time, unless the program has many threads.
        let allowance = Allowance { seconds: limits.time.as_secs() + 2, memory: limits.memory };
        let arguments = ["-s", "-S", "-B", "-c", RUNNER];
        let process = sandbox.cell.spawn(&sandbox.python, &arguments, ends, allowance)?;

        let path = sandbox.python.module_path();
        let path = path.iter().map(|it| PythonValue::str(&it.to_string_lossy())).collect();
        let header =
            [&nonce, mode, source, entry_point].map(PythonValue::str).into_iter().chain([PythonValue::List(path)]);
        let mut line = String::new();
        PythonValue::Tuple(header.collect()).write_python(&mut line);
        line.push('\n');
        let id = process.id();
        let talk = Talk {
            process: Some(process),
            id,
            requests,
            answers,
            outgoing: Vec::new(),
            unanswered: 0,
            buffer: Vec::new(),
            received: 0,
            most: limits.answer,
            nonce,
            stopped: sandbox.stopped.clone(),
        };
        Ok((talk, line.into_bytes()))
    }

    /// Appends a request to those that wait to be written.
    fn send(&mut self, line: &[u8]) {
        self.outgoing.extend_from_slice(line);
        self.unanswered += 1;
    }

    /// The outcome of the oldest call that was sent.
    fn answer(&mut self, until: &mut [&mut Limit]) -> Result<CallOutcome, CallOutcome> {
        let (tag, payload) = self.hear(until)?;
        Ok(Talk::outcome(&tag, payload))
    }

    /// Writes the waiting requests, and reads one answer: its tag and its content.
    fn hear(&mut self, until: &mut [&mut Limit]) -> Result<(String, PythonValue), CallOutcome> {
        let line = self.line(until)?;
        self.unanswered -= 1;
        // The runner does not write anything without a request.
        if self.unanswered == 0 && !self.buffer.is_empty() {
            return Err(forged());
        }
        self.parse(&line).ok_or_else(forged)
    }

    fn line(&mut self, until: &mut [&mut Limit]) -> Result<Vec<u8>, CallOutcome> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|it| *it == b'\n') {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.buffer.len();
            if searched > self.most || self.received > 16 * self.most {
                let most = self.most;
                return Err(CallOutcome::Died(format!(
                    "an answer of more than {most} bytes, or sixteen times that in all"
                )));
            }
            let mut fds = vec![PollFd::new(&self.answers, PollFlags::IN)];
            if !self.outgoing.is_empty() {
                fds.push(PollFd::new(&self.requests, PollFlags::OUT));
            }
            if !wait(&mut fds, until, &self.stopped) {
                return Err(CallOutcome::TimedOut);
            }
            if !self.outgoing.is_empty() {
                match write(&self.requests, &self.outgoing) {
                    Ok(sent) => drop(self.outgoing.drain(..sent)),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // The program does not read any more; its remaining answers show why.
                    Err(_) => self.outgoing.clear(),
                }
            }
            let is_open = take(&self.answers, &mut self.buffer).unwrap_or(false);
            let new = self.buffer.len() - searched;
            self.received += new;
            if !is_open && new == 0 {
                return Err(CallOutcome::Died(self.end()));
            }
        }
    }

    /// An answer of this run: its tag and its content.
    fn parse(&self, line: &[u8]) -> Option<(String, PythonValue)> {
        let Ok(PythonValue::List(parts)) = PythonValue::from_json(str::from_utf8(line).ok()?) else { return None };
        match <[PythonValue; 3]>::try_from(parts) {
            Ok([PythonValue::Str(nonce), PythonValue::Str(tag), payload]) if nonce == self.nonce => {
                Some((tag, payload))
            }
            _ => None,
        }
    }

    fn outcome(tag: &str, payload: PythonValue) -> CallOutcome {
        match (tag, payload) {
            ("value", payload) => match PythonValue::from_wire(payload) {
                Ok(value) => CallOutcome::Value(value),
                Err(error) => CallOutcome::Died(format!("invalid answer: {error}")),
            },
            ("raised", PythonValue::Str(what)) => CallOutcome::Raised(what),
            ("raised", _) => CallOutcome::Raised("an exception that cannot be shown".to_owned()),
            _ => forged(),
        }
    }

    /// How the process ended; it is killed if it has not.
    fn end(&mut self) -> String {
        self.process.take().map_or_else(|| "it has ended before".to_owned(), |process| process.end(PATIENCE))
    }
}

/// The outcome if the answer channel contains bytes that the runner cannot have written.
fn forged() -> CallOutcome {
    CallOutcome::Died("it wrote to the answer channel".to_owned())
}

/// The time limit of a program. It is wall time, so that a program that sleeps is stopped. But a program that got less
/// processor time continues until it has had its time, or for [`CROWDED`] times the limit: verdicts are the same on a busy
/// machine.
struct Limit {
    process: u32,
    /// The time of the next check.
    next: Instant,
    last: Instant,
    /// Processor time at which the limit is reached.
    processor: Duration,
}

impl Limit {
    fn new(process: u32, time: Duration) -> Limit {
        let now = Instant::now();
        let processor = processor_time(process).unwrap_or_default() + time;
        Limit { process, next: now + time, last: now + CROWDED * time, processor }
    }

    /// Whether the limit is reached; if not, `next` is in the future.
    fn is_up(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let left = processor_time(self.process).map_or(Duration::ZERO, |had| self.processor.saturating_sub(had));
        self.next = self.last.min(now + left.max(POLL));
        left.is_zero() || now >= self.last
    }
}

/// Processor time that all threads of a process have used; none if unknown.
pub(super) fn processor_time(process: u32) -> Option<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls only write to the location they receive, which is valid until they return.
    let told = unsafe {
        libc::clock_getcpuclockid(process as libc::pid_t, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Waits until one of the descriptors is ready; `false` if a limit is reached or the sandbox is stopped first.
fn wait(fds: &mut [PollFd], limits: &mut [&mut Limit], stopped: &AtomicBool) -> bool {
    loop {
        let now = Instant::now();
        if stopped.load(Ordering::Relaxed) || limits.iter_mut().any(|limit| limit.is_up(now)) {
            return false;
        }
        let next = limits.iter().map(|limit| limit.next).min().unwrap_or(now);
        let Ok(timeout) = Timespec::try_from(next.saturating_duration_since(now).min(STOP_POLL)) else { return false };
        match poll(fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            _ => return true,
        }
    }
}

/// Writes as much as possible without blocking; if the reader has closed the pipe, discards the rest.
fn give(fd: &OwnedFd, rest: &mut &[u8]) {
    match write(fd, rest) {
        Ok(taken) => *rest = &rest[taken..],
        Err(Errno::AGAIN | Errno::INTR) => {}
        Err(_) => *rest = &[],
    }
}

/// Reads the available bytes, one piece at a time; `false` at the end of the pipe.
fn take(fd: &OwnedFd, buffer: &mut Vec<u8>) -> Result<bool, Errno> {
    let mut piece = [0; 1 << 16];
    match read(fd, &mut piece) {
        Ok(0) => Ok(false),
        Ok(count) => {
            buffer.extend_from_slice(&piece[..count]);
            Ok(true)
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(true),
        Err(error) => Err(error),
    }
}
