//! The talk with a running program: requests out, answers back, each by its deadline.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::python::Python;
use super::spawn::{Allowance, Cell, Ends, Process};
use super::{Limits, Outcome, Program, Value};

/// Requests that are sent before their turn, so that a program need not wait for us after each.
const AHEAD: usize = 16;
/// Times its limit that a program may take on the wall while it waits for a processor.
const CROWDED: u32 = 5;
/// Least time between two looks at what a program had.
const LOOK: Duration = Duration::from_millis(10);
/// How long a process may take to end that has closed its channel.
const PATIENCE: Duration = Duration::from_millis(200);

const RUNNER: &str = include_str!("runner.py");

/// A program that runs and can be called. The kernel kills it when the thread that started it ends.
pub struct Session {
    talk: Talk,
    limit: Limit,
    /// Why there will be no more values.
    over: Option<Outcome>,
}

impl Session {
    pub(super) fn start(python: &Python, cell: &Cell, program: &Program, limits: &Limits) -> Result<Session> {
        let (null, null_too) = (OwnedFd::from(nothing()?), OwnedFd::from(nothing()?));
        let (mut talk, header) =
            Talk::start(python, cell, "calls", program.source, program.entry_point, limits, null, null_too)?;
        let mut limit = Limit::new(talk.id, limits.time);
        talk.send(&header);
        let over = match talk.hear(&mut [&mut limit]) {
            Ok((tag, Value::Bool(true))) if tag == "loaded" => None,
            Ok((tag, _)) if tag == "loaded" => {
                Some(Outcome::Raised(format!("NameError: `{}` is not defined", program.entry_point)))
            }
            Ok((tag, payload)) => Some(Talk::outcome(&tag, payload)),
            Err(outcome) => Some(outcome),
        };
        let mut session = Session { talk, limit, over };
        if session.over.is_some() {
            session.talk.process = None;
        }
        Ok(session)
    }

    /// The number of its process, or what it was.
    pub fn process_id(&self) -> u32 {
        self.talk.id
    }

    /// Calls the function. Once the program has timed out or died, this is what every further call gives.
    pub fn call(&mut self, arguments: &[Value], limit: Duration) -> Outcome {
        let mut all = None;
        self.call_all([(arguments, limit)], |outcome, _| {
            all = Some(outcome);
            true
        });
        all.expect("one call has one outcome")
    }

    /// Calls the function with each of these arguments in turn, each within its limit, until `each` has enough. `each` is
    /// given what came of the call and the time it took.
    pub fn call_all<'a>(
        &mut self,
        calls: impl IntoIterator<Item = (&'a [Value], Duration)>,
        mut each: impl FnMut(Outcome, Duration) -> bool,
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
            if self.over.is_none() && !matches!(outcome, Outcome::Value(_) | Outcome::Raised(_)) {
                self.over = Some(outcome.clone());
                self.talk.process = None;
            }
            if !each(outcome, now - start) {
                // What was asked ahead is not waited for, so nothing more can be asked.
                if !waiting.is_empty() {
                    self.over.get_or_insert(Outcome::Died("it was ended".to_owned()));
                    self.talk.process = None;
                }
                return;
            }
            start = now;
        }
    }
}

/// The line that asks for a call.
fn request(arguments: &[Value]) -> Vec<u8> {
    let mut line = String::from("(");
    for argument in arguments {
        argument.write_python(&mut line);
        line.push(',');
    }
    line.push_str(")\n");
    line.into_bytes()
}

