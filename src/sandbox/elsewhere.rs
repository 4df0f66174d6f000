//! Systems without a sandbox, on which programs are not run.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{CallOutcome, Program, Python, PythonValue, SandboxLayers, SandboxLimits};

/// There is no sandbox.
pub struct Sandbox(Infallible);

/// There is no sandbox.
pub struct SandboxSession(Infallible);

impl Sandbox {
    /// # Errors
    /// Always.
    pub fn probe(_allow_unsafe: bool) -> Result<Sandbox> {
        bail!("the sandbox requires Linux\nhint: use a virtual machine or a container with Linux")
    }

    pub fn layers(&self) -> &SandboxLayers {
        match self.0 {}
    }

    pub fn python(&self) -> &Python {
        match self.0 {}
    }

    pub fn failures(&self) -> &[String] {
        match self.0 {}
    }

    pub fn stop(&self) {
        match self.0 {}
    }

    pub fn load(&self, _program: &Program, _limits: &SandboxLimits) -> Result<SandboxSession> {
        match self.0 {}
    }

    pub fn stdout(&self, _source: &str, _stdin: &str, _limits: &SandboxLimits) -> Result<CallOutcome> {
        match self.0 {}
    }
}

impl SandboxSession {
    pub fn process_id(&self) -> u32 {
        match self.0 {}
    }

    pub fn call(&mut self, _arguments: &[PythonValue], _limit: Duration) -> CallOutcome {
        match self.0 {}
    }

    pub fn call_all<'a>(
        &mut self,
        _calls: impl IntoIterator<Item = (&'a [PythonValue], Duration)>,
        _each: impl FnMut(CallOutcome, Duration) -> bool,
    ) {
        match self.0 {}
    }
}
