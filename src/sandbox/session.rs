//! The talk with a running program: requests out, answers back, each by its deadline.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value as Json;

use super::spawn::{Allowance, Ends, Process};
use super::{Limits, Outcome, Program, Sandbox, Value};

/// Longest answer, and longest output of a script, in bytes.
const LONGEST: usize = 1 << 20;
/// Bytes of all answers of a program.
const MOST: usize = 16 << 20;
/// How long a process may take to end that has closed its channel.
const PATIENCE: Duration = Duration::from_millis(200);

const RUNNER: &str = include_str!("runner.py");

/// A program that runs and can be called.
pub struct Session {
    talk: Talk,
    deadline: Instant,
    /// Why there will be no more values.
    over: Option<Outcome>,
}

impl Session {
    pub(super) fn start(sandbox: &Sandbox, program: &Program, limits: &Limits) -> Result<Session> {
        let (null, null_too) = (OwnedFd::from(nothing()?), OwnedFd::from(nothing()?));
        let (mut talk, header) = Talk::start(sandbox, "calls", program.source, program.entry_point, limits, null, null_too)?;
        let deadline = Instant::now() + limits.time;
        let over = match talk.ask(&header, deadline) {
            Ok((tag, Json::Bool(true))) if tag == "loaded" => None,
            Ok((tag, _)) if tag == "loaded" => Some(Outcome::Raised(format!("NameError: `{}` is not defined", program.entry_point))),
            Ok((tag, payload)) => Some(Talk::outcome(&tag, &payload)),
            Err(outcome) => Some(outcome),
        };
        let mut session = Session { talk, deadline, over };
        if session.over.is_some() {
            session.talk.process = None;
        }
        Ok(session)
    }

    /// Calls the function. Once the program has timed out or died, this is what every further call gives.
    pub fn call(&mut self, arguments: &[Value], limit: Duration) -> Outcome {
        if let Some(outcome) = &self.over {
            return outcome.clone();
        }
        let mut line = String::from("(");
        for argument in arguments {
            argument.write_python(&mut line);
            line.push(',');
        }
        line.push_str(")\n");
        let until = self.deadline.min(Instant::now() + limit);
        let outcome = match self.talk.ask(line.as_bytes(), until) {
            Ok((tag, payload)) => Talk::outcome(&tag, &payload),
            Err(outcome) => outcome,
        };
        if !matches!(outcome, Outcome::Value(_) | Outcome::Raised(_)) {
            self.over = Some(outcome.clone());
            self.talk.process = None;
        }
        outcome
    }
}

