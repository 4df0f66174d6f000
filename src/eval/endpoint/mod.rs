//! A server that speaks OpenAI's completions protocol: vLLM, SGLang, llama.cpp's, a hosted one.
//!
//! The server gets our own rendering of a prompt, not the conversation, so that no chat template but ours has a say. It
//! reads the text with its own tokenizer; that its count of tokens is ours, for every single prompt, is what tells a
//! wrong model or a second beginning-of-sequence token before a wrong score does.

mod pool;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::engine::{Completer, Draw, Job, LENGTH, Watch};
use crate::rng::{Purpose, Stream};
use crate::server::{Client, Failure, Options};
use pool::{Outcome, Pool, Task};
use wire::{Form, Reply};

/// A model behind a server.
pub struct Endpoint {
    client: Arc<Client>,
    model: String,
    concurrency: usize,
}

impl Endpoint {
    /// Asks the server at `options.url` what it serves; `model` chooses from several.
    ///
    /// # Errors
    /// A URL that is none, a server that does not answer or refuses the key, a model that it does not serve.
    pub fn connect(options: &Options, model: Option<&str>) -> Result<Self> {
        ensure!(options.concurrency > 0, "no request may be in flight\nhint: --concurrency is at least 1");
        let client = Client::new(options)?;
        let list = client.get("/v1/models").map_err(Failure::into_error);
        let served = list.and_then(|body| {
            wire::models(&body).map_err(|reason| anyhow!("{reason}\nhint: is this an OpenAI-compatible server?"))
        });
        let served = served.with_context(|| format!("ask {} what it serves", client.url()))?;
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

    /// How this server takes prompts; `None` when cancelled. A shortest, a middle and a longest prompt are sent as text,
    /// for one token each.
    ///
    /// A server that knows no extensions gets none. One that puts a beginning-of-sequence token before every text,
    /// whether or not the template wrote one already (llama.cpp's, SGLang), gets token ids in place of text.
    fn settle(&self, jobs: &[Job], draw: &Draw, watch: &mut dyn Watch) -> Result<Option<Form>> {
        let mut by_length: Vec<usize> = (0..jobs.len()).filter(|&job| !jobs[job].samples.is_empty()).collect();
        by_length.sort_by_key(|&job| (jobs[job].prompt.ids.len(), job));
        let Some(last) = by_length.len().checked_sub(1) else { return Ok(Some(Form::default())) };
        let mut probes = vec![by_length[last], by_length[last / 2], by_length[0]];
        probes.dedup();

        let draw = Draw { max_tokens: 1, ..draw.clone() };
        let mut form = Form::default();
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
                tracing::warn!("{} takes standard fields only: its own defaults hold for all others", self.url());
                form.extensions = false;
                continue;
            }
            let ours = |job: usize| jobs[job].prompt.ids.len();
            form.ids = counts.iter().all(|&(job, theirs)| theirs == ours(job) + 1);
            if form.ids {
                tracing::info!("{} puts a token before every text: prompts are sent as token ids", self.url());
            }
            match counts.iter().find(|&&(job, theirs)| !form.ids && theirs != ours(job)) {
                Some(&(job, theirs)) => return Err(miscounted(theirs, &jobs[job])),
                None => return Ok(Some(form)),
            }
        }
    }

    fn task(&self, jobs: &[Job], job: usize, sample: usize, draw: &Draw, form: Form) -> Task {
        // Position 0 is the sample's seed, the others shift the waits before further tries.
        let stream = Stream::new(draw.seed, Purpose::Endpoint, &[jobs[job].key, sample as u64]);
        let body = wire::request(&self.model, jobs[job].prompt, draw, wire::seed(&stream), form);
        Task { job, sample, body, stream }
    }

    /// Works through `tasks`, as many at a time as may be in flight, and hands every outcome to `done` as it comes.
    /// `false`: cancelled.
    fn pump(
        &self,
        tasks: impl Iterator<Item = Task>,
        draw: &Draw,
        watch: &mut dyn Watch,
        done: &mut dyn FnMut(&mut dyn Watch, Outcome) -> Result<()>,
    ) -> Result<bool> {
        const LOOK_UP: Duration = Duration::from_millis(50);
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
            if let Some(outcome) = pool.receive(LOOK_UP)? {
                done(watch, outcome)?;
            }
        }
    }
}

impl Completer for Endpoint {
    fn complete(&mut self, jobs: &[Job], draw: &Draw, watch: &mut dyn Watch) -> Result<()> {
        let Some(form) = self.settle(jobs, draw, watch).context("check how the server reads prompts")? else {
            return Ok(());
        };
        let wanted = jobs.iter().enumerate().flat_map(|(job, it)| it.samples.iter().map(move |&sample| (job, sample)));
        let tasks = wanted.map(|(job, sample)| self.task(jobs, job, sample, draw, form));
        self.pump(tasks, draw, watch, &mut |watch, (task, reply)| {
            let (job, sample) = (&jobs[task.job], task.sample);
            let completion = reply
                .map_err(Failure::into_error)
                .and_then(|reply| whole(reply, job, draw))
                .with_context(|| format!("sample {sample} of question {}", job.question))?;
            watch.tokens(completion.tokens);
            watch.sample(job.question, sample, completion)
        })?;
        Ok(())
    }
}

/// The completion of a reply to the right prompt that was cut off by nobody but us.
fn whole(reply: Reply, job: &Job, draw: &Draw) -> Result<super::engine::Completion> {
    let Reply { prompt_tokens, completion } = reply;
    if prompt_tokens != job.prompt.ids.len() {
        return Err(miscounted(prompt_tokens, job));
    }
    if completion.finish == LENGTH && completion.tokens < draw.max_tokens {
        bail!(
            "the server ends it at {} of {} tokens\nhint: its context is too short for the prompt and the completion: \
             start it with a longer one",
            completion.tokens,
            draw.max_tokens
        );
    }
    Ok(completion)
}

fn miscounted(theirs: usize, job: &Job) -> anyhow::Error {
    anyhow!(
        "the server counts {theirs} tokens in the prompt of question {}, its tokenizer here {}\nhint: it serves another \
         model than the one whose tokenizer is used here, or puts a beginning-of-sequence token before it",
        job.question,
        job.prompt.ids.len()
    )
}

/// The model to ask for, out of the `served` ones.
fn choose(served: Vec<String>, name: Option<&str>) -> Result<String> {
    const SHOWN: usize = 20;
    let mut list = served.iter().take(SHOWN).map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
    if served.len() > SHOWN {
        list.push_str(" ...");
    }
    match name {
        _ if served.is_empty() => bail!("the server serves no model"),
        Some(name) if served.iter().any(|it| it == name) => Ok(name.to_owned()),
        Some(name) => bail!("the server does not serve `{name}`\nhint: it serves {list}"),
        None if served.len() == 1 => Ok(served.into_iter().next().expect("there is one")),
        None => bail!("the server serves {} models\nhint: choose with --served-model: {list}", served.len()),
    }
}
