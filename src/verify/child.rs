//! `rft` as a child process, and the folder that it works in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::disk::atomic::write_error;
use crate::disk::files;
use crate::run::{RunDir, Stop};
use crate::sweep::local::unconfigured;

/// A folder that is removed at the end with its contents, unless it is kept.
pub struct ScratchFolder {
    path: PathBuf,
    keep: bool,
}

impl ScratchFolder {
    /// Creates a new folder in `parent`, and `parent` if it does not exist.
    pub fn create(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("{name}-{}", std::process::id()));
        files::create_dir_all(parent).map_err(|error| write_error(parent, &error))?;
        files::create_dir(&path).map_err(|error| write_error(&path, &error))?;
        Ok(Self { path, keep: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if !self.keep {
            // If the folder cannot be removed, it remains.
            _ = files::remove_dir_all(&self.path);
        }
    }
}

/// A running process.
pub struct RftProcess {
    child: Child,
    log: PathBuf,
}

/// Interval between two looks at a process.
const PAUSE: Duration = Duration::from_millis(5);

impl RftProcess {
    /// Starts `rft` with `args`. Its output goes to `log`.
    ///
    /// # Errors
    /// The program cannot be started, or the log cannot be written.
    pub fn start(args: &[&str], log: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("find the program's own file")?;
        let output = files::append(log).map_err(|error| write_error(log, &error))?.into_file();
        let mut command = Command::new(&program);
        command.args(args).stdin(Stdio::null()).stderr(output.try_clone().context("open a log twice")?).stdout(output);
        unconfigured(&mut command);
        let child = command.spawn().with_context(|| format!("start `{}`", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until the process ends.
    ///
    /// # Errors
    /// The process's own error, or a stop was requested.
    pub fn finish(mut self, stop: &Stop) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait().context("wait for a process")? {
                return if status.success() { Ok(()) } else { Err(self.error()) };
            }
            self.check(stop)?;
        }
    }

    /// Kills a training process (SIGKILL) as soon as `run` has the checkpoint of `step`.
    ///
    /// # Errors
    /// The process ended before, or a stop was requested.
    pub fn kill_after(mut self, run: &Path, step: usize, stop: &Stop) -> Result<()> {
        loop {
            if RunDir::open(run).is_ok_and(|run| run.checkpoint(step).is_dir()) {
                self.child.kill().context("kill a process")?;
                self.child.wait().context("wait for a process")?;
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("wait for a process")? {
                if status.success() {
                    bail!("the run ended before it could be killed\nhint: use more steps");
                }
                return Err(self.error());
            }
            self.check(stop)?;
        }
    }

    fn check(&mut self, stop: &Stop) -> Result<()> {
        if stop.requested().is_some() {
            self.child.kill().context("kill a process")?;
            self.child.wait().context("wait for a process")?;
            bail!("interrupted");
        }
        sleep(PAUSE);
        Ok(())
    }

    /// The error that the process printed, with its hints, or its last line.
    fn error(&self) -> anyhow::Error {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let start = text.rfind("\nerror: ").map(|at| at + 1).or(text.starts_with("error: ").then_some(0));
        match start {
            Some(start) => anyhow!("{}", text[start + "error: ".len()..].trim_end()),
            None => anyhow!("{}", text.trim_end().lines().last().unwrap_or("it ended without a message")),
        }
    }
}
