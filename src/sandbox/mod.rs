//! Runs untrusted Python.
//!
//! The design has two principles. First, the expected output and the verdict never enter the sandbox: our small runner
//! (`runner.py`) receives one input at a time and writes values back, and the comparison is done outside. Second, the
//! program cannot reach anything, whatever it does: it is isolated by several layers of the kernel, each of which stops most
//! attacks on its own (docs/sandbox.md has the tables of layers and attacks).
//!
//! - namespaces (user, process, mount, network, IPC, host name), with a root that contains only Python;
//! - Landlock, which restricts files a second time;
//! - a seccomp filter that allows threads, files and time, but not processes, sockets or signals to others;
//! - limits on memory, processor time, file sizes, descriptors and tasks; no privileges and no way to get any;
//! - an empty environment and only its own descriptors; a folder of 64 MiB in memory that is removed with it, or, without
//!   namespaces, no writable folder at all.
//!
//! Each program is one process. It is identified by a handle, not a number, killed when its time is up, and always waited
//! for. If `rft` dies, the kernel kills it.
//!
//! [`Sandbox::probe`] finds the layers that work by running a program that attempts forbidden operations. Without the filter,
//! or without both namespaces and Landlock, there is no sandbox unless the caller insists.
//!
//! Python is started without `-I`: we define the whole environment, and `-I` would ignore `PYTHONHASHSEED`, which makes
//! equal programs iterate over equal sets in equal order.

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
#[cfg(target_os = "linux")]
pub mod worker;

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

/// The isolation layers on this machine; part of every result that depends on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLayers {
    /// User, process, mount, network, IPC and host name namespaces.
    pub namespaces: bool,
    /// Version of Landlock's interface; 0 if it does not work.
    pub landlock: u32,
    pub seccomp: bool,
    /// Whether we are root and programs run as `nobody`.
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
        write!(f, "Python {}, isolated by {held}", self.python)
    }
}

/// A program with a function to call.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    pub source: &'a str,
    /// Name of the function.
    pub entry_point: &'a str,
}

/// The limits of a program.
#[derive(Clone, Copy, Debug)]
pub struct SandboxLimits {
    /// Seconds from the first line to the last answer.
    pub time: Duration,
    /// Bytes of address space.
    pub memory: u64,
    /// Maximum bytes of one answer, or of a script's output; all answers together may be sixteen times as large.
    pub answer: usize,
}

impl SandboxLimits {
    /// With this time, 4 GiB of memory as in evalplus, and answers of 1 MiB.
    pub fn time(time: Duration) -> SandboxLimits {
        SandboxLimits { time, memory: 4 << 30, answer: 1 << 20 }
    }
}

/// The outcome of a call or of a program.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    Value(PythonValue),
    /// An exception, as the program describes it.
    Raised(String),
    TimedOut,
    /// The process ended or violated the protocol, with the reason.
    Died(String),
}
