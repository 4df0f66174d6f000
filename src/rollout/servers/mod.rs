//! Rollouts on servers: vLLM, SGLang, or any other server with OpenAI's completions API.
//!
//! The servers have the base model, and get the adapter of every step by name: it is written to a folder that they can read,
//! loaded, and the one before it is unloaded. The name is a function of the weights, because vLLM finds cached prefixes by the
//! adapter's name, and because a repeated request to load it is then harmless.

mod queue;
mod reload;
mod wire;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Completion, Engine, Finish, RolloutRequest, RolloutWatch};
use crate::config::{RolloutSection, ServerKind};
use crate::disk::atomic;
use crate::disk::files;
use crate::disk::hash::sha256;
use crate::model::gguf_adapter;
use crate::model::gguf_writer::GgufType;
use crate::model::lora::Adapter;
use crate::model::peft;
use crate::model::source::ModelSource;
use crate::rng::{Purpose, Stream};
use crate::server::{ServerClient, ServerOptions};
use queue::{AdapterVersion, Queue, RolloutServer, ServedReply, ServedTask};
use wire::{CompletionRequest, Sampled};

/// The adapter's file for llama.cpp, in its folder.
const GGUF: &str = "adapter.gguf";

/// What an engine on servers needs to know about the run.
pub struct ServerSetup<'a> {
    pub section: &'a RolloutSection,
    /// The run's folder for the adapters that servers load.
    pub folder: PathBuf,
    /// The base model's name, for the adapter's files.
    pub base: &'a str,
    /// The base model's configuration and tokenizer, for an adapter file in GGUF in addition to the PEFT files.
    pub texts: Option<&'a ModelSource>,
    /// Size of the vocabulary: larger token ids are refused.
    pub vocabulary: usize,
    pub stop_strings: &'a [String],
    /// The wait after the first failure of a server; it doubles with each further one.
    pub pause: Duration,
}

/// Completes prompts on servers.
pub struct Servers<'a> {
    setup: ServerSetup<'a>,
    servers: Vec<Arc<RolloutServer>>,
    /// The adapter that the servers use, with its weights.
    current: Option<(AdapterVersion, Vec<f32>)>,
}

impl<'a> Servers<'a> {
    /// Connects to all servers of `setup`.
    ///
    /// # Errors
    /// If one does not answer, except one that a reload command starts.
    pub fn connect(setup: ServerSetup<'a>) -> Result<Self> {
        let kind = setup.section.server;
        let mut servers = Vec::new();
        for (index, url) in setup.section.endpoints.iter().enumerate() {
            let concurrency = setup.section.requests_per_endpoint;
            // A failed request may be sent to another server instead.
            let client =
                ServerClient::new(&ServerOptions { concurrency, tries: 1, ..ServerOptions::new(url.as_str()) })?;
            if kind != ServerKind::Command {
                let list = client.get("/v1/models").map_err(crate::server::ServerFailure::into_error);
                list.with_context(|| format!("`rollout.endpoints`: list the models of {url}"))?;
            }
            servers.push(Arc::new(RolloutServer::new(index, client, kind, setup.pause)));
        }
        Ok(Self { setup, servers, current: None })
    }

