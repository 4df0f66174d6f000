//! Where a chat template is rendered.
//!
//! The limits of the template engine bound most templates, but not values that contain themselves or each other: comparing,
//! printing or freeing them can use up the stack or take forever. So the command line renders the templates of models and users in
//! a separate process, see [`crate::sandbox::worker`]. A program that uses this library as it is renders them itself.

#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
#[cfg(target_os = "linux")]
use anyhow::{Context, anyhow};
use serde_json::Value;
#[cfg(target_os = "linux")]
use serde_json::json;

use super::jinja::Jinja;
#[cfg(target_os = "linux")]
use crate::sandbox::worker::{self, Worker};

/// The hidden subcommand that calls [`serve`].
pub const SUBCOMMAND: &str = "render-templates";

/// A compiled template.
pub(super) enum Renderer {
    Here(Box<Jinja>),
    #[cfg(target_os = "linux")]
    Apart(Mutex<Worker>),
}

impl Renderer {
    /// Compiles the template of a model or a user; see [`Jinja::new`].
    pub(super) fn untrusted(source: &str, now: Option<i64>) -> Result<Self> {
        #[cfg(target_os = "linux")]
        if worker::is_enabled() {
            let mut worker = Worker::start(SUBCOMMAND)?;
            ask(&mut worker, &json!({ "source": source, "now": now })).context("compile the chat template")?;
            return Ok(Self::Apart(Mutex::new(worker)));
        }
        Self::own(source, now)
    }

    /// Compiles a template that is part of this program.
    pub(super) fn own(source: &str, now: Option<i64>) -> Result<Self> {
        Ok(Self::Here(Box::new(Jinja::new(source, now)?)))
    }

    pub(super) fn render(&self, context: &Value) -> Result<String> {
        match self {
            Self::Here(jinja) => jinja.render(context),
            #[cfg(target_os = "linux")]
            Self::Apart(worker) => {
                let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                ask(&mut worker, context).context("render the chat template")
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn ask(worker: &mut Worker, request: &Value) -> Result<String> {
    worker::read_reply(worker.ask(&serde_json::to_vec(request)?)?)
}

/// Renders for the process that started this one. The first request has the template, each later one the variables of a
/// conversation.
///
/// # Errors
/// The channel fails.
#[cfg(target_os = "linux")]
pub fn serve() -> Result<()> {
    let mut template = None;
    worker::serve(|request| {
        let result = serde_json::from_slice(request).map_err(Into::into).and_then(|request: Value| match &template {
            None => {
                let source = request["source"].as_str().context("no template")?;
                template = Some(Jinja::new(source, request["now"].as_i64())?);
                Ok(String::new())
            }
            Some(jinja) => jinja.render(&request),
        });
        // The other process knows the operation, which is the outermost part of the error.
        worker::reply(result.map_err(|error| anyhow!(causes(&error))))
    })
}

#[cfg(target_os = "linux")]
fn causes(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

/// Other systems do not have such a process.
#[cfg(not(target_os = "linux"))]
pub fn serve() -> Result<()> {
    anyhow::bail!("rendering in a separate process requires Linux")
}