/// Runs a whole program; its value is what it prints.
pub(super) fn script(python: &Python, cell: &Cell, source: &str, stdin: &str, limits: &Limits) -> Result<Outcome> {
    let (input_end, input) = pipe_with(PipeFlags::CLOEXEC)?;
    let (output, output_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (mut talk, header) = Talk::start(python, cell, "script", source, "", limits, input_end, output_end)?;
    let mut limit = Limit::new(talk.id, limits.time);
    ioctl_fionbio(&input, true)?;
    ioctl_fionbio(&output, true)?;
    let (mut input, mut rest) = (Some(input), stdin.as_bytes());
    let mut header = header.as_slice();
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let (mut is_printing, mut is_talking) = (true, true);
    while is_printing || is_talking {
        if rest.is_empty() {
            // The program reads to an end.
            input = None;
        }
        let mut fds = vec![PollFd::new(&output, PollFlags::IN), PollFd::new(&talk.answers, PollFlags::IN)];
        // What is closed would be ready at once, for ever.
        let mut wanted = [is_printing, is_talking].into_iter();
        fds.retain(|_| wanted.next() == Some(true));
        if !header.is_empty() {
            fds.push(PollFd::new(&talk.requests, PollFlags::OUT));
        }
        fds.extend(input.iter().map(|input| PollFd::new(input, PollFlags::OUT)));
        if !wait(&mut fds, &mut [&mut limit]) {
            return Ok(Outcome::TimedOut);
        }
        give(&talk.requests, &mut header);
        if let Some(input) = &input {
            give(input, &mut rest);
        }
        is_printing = is_printing && take(&output, &mut printed)?;
        is_talking = is_talking && take(&talk.answers, &mut said)?;
        if printed.len() > limits.answer {
            return Ok(Outcome::Died(format!("it printed more than {} bytes", limits.answer)));
        }
        if said.len() > limits.answer {
            return Ok(forged());
        }
    }
    let ended = talk.end();
    let said = said.strip_suffix(b"\n").and_then(|line| talk.parse(line));
    Ok(match said {
        Some((tag, payload)) if tag == "raised" => Talk::outcome(&tag, payload),
        // It may also end without a word, by `os._exit`; what counts is what it printed.
        _ if ended == "exit status 0" => Outcome::Value(Value::Str(String::from_utf8_lossy(&printed).into_owned())),
        _ => Outcome::Died(ended),
    })
}

fn nothing() -> Result<File> {
    Ok(File::options().read(true).write(true).open("/dev/null")?)
}

/// Both channels of a program.
struct Talk {
    process: Option<Process>,
    id: u32,
    requests: OwnedFd,
    answers: OwnedFd,
    /// What is still to be written.
    outgoing: Vec<u8>,
    /// Requests, sent or to be sent, that wait for their answers.
    unanswered: usize,
    /// What was read beyond the last answer.
    buffer: Vec<u8>,
    received: usize,
    /// Longest answer.
    most: usize,
    /// Stands in every answer of this run.
    nonce: String,
}

impl Talk {
    /// Starts the runner; the second is the request that brings it the program.
    fn start(
        python: &Python,
        cell: &Cell,
        mode: &str,
        source: &str,
        entry_point: &str,
        limits: &Limits,
        stdin: OwnedFd,
        stdout: OwnedFd,
    ) -> Result<(Talk, Vec<u8>)> {
        let (requests_end, requests) = pipe_with(PipeFlags::CLOEXEC)?;
        let (answers, answers_end) = pipe_with(PipeFlags::CLOEXEC)?;
        ioctl_fionbio(&requests, true)?;
        ioctl_fionbio(&answers, true)?;
        // Larger than usual, where that is allowed: fewer turns for large answers.
        _ = fcntl_setpipe_size(&answers, 1 << 20);
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| anyhow!("no random numbers: {error}"))?;
        let nonce = format!("{:032x}", u128::from_le_bytes(random));

        let ends = Ends { stdin, stdout, stderr: nothing()?.into(), requests: requests_end, answers: answers_end };
        // The clock on the wall comes first, where the program does not have many threads.
        let allowance = Allowance { seconds: limits.time.as_secs() + 2, memory: limits.memory };
        let arguments = ["-s", "-S", "-B", "-c", RUNNER];
        let process = cell.spawn(python, &arguments, ends, allowance)?;

        let path = python.module_path();
        let path = path.iter().map(|it| Value::str(&it.to_string_lossy())).collect();
        let header = [&nonce, mode, source, entry_point].map(Value::str).into_iter().chain([Value::List(path)]);
        let mut line = String::new();
        Value::Tuple(header.collect()).write_python(&mut line);
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
        };
        Ok((talk, line.into_bytes()))
    }

    /// Puts a request behind those that wait to be read.
    fn send(&mut self, line: &[u8]) {
        self.outgoing.extend_from_slice(line);
        self.unanswered += 1;
    }

    /// What came of the oldest call that was sent.
    fn answer(&mut self, until: &mut [&mut Limit]) -> Result<Outcome, Outcome> {
        let (tag, payload) = self.hear(until)?;
        Ok(Talk::outcome(&tag, payload))
    }

    /// Sends what waits, and waits for one answer: its tag and what it says.
    fn hear(&mut self, until: &mut [&mut Limit]) -> Result<(String, Value), Outcome> {
        let line = self.line(until)?;
        self.unanswered -= 1;
        // What nobody asked for was not written by the runner.
        if self.unanswered == 0 && !self.buffer.is_empty() {
            return Err(forged());
        }
        self.parse(&line).ok_or_else(forged)
    }

    fn line(&mut self, until: &mut [&mut Limit]) -> Result<Vec<u8>, Outcome> {
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
                return Err(Outcome::Died(format!(
                    "an answer of more than {most} bytes, or sixteen times that in all"
                )));
            }
            let mut fds = vec![PollFd::new(&self.answers, PollFlags::IN)];
            if !self.outgoing.is_empty() {
                fds.push(PollFd::new(&self.requests, PollFlags::OUT));
            }
            if !wait(&mut fds, until) {
                return Err(Outcome::TimedOut);
            }
            if !self.outgoing.is_empty() {
                match write(&self.requests, &self.outgoing) {
                    Ok(sent) => drop(self.outgoing.drain(..sent)),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // Nobody reads any more; what is left of the answers tells why.
                    Err(_) => self.outgoing.clear(),
                }
            }
            let is_open = take(&self.answers, &mut self.buffer).unwrap_or(false);
            let new = self.buffer.len() - searched;
            self.received += new;
            if !is_open && new == 0 {
                return Err(Outcome::Died(self.end()));
            }
        }
    }

    /// An answer of this run: its tag and what it says.
    fn parse(&self, line: &[u8]) -> Option<(String, Value)> {
        let Ok(Value::List(parts)) = Value::from_json(str::from_utf8(line).ok()?) else { return None };
        match <[Value; 3]>::try_from(parts) {
            Ok([Value::Str(nonce), Value::Str(tag), payload]) if nonce == self.nonce => Some((tag, payload)),
            _ => None,
        }
    }

    fn outcome(tag: &str, payload: Value) -> Outcome {
        match (tag, payload) {
            ("value", payload) => match Value::from_wire(payload) {
                Ok(value) => Outcome::Value(value),
                Err(error) => Outcome::Died(format!("an answer that is no value: {error}")),
            },
            ("raised", Value::Str(what)) => Outcome::Raised(what),
            ("raised", _) => Outcome::Raised("an exception that cannot be shown".to_owned()),
            _ => forged(),
        }
    }

    /// How the process ended; one that has not is killed.
    fn end(&mut self) -> String {
        self.process.take().map_or_else(|| "it has ended before".to_owned(), |process| process.end(PATIENCE))
    }
}

