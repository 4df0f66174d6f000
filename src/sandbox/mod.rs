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

#[cfg(target_os = "linux")]
mod child;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod filter;
mod json;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod probe;
mod python;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod spawn;
mod value;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Sandbox, SandboxSession};
#[cfg(target_os = "linux")]
pub use probe::Sandbox;
pub use python::Python;
#[cfg(target_os = "linux")]
pub use session::SandboxSession;
pub use value::PythonValue;

/// What holds programs in on this machine; part of every result that depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLayers {
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

impl fmt::Display for SandboxLayers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let landlock = format!("Landlock {}", self.landlock);
        let layers = [
            (self.namespaces, "namespaces"),
            (self.landlock > 0, landlock.as_str()),
            (self.seccomp, "a system call filter"),
            (self.other_user, "another user"),
        ];
        let layers: Vec<&str> = layers.into_iter().filter(|(works, _)| *works).map(|(_, name)| name).collect();
        let held = if layers.is_empty() { "nothing".to_owned() } else { layers.join(", ") };
        write!(f, "Python {}, held in by {held}", self.python)
    }
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
pub struct SandboxLimits {
    /// From the first line to the last answer.
    pub time: Duration,
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of one answer, or of all that a script prints; all answers together may have sixteen times as many.
    pub answer: usize,
}

impl SandboxLimits {
    /// Of time, beside 4 GiB of memory, as evalplus allows, and answers of 1 MiB.
    pub fn time(time: Duration) -> SandboxLimits {
        SandboxLimits { time, memory: 4 << 30, answer: 1 << 20 }
    }
}

/// What came of a call or of a program.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    Value(PythonValue),
    /// An exception, as the program describes it.
    Raised(String),
    TimedOut,
    /// The process ended, or broke the rules of the channel, and why.
    Died(String),
}
