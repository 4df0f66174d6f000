//! The user's command that makes servers use an adapter.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::disk::{atomic, files};

/// Lines of the log that an error repeats.
const SHOWN: usize = 3;

/// Runs `command` with `adapter` as its last argument, and waits for its end; `false` if canceled. Its output is appended to
/// `log`, because a server that it starts may keep its output open. A Ctrl-C in the terminal does not reach it.
///
/// # Errors
/// If it cannot be started or fails.
pub(super) fn run(
    command: &[String],
    adapter: &Path,
    endpoints: &[String],
    log: &Path,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<bool> {
    let program = &command[0];
    let file = files::append(log).map_err(|error| atomic::write_error(log, &error))?.into_file();
    let mut child = Command::new(program)
        .args(&command[1..])
        .arg(adapter)
        .env("RFT_ENDPOINTS", endpoints.join(" "))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .with_context(|| {
            format!("start `{program}`\nhint: set `rollout.reload_command` to a program and its arguments, as separate strings")
        })?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if cancelled() {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    };
    if !status.success() {
        let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let said = lines[lines.len().saturating_sub(SHOWN)..].join("; ");
        bail!("the reload command `{program}` failed ({status}): {said}\nhint: its output is in `{}`", log.display());
    }
    Ok(true)
}
