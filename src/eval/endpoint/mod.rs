//! Completions from a server that supports OpenAI's completions API: vLLM, SGLang, llama.cpp, or a hosted service.
//!
//! The server gets the rendered prompt, not the conversation, so that only our chat template is used. It
//! encodes the text with its own tokenizer. Its number of tokens must equal ours for every single prompt, so that a
//! wrong model or a second beginning-of-sequence token is an error instead of a wrong score.

mod pool;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::engine::{Completer, Draw, EvalJob, EvalWatch, LENGTH};
use crate::rng::{Purpose, Stream};
use crate::server::{ServerClient, ServerFailure, ServerOptions};
use pool::{Pool, SampleOutcome, SampleRequest};
use wire::PromptForm;

pub use wire::{Reply, models, reply};

/// A model on a server.
pub struct Endpoint {
    client: Arc<ServerClient>,
    model: String,
    concurrency: usize,
}

impl Endpoint {
    /// Requests the list of models from the server at `options.url`. `model` selects one of several.
    ///
    /// # Errors
    /// An invalid URL, a server that does not reply or refuses the key, or a model that it does not serve.
    pub fn connect(options: &ServerOptions, model: Option<&str>) -> Result<Self> {
        ensure!(
            options.concurrency > 0,
            "--concurrency: expected at least 1, found 0\nhint: set the number of requests in flight"
        );
        let client = ServerClient::new(options)?;
        let list = client.get("/v1/models").map_err(ServerFailure::into_error);
        let served = list.and_then(|body| {
            wire::models(&body)
                .map_err(|reason| anyhow!("{reason}\nhint: check that this is an OpenAI-compatible server"))
        });
        let served = served.with_context(|| format!("list the models of {}", client.url()))?;
        let model = choose(served, model)?;
        Ok(Self { client: Arc::new(client), model, concurrency: options.concurrency })
    }

    /// The name of the served model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The server's address, without `/v1`.
    pub fn url(&self) -> &str {
        self.client.url()
    }

    /// Determines how this server reads prompts; `None` if canceled. A shortest, a middle and a longest prompt are sent as text,
    /// with one requested token each.
    ///
    /// A server that does not support extensions gets none. A server that adds a beginning-of-sequence token to every text,
    /// even if the template has already written one (llama.cpp, SGLang), gets token ids instead of text.
    fn settle(&self, jobs: &[EvalJob], draw: &Draw, watch: &mut dyn EvalWatch) -> Result<Option<PromptForm>> {
        let mut by_length: Vec<usize> = (0..jobs.len()).filter(|&job| !jobs[job].samples.is_empty()).collect();
        by_length.sort_by_key(|&job| (jobs[job].prompt.ids.len(), job));
        let Some(last) = by_length.len().checked_sub(1) else { return Ok(Some(PromptForm::default())) };
        let mut probes = vec![by_length[last], by_length[last / 2], by_length[0]];
        probes.dedup();

        let draw = Draw { max_tokens: 1, ..draw.clone() };
        let mut form = PromptForm::default();
        loop {
            let mut counts = Vec::new();
            let mut refused = false;
            let tasks = probes.iter().map(|&job| self.task(jobs, job, 0, &draw, form));
            let done = self.pump(tasks, &draw, watch, &mut |_, (task, reply)| {
                match reply {
                    Ok(reply) => counts.push((task.job, reply.prompt_tokens)),
                    Err(failure) if form.extensions && failure.misunderstood() => refused = true,
                    Err(failure) => return Err(failure.into_error()),
                }
                Ok(())
            })?;
            if !done {
                return Ok(None);
            }
            if refused {
                tracing::warn!("{} supports only standard fields; its own defaults apply to all others", self.url());
                form.extensions = false;
                continue;
            }
            let ours = |job: usize| jobs[job].prompt.ids.len();
            form.ids = counts.iter().all(|&(job, theirs)| theirs == ours(job) + 1);
            if form.ids {
                tracing::info!("{} adds a token to every text, so prompts are sent as token ids", self.url());
            }
            match counts.iter().find(|&&(job, theirs)| !form.ids && theirs != ours(job)) {
                Some(&(job, theirs)) => return Err(miscounted(theirs, &jobs[job])),
                None => return Ok(Some(form)),
            }
        }
    }