/// Runs a whole program; its value is what it prints.
pub(super) fn script(sandbox: &Sandbox, source: &str, stdin: &str, limits: &Limits) -> Result<Outcome> {
    let (input_end, input) = pipe_with(PipeFlags::CLOEXEC)?;
    let (output, output_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (mut talk, header) = Talk::start(sandbox, "script", source, "", limits, input_end, output_end)?;
    let deadline = Instant::now() + limits.time;
    if let Err(outcome) = talk.send(&header, deadline) {
        return Ok(outcome);
    }
    ioctl_fionbio(&input, true)?;
    ioctl_fionbio(&output, true)?;
    let (mut input, mut rest) = (Some(input), stdin.as_bytes());
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let (mut is_printing, mut is_talking) = (true, true);
    while is_printing || is_talking {
        if rest.is_empty() {
            // The program reads to an end.
            input = None;
        }
        let mut fds = vec![PollFd::new(&output, PollFlags::IN), PollFd::new(&talk.answers, PollFlags::IN)];
        fds.extend(input.iter().map(|input| PollFd::new(input, PollFlags::OUT)));
        // What is closed would be ready at once, for ever.
        let wanted = [is_printing, is_talking, true];
        let mut open: Vec<PollFd> = fds.into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(fd, _)| fd).collect();
        if !wait(&mut open, deadline) {
            return Ok(Outcome::TimedOut);
        }
        if let Some(fd) = &input {
            match write(fd, rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => rest = &[],
            }
        }
        is_printing = is_printing && take(&output, &mut printed)?;
        is_talking = is_talking && take(&talk.answers, &mut said)?;
        if printed.len() > LONGEST {
            return Ok(Outcome::Died(format!("it printed more than {LONGEST} bytes")));
        }
        if said.len() > LONGEST {
            return Ok(Outcome::Died("it wrote to the answer channel".to_owned()));
        }
    }
    let ended = talk.end();
    let said = said.strip_suffix(b"\n").and_then(|line| talk.parse(line));
    Ok(match said {
        Some((tag, payload)) if tag == "raised" => Talk::outcome(&tag, &payload),
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
    requests: OwnedFd,
    answers: OwnedFd,
    /// What was read beyond the last answer.
    buffer: Vec<u8>,
    received: usize,
    /// Stands in every answer of this run.
    nonce: String,
}

impl Talk {
    /// Starts the runner; the second is the request that brings it the program.
    fn start(
        sandbox: &Sandbox,
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
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| anyhow!("no random numbers: {error}"))?;
        let nonce = format!("{:032x}", u128::from_le_bytes(random));

        let ends = Ends { stdin, stdout, stderr: nothing()?.into(), requests: requests_end, answers: answers_end };
        // The clock on the wall comes first, where the program does not have many threads.
        let allowance = Allowance { seconds: limits.time.as_secs() + 2, memory: limits.memory };
        let arguments = ["-s", "-S", "-B", "-c", RUNNER];
        let process = sandbox.cell.spawn(&sandbox.python, &arguments, ends, allowance)?;

        let path = sandbox.python.module_path();
        let path = path.iter().map(|it| Value::str(&it.to_string_lossy())).collect();
        let header = [&nonce, mode, source, entry_point].map(Value::str).into_iter().chain([Value::List(path)]);
        let mut line = String::new();
        Value::Tuple(header.collect()).write_python(&mut line);
        line.push('\n');
        let talk = Talk { process: Some(process), requests, answers, buffer: Vec::new(), received: 0, nonce };
        Ok((talk, line.into_bytes()))
    }

    /// Sends one line and waits for one answer: its tag and what it says.
    fn ask(&mut self, line: &[u8], until: Instant) -> Result<(String, Json), Outcome> {
        self.send(line, until)?;
        let answer = self.hear(until)?;
        if !self.buffer.is_empty() {
            return Err(Outcome::Died("it wrote to the answer channel".to_owned()));
        }
        self.parse(&answer).ok_or_else(|| Outcome::Died("it wrote to the answer channel".to_owned()))
    }

    fn send(&mut self, mut line: &[u8], until: Instant) -> Result<(), Outcome> {
        // Whatever is there before the question is no answer.
        if take(&self.answers, &mut self.buffer).is_ok() && !self.buffer.is_empty() {
            return Err(Outcome::Died("it wrote to the answer channel".to_owned()));
        }
        while !line.is_empty() {
            match write(&self.requests, line) {
                Ok(sent) => line = &line[sent..],
                Err(Errno::AGAIN) => {
                    if !wait(&mut [PollFd::new(&self.requests, PollFlags::OUT)], until) {
                        return Err(Outcome::TimedOut);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return Err(Outcome::Died(self.end())),
            }
        }
        Ok(())
    }

    fn hear(&mut self, until: Instant) -> Result<Vec<u8>, Outcome> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|it| *it == b'\n') {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.buffer.len();
            if !wait(&mut [PollFd::new(&self.answers, PollFlags::IN)], until) {
                return Err(Outcome::TimedOut);
            }
            let is_open = take(&self.answers, &mut self.buffer).unwrap_or(false);
            let new = self.buffer.len() - searched;
            self.received += new;
            if self.buffer.len() > LONGEST || self.received > MOST {
                return Err(Outcome::Died(format!("an answer of more than {LONGEST} bytes, or more than {MOST} in all")));
            }
            if !is_open && new == 0 {
                return Err(Outcome::Died(self.end()));
            }
        }
    }

    /// An answer of this run: its tag and what it says.
    fn parse(&self, line: &[u8]) -> Option<(String, Json)> {
        let (nonce, tag, payload): (String, String, Json) = serde_json::from_slice(line).ok()?;
        (nonce == self.nonce).then_some((tag, payload))
    }

    fn outcome(tag: &str, payload: &Json) -> Outcome {
        match (tag, payload) {
            ("value", payload) => match Value::from_wire(payload) {
                Ok(value) => Outcome::Value(value),
                Err(error) => Outcome::Died(format!("an answer that is no value: {error}")),
            },
            ("raised", Json::String(what)) => Outcome::Raised(what.clone()),
            ("raised", _) => Outcome::Raised("an exception that cannot be shown".to_owned()),
            _ => Outcome::Died("it wrote to the answer channel".to_owned()),
        }
    }

    /// How the process ended; one that has not is killed.
    fn end(&mut self) -> String {
        self.process.take().map_or_else(|| "it has ended before".to_owned(), |process| process.end(PATIENCE))
    }
}

/// Waits until one of them is ready; `false` where the time is up before.
fn wait(fds: &mut [PollFd], until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else { return false };
        match poll(fds, Some(&timeout)) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            _ => return true,
        }
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