    /// Makes the servers use `adapter`; those that load adapters by themselves do so before their next request. `None` if
    /// canceled.
    fn use_adapter(
        &mut self,
        adapter: &Adapter,
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Option<AdapterVersion>> {
        if let Some((version, params)) = &self.current
            && *params == adapter.params
        {
            return Ok(Some(version.clone()));
        }
        let bytes: Vec<u8> = adapter.params.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = format!("rft-{}", &sha256(&bytes)[..16]);
        let folder = self.setup.folder.join(&name);
        files::create_dir_all(&self.setup.folder).map_err(|error| atomic::write_error(&self.setup.folder, &error))?;
        atomic::commit_dir(&folder, |folder| {
            peft::save_adapter(adapter, folder, self.setup.base)?;
            if let Some(texts) = self.setup.texts
                && let Err(error) = gguf_adapter::export(texts, folder, &folder.join(GGUF), &name, GgufType::F32)
            {
                tracing::warn!("no `{GGUF}` for the reload command: {error:#}");
            }
            Ok(())
        })?;
        let folder = std::path::absolute(&folder)?;
        let Some(text) = folder.to_str() else { bail!("`{}` is not valid UTF-8", folder.display()) };
        let version = AdapterVersion { name, folder: text.to_owned() };
        if self.setup.section.server == ServerKind::Command {
            let (command, urls) = (&self.setup.section.reload_command, &self.setup.section.endpoints);
            let log = self.setup.folder.join("reload.log");
            if !reload::run(command, &folder, urls, &log, cancelled)? {
                return Ok(None);
            }
            self.servers.iter().for_each(|server| server.set_loaded(&version));
        }
        let before = self.current.replace((version.clone(), adapter.params.clone()));
        if let Some((before, _)) = before {
            remove(Path::new(&before.folder));
        }
        Ok(Some(version))
    }

    fn task(&self, version: &AdapterVersion, request: &RolloutRequest, place: (usize, usize)) -> ServedTask {
        let prompt = &request.prompts[place.0];
        let stream = Stream::new(request.seed, Purpose::Endpoint, &[request.step, prompt.key, place.1 as u64]);
        let body = wire::body(
            self.setup.section.server,
            &CompletionRequest {
                model: &version.name,
                prompt: &prompt.ids,
                max_tokens: request.max_completion_length,
                sampling: request.sampling,
                stop_tokens: request.stop_tokens,
                stop_strings: self.setup.stop_strings,
                seed: (stream.u64(0) >> 33) as u32, // some servers read a signed number
            },
        );
        ServedTask { place, body, tries: 0 }
    }
}

impl Engine for Servers<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
        const POLL: Duration = Duration::from_millis(50);
        let adapter = adapter.context("servers generate only with an adapter")?;
        let Some(version) = self.use_adapter(adapter, &mut || watch.cancelled())? else { return Ok(None) };
        let (prompts, group) = (request.prompts.len(), request.num_generations);
        let tasks: VecDeque<ServedTask> = (0..prompts)
            .flat_map(|prompt| (0..group).map(move |completion| (prompt, completion)))
            .map(|place| self.task(&version, request, place))
            .collect();
        let mut missing = tasks.len();
        let section = self.setup.section;
        let mut queue = Queue::start(&self.servers, section.server, &version, tasks, section.requests_per_endpoint)?;
        let mut groups: Vec<Vec<Option<Completion>>> = vec![vec![None; group]; prompts];
        while missing > 0 {
            if watch.cancelled() {
                return Ok(None);
            }
            let Some(ServedReply { place: (prompt, index), server, sampled }) = queue.receive(POLL)? else { continue };
            let completion = completion(sampled, request, prompt, self.setup.vocabulary)
                .with_context(|| format!("read a completion from {}", section.endpoints[server]))?;
            let completion = Completion { server: Some(server), ..completion };
            completion.tokens.iter().for_each(|&token| watch.token(prompt, index, token));
            groups[prompt][index] = Some(completion);
            missing -= 1;
            if groups[prompt].iter().all(Option::is_some) {
                let whole: Vec<Completion> = groups[prompt].iter().flatten().cloned().collect();
                watch.group(prompt, &whole);
            }
        }
        Ok(Some(groups.into_iter().map(|group| group.into_iter().flatten().collect()).collect()))
    }
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        if let Some((version, _)) = &self.current {
            remove(Path::new(&version.folder));
        }
    }
}

/// Deletes the folder of an adapter.
fn remove(folder: &Path) {
    if let Err(error) = files::remove_dir_all(folder) {
        tracing::info!("delete `{}`: {error}", folder.display());
    }
}

/// A reply as a completion, truncated at its end by the model's own rules.
fn completion(sampled: Sampled, request: &RolloutRequest, prompt: usize, vocabulary: usize) -> Result<Completion> {
    let Sampled { mut tokens, mut logprobs, stopped, prompt_tokens } = sampled;
    let ours = request.prompts[prompt].ids.len();
    let theirs = prompt_tokens.unwrap_or(ours);
    ensure!(
        theirs == ours,
        "the prompt has {ours} tokens, but the server counts {theirs}\nhint: check that the servers have the model of `model.path`"
    );
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
        bail!(
            "the server sampled the token {token}, and the vocabulary has {vocabulary}\n\
             hint: check that the servers have the model of `model.path`"
        );
    }
    for length in 1..=tokens.len() {
        if let Some(finish) = request.finish(&tokens[..length]) {
            tokens.truncate(length);
            logprobs.truncate(length);
            return Ok(Completion { tokens, logprobs, finish, server: None });
        }
    }
    ensure!(
        stopped,
        "the server truncated a completion at {} of {} tokens\nhint: restart it with a longer context, which has to fit the \
         prompt and the completion",
        tokens.len(),
        request.max_completion_length
    );
    // The server has left out the token that ended the completion; its log-probability is not known.
    let end = *request.stop_tokens.first().context("the model has no end-of-sequence token")?;
    tokens.push(end);
    logprobs.push(f32::NAN);
    Ok(Completion { tokens, logprobs, finish: Finish::Token(end), server: None })
}