/// Bytes on the answer channel that the runner cannot have written.
fn forged() -> Outcome {
    Outcome::Died("it wrote to the answer channel".to_owned())
}

/// Time that a program may take. It is counted on the wall, so that one that sleeps is stopped; but one that had less of a
/// processor goes on until it had its time, or [`CROWDED`] times as long: on a crowded machine a verdict is the same.
struct Limit {
    process: u32,
    /// When to look again.
    next: Instant,
    last: Instant,
    /// Processor time at which it is up.
    processor: Duration,
}

impl Limit {
    fn new(process: u32, time: Duration) -> Limit {
        let now = Instant::now();
        let processor = processor_time(process).unwrap_or_default() + time;
        Limit { process, next: now + time, last: now + CROWDED * time, processor }
    }

    /// Whether the time is up; if not, `next` lies ahead.
    fn is_up(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let left = processor_time(self.process).map_or(Duration::ZERO, |had| self.processor.saturating_sub(had));
        self.next = self.last.min(now + left.max(LOOK));
        left.is_zero() || now >= self.last
    }
}

/// Processor time that a process has had with all its threads; none where it cannot be told.
fn processor_time(process: u32) -> Option<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls do nothing but write to the place they are given, which lives until they return.
    let told = unsafe {
        libc::clock_getcpuclockid(process as libc::pid_t, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Waits until one of them is ready; `false` where a limit is reached before.
fn wait(fds: &mut [PollFd], limits: &mut [&mut Limit]) -> bool {
    loop {
        let now = Instant::now();
        if limits.iter_mut().any(|limit| limit.is_up(now)) {
            return false;
        }
        let next = limits.iter().map(|limit| limit.next).min().unwrap_or(now);
        let Ok(timeout) = Timespec::try_from(next.saturating_duration_since(now)) else { return false };
        match poll(fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            _ => return true,
        }
    }
}

/// Writes what there is room for; where nobody reads any more, the rest is done with.
fn give(fd: &OwnedFd, rest: &mut &[u8]) {
    match write(fd, rest) {
        Ok(taken) => *rest = &rest[taken..],
        Err(Errno::AGAIN | Errno::INTR) => {}
        Err(_) => *rest = &[],
    }
}

/// Reads what is there, a piece at a time; `false` at the end of the pipe.
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
