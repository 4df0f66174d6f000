//! Finds out by trying what holds programs in on this machine.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::python::Python;
use super::session::{self, Session};
use super::spawn::Cell;
use super::{Layers, Limits, Outcome, Program, Value, filter, landlock};

/// Runs programs, several at a time if asked from several threads.
pub struct Sandbox {
    pub(super) python: Python,
    pub(super) cell: Cell,
    layers: Layers,
    failures: Vec<String>,
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
        Session::start(&self.python, &self.cell, program, limits).context("start a program in the sandbox")
    }

    /// Runs a whole program on this standard input; its value is what it prints.
    ///
    /// # Errors
    /// The sandbox itself does not work.
    pub fn stdout(&self, source: &str, stdin: &str, limits: &Limits) -> Result<Outcome> {
        session::script(&self.python, &self.cell, source, stdin, limits).context("run a program in the sandbox")
    }
}