    fn task(&self, jobs: &[EvalJob], job: usize, sample: usize, draw: &Draw, form: PromptForm) -> SampleRequest {
        // Position 0 is the sample's seed; the others vary the delays before retries.
        let stream = Stream::new(draw.seed, Purpose::Endpoint, &[jobs[job].key, sample as u64]);
        let body = wire::request(&self.model, jobs[job].prompt, draw, wire::seed(&stream), form);
        SampleRequest { job, sample, body, stream }
    }

    /// Processes `tasks`, as many at a time as may be in flight, and passes every outcome to `done` in order of arrival.
    /// Returns `false` if canceled.
    fn pump(
        &self,
        tasks: impl Iterator<Item = SampleRequest>,
        draw: &Draw,
        watch: &mut dyn EvalWatch,
        done: &mut dyn FnMut(&mut dyn EvalWatch, SampleOutcome) -> Result<()>,
    ) -> Result<bool> {
        const POLL: Duration = Duration::from_millis(50);
        let mut tasks = tasks.fuse();
        let mut pool = Pool::new(self.client.clone(), draw.stop.clone());
        loop {
            if watch.cancelled() {
                return Ok(false);
            }
            while pool.in_flight() < self.concurrency
                && let Some(task) = tasks.next()
            {
                pool.send(task)?;
            }
            if pool.in_flight() == 0 {
                return Ok(true);
            }
            if let Some(outcome) = pool.receive(POLL)? {
                done(watch, outcome)?;
            }
        }
    }
}

impl Completer for Endpoint {
    fn complete(&mut self, jobs: &[EvalJob], draw: &Draw, watch: &mut dyn EvalWatch) -> Result<()> {
        let Some(form) = self.settle(jobs, draw, watch).context("check how the server tokenizes prompts")? else {
            return Ok(());
        };
        let wanted = jobs.iter().enumerate().flat_map(|(job, it)| it.samples.iter().map(move |&sample| (job, sample)));
        let tasks = wanted.map(|(job, sample)| self.task(jobs, job, sample, draw, form));
        self.pump(tasks, draw, watch, &mut |watch, (task, reply)| {
            let (job, sample) = (&jobs[task.job], task.sample);
            let completion = reply
                .map_err(ServerFailure::into_error)
                .and_then(|reply| whole(reply, job, draw))
                .with_context(|| format!("sample {sample} of question {}", job.question))?;
            watch.tokens(completion.tokens);
            watch.sample(job.question, sample, completion)
        })?;
        Ok(())
    }
}

/// The completion of a reply, after checking the prompt's token count and that only our own maximum length truncated it.
fn whole(reply: Reply, job: &EvalJob, draw: &Draw) -> Result<super::engine::EvalCompletion> {
    let Reply { prompt_tokens, completion } = reply;
    if prompt_tokens != job.prompt.ids.len() {
        return Err(miscounted(prompt_tokens, job));
    }
    if completion.finish == LENGTH && completion.tokens < draw.max_tokens {
        bail!(
            "the server truncated the completion at {} of {} tokens\nhint: restart the server with a longer context, \
             which has to fit the prompt and the completion",
            completion.tokens,
            draw.max_tokens
        );
    }
    Ok(completion)
}

fn miscounted(theirs: usize, job: &EvalJob) -> anyhow::Error {
    anyhow!(
        "the prompt of question {} has {} tokens, but the server counts {theirs}\nhint: check that the server has the \
         model of --model and does not add a beginning-of-sequence token",
        job.question,
        job.prompt.ids.len()
    )
}

/// The model to request, out of the `served` ones.
fn choose(served: Vec<String>, name: Option<&str>) -> Result<String> {
    const SHOWN: usize = 20;
    let mut list = served.iter().take(SHOWN).map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
    if served.len() > SHOWN {
        list.push_str(" ...");
    }
    match name {
        _ if served.is_empty() => bail!("the server has no models"),
        Some(name) if served.iter().any(|it| it == name) => Ok(name.to_owned()),
        Some(name) => bail!("the server does not have the model `{name}`\nhint: use one of {list}"),
        None if served.len() == 1 => Ok(served.into_iter().next().expect("there is one")),
        None => bail!("the server has {} models\nhint: select one with --served-model: {list}", served.len()),
    }
}
