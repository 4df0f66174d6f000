//! Finds out by experiment which isolation layers work on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::python::Python;
use super::session::{self, SandboxSession};
use super::spawn::Confinement;
use super::{CallOutcome, Program, PythonValue, SandboxLayers, SandboxLimits, filter, landlock};

/// Runs programs, several at a time if it is called from several threads.
pub struct Sandbox {
    pub(super) python: Python,
    pub(super) cell: Confinement,
    layers: SandboxLayers,
    failures: Vec<String>,
    /// Set by [`Sandbox::stop`].
    pub(super) stopped: Arc<AtomicBool>,
}

impl Sandbox {
    /// Finds Python and the layers that work here. With `allow_unsafe`, runs programs even if no layer works.
    ///
    /// # Errors
    /// There is no Python, or the layers do not suffice; the error includes what failed.
    pub fn probe(allow_unsafe: bool) -> Result<Sandbox> {
        let python = Python::find()?;
        let landlock = landlock::version();
        let users: &[bool] = if rustix::process::geteuid().is_root() { &[true, false] } else { &[false] };
        let mut failures = Vec::new();
        for namespaces in [true, false] {
            for &other_user in users {
                let cell = Confinement { namespaces, landlock, filter: Some(filter::compile()?), other_user };
                let name = match namespaces {
                    true => "namespaces",
                    false => "without namespaces",
                };
                let user = if other_user { ", as nobody" } else { "" };
                if !namespaces && landlock == 0 {
                    failures.push("the kernel does not support Landlock".to_owned());
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
            "the sandbox does not work on this machine: {reasons}\n\
             hint: allow user namespaces, or use a kernel with Landlock (5.13 or later); a container's profile may forbid \
             both. --unsafe-local-exec runs programs without protection"
        );
        for filter in [filter::compile().ok(), None] {
            let cell = Confinement { namespaces: false, landlock: 0, filter, other_user: false };
            match Sandbox::of(python.clone(), cell).attempt(false) {
                Ok(mut sandbox) => {
                    sandbox.failures = failures;
                    return Ok(sandbox);
                }
                Err(error) => failures.push(format!("unprotected: {error:#}")),
            }
        }
        bail!("cannot start Python: {}", failures.join("; "))
    }

    fn of(python: Python, cell: Confinement) -> Sandbox {
        let layers = SandboxLayers {
            namespaces: cell.namespaces,
            landlock: cell.landlock,
            seccomp: cell.filter.is_some(),
            other_user: cell.other_user,
            python: python.version.clone(),
            numpy: python.numpy.as_ref().map(|it| it.version.clone()),
        };
        Sandbox { python, cell, layers, failures: Vec::new(), stopped: Arc::default() }
    }

    /// Runs a program that attempts forbidden operations. It is an error if one succeeds although the layers must prevent it.
    fn attempt(self, is_held: bool) -> Result<Sandbox> {
        const ATTEMPT: &str = include_str!("attempt.py");
        let mut session = self.load(
            &Program { source: ATTEMPT, entry_point: "attempt" },
            &SandboxLimits::time(Duration::from_secs(30)),
        )?;
        match session.call(&[], Duration::from_secs(30)) {
            CallOutcome::Value(PythonValue::List(found)) if found.is_empty() || !is_held => Ok(self),
            CallOutcome::Value(found) => bail!("the test program was able to {found:?}"),
            other => bail!("the test program failed: {other:?}"),
        }
    }

    pub fn layers(&self) -> &SandboxLayers {
        &self.layers
    }

    pub fn python(&self) -> &Python {
        &self.python
    }

    /// The layers that do not work here, with the reasons, strongest first.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Ends all programs soon, and starts no more: this process has been asked to end. The outcomes are not those of the programs.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Starts a program and executes its definitions.
    ///
    /// # Errors
    /// The sandbox itself does not work. Anything that the program does is the outcome of its first call.
    pub fn load(&self, program: &Program, limits: &SandboxLimits) -> Result<SandboxSession> {
        SandboxSession::start(self, program, limits).context("start a program in the sandbox")
    }

    /// Runs a whole program with this standard input; its value is its output.
    ///
    /// # Errors
    /// The sandbox itself does not work.
    pub fn stdout(&self, source: &str, stdin: &str, limits: &SandboxLimits) -> Result<CallOutcome> {
        session::script(self, source, stdin, limits).context("run a program in the sandbox")
    }
}
