//! Runs Python that nobody has read.
//!
//! Two rules carry everything. What an answer should be, and whether it is right, never enters the sandbox: a small
//! runner of ours (`runner.py`) takes inputs one at a time and writes values back, and the comparison is made here. And
//! whatever the program does in there, it reaches nothing: layers of the kernel's own, each enough for most attacks, hold
//! it in (docs/sandbox.md has the table of layers and of attacks).
//!
//! - namespaces (user, process, mount, network, IPC, host name), with a root that shows Python and nothing else;
//! - Landlock, which says the same about files a second time;
//! - a seccomp filter that knows threads, files and time but neither processes nor sockets nor signals to others;
//! - limits on memory, processor time, file sizes, descriptors and tasks; no privileges and none to be had;
//! - an empty environment, no descriptors but its own; a folder of 64 MiB in memory that goes with it, or, without
//!   namespaces, no folder to write to at all.
//!
//! One process is one program. It is named by a handle, not a number, killed when its time is up and always reaped. If
//! `rft` dies, the kernel kills it.
//!
//! [`Sandbox::probe`] tries which layers work by running a program that attempts what it must not. Without the filter, or
//! with neither namespaces nor Landlock, there is no sandbox unless the caller insists.
//!
//! Python is started without `-I`: the environment is ours to the last letter, and `-I` would ignore `PYTHONHASHSEED`,
//! which makes equal programs walk through equal sets in equal order.

mod child;
mod filter;
mod json;
mod landlock;
mod python;
mod session;
mod spawn;
mod value;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use python::Python;
pub use session::Session;
pub use value::Value;

use spawn::Cell;

/// Runs programs, several at a time if asked from several threads.
pub struct Sandbox {
    python: Python,
    cell: Cell,
    layers: Layers,
    failures: Vec<String>,
}

/// What holds programs in on this machine; part of every result that depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// User, process, mount, network, IPC and host name namespaces.
    pub namespaces: bool,
    /// Version of Landlock's interface; 0: it does not work.
    pub landlock: u32,
    pub seccomp: bool,
    /// We are root, and programs run as `nobody`.
    pub other_user: bool,
    /// Version of Python.
    pub python: String,
    pub numpy: Option<String>,
}

/// A program with a function to call.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    pub source: &'a str,
    /// Name of the function.
    pub entry_point: &'a str,
}

/// What a program may use in all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first line to the last answer.
    pub time: Duration,
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of one answer, or of all that a script prints; all answers together may have sixteen times as many.
    pub answer: usize,
}

impl Limits {
    /// Of time, beside 4 GiB of memory, as evalplus allows, and answers of 1 MiB.
    pub fn time(time: Duration) -> Limits {
        Limits { time, memory: 4 << 30, answer: 1 << 20 }
    }
}

/// What came of a call or of a program.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Value(Value),
    /// An exception, as the program describes it.
    Raised(String),
    TimedOut,
    /// The process ended, or broke the rules of the channel, and why.
    Died(String),
}

impl Sandbox {
    /// Finds Python and the layers that work here. With `allow_unsafe`, runs programs even where nothing holds them in.
    ///
    /// # Errors
    /// No Python; layers that do not suffice, with what failed.
    pub fn probe(allow_unsafe: bool) -> Result<Sandbox> {
        let python = Python::find()?;
        let landlock = landlock::version();
        let users: &[bool] = if rustix::process::geteuid().is_root() { &[true, false] } else { &[false] };
        let mut failures = Vec::new();
        for namespaces in [true, false] {
            for &other_user in users {
                let cell = Cell { namespaces, landlock, filter: Some(filter::compile()?), other_user };
                let name = match namespaces {
                    true => "namespaces",
                    false => "without namespaces",
                };
                let user = if other_user { ", as nobody" } else { "" };
                if !namespaces && landlock == 0 {
                    failures.push("the kernel has no Landlock".to_owned());
                    break;
                }
                match Sandbox::of(python.clone(), cell).attempt(true) {
                    Ok(mut sandbox) => {
                        sandbox.failures = failures;
                        return Ok(sandbox);
                    }
                    Err(error) => failures.push(format!("{name}{user}: {error:#}")),
                }
            }
        }
        let reasons = failures.join("; ");
        ensure!(
            allow_unsafe,
            "programs cannot be kept in on this machine: {reasons}\n\
             hint: allow user namespaces or take a kernel with Landlock (5.13 or later); in a container, its own profile \
             may forbid them. --unsafe-local-exec runs foreign programs without protection"
        );
        for filter in [filter::compile().ok(), None] {
            let cell = Cell { namespaces: false, landlock: 0, filter, other_user: false };
            match Sandbox::of(python.clone(), cell).attempt(false) {
                Ok(mut sandbox) => {
                    sandbox.failures = failures;
                    return Ok(sandbox);
                }
                Err(error) => failures.push(format!("unprotected: {error:#}")),
            }
        }
        bail!("Python cannot be started: {}", failures.join("; "))
    }

    fn of(python: Python, cell: Cell) -> Sandbox {
        let layers = Layers {
            namespaces: cell.namespaces,
            landlock: cell.landlock,
            seccomp: cell.filter.is_some(),
            other_user: cell.other_user,
            python: python.version.clone(),
            numpy: python.numpy.as_ref().map(|it| it.version.clone()),
        };
        Sandbox { python, cell, layers, failures: Vec::new() }
    }

    /// Runs a program that tries what it must not, and says what it could do where it is to be held in.
    fn attempt(self, is_held: bool) -> Result<Sandbox> {
        const ATTEMPT: &str = include_str!("attempt.py");
        let mut session =
            self.load(&Program { source: ATTEMPT, entry_point: "attempt" }, &Limits::time(Duration::from_secs(30)))?;
        match session.call(&[], Duration::from_secs(30)) {
            Outcome::Value(Value::List(found)) if found.is_empty() || !is_held => Ok(self),
            Outcome::Value(found) => bail!("a program could still {found:?}"),
            other => bail!("a trial program gave {other:?}"),
        }
    }

    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    pub fn python(&self) -> &Python {
        &self.python
    }

    /// What was tried and does not work here, strongest first.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Starts a program and defines what it defines.
    ///
    /// # Errors
    /// The sandbox itself does not work. Whatever the program does is an outcome of its first call.
    pub fn load(&self, program: &Program, limits: &Limits) -> Result<Session> {
        Session::start(self, program, limits).context("start a program in the sandbox")
    }

    /// Runs a whole program on this standard input; its value is what it prints.
    ///
    /// # Errors
    /// The sandbox itself does not work.
    pub fn stdout(&self, source: &str, stdin: &str, limits: &Limits) -> Result<Outcome> {
        session::script(self, source, stdin, limits).context("run a program in the sandbox")
    }
}
