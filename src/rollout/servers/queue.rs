//! Requests spread over servers: whichever is free takes the next one.
//!
//! Each server has as many threads as it may have requests in flight, and all threads take requests from one queue, so that a
//! fast server gets more of them. After a failure, the request goes back to the front of the queue, and its server gets
//! nothing for a while, which doubles with every further failure. A server that is back gets the adapter again first.
//!
//! The threads are detached: dropping the queue does not wait for replies.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::wire::{self, Sampled};
use crate::config::ServerKind;
use crate::rng::{Purpose, Stream};
use crate::server::{ServerClient, ServerFailure};

/// How often a server may fail in a row before it counts as gone, and a request before the run stops.
const TRIES: u32 = 6;
/// Time between two looks at the queue and at the request to stop.
const POLL: Duration = Duration::from_millis(20);

/// A server and what is known about it.
pub(super) struct RolloutServer {
    /// Its index in `rollout.endpoints`.
    index: usize,
    pub client: ServerClient,
    kind: ServerKind,
    /// The wait after its first failure.
    pause: Duration,
    /// The adapter that it has loaded. Locked while it loads one.
    loaded: Mutex<Option<String>>,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    /// Failures since its last reply.
    failures: u32,
    /// No requests before this time.
    retry_at: Option<Instant>,
}

/// The adapter that all replies must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdapterVersion {
    pub name: String,
    /// The adapter's folder.
    pub folder: String,
}

/// A request for one completion.
pub(super) struct ServedTask {
    /// Which completion it is: prompt and index.
    pub place: (usize, usize),
    pub body: String,
    pub tries: u32,
}

impl RolloutServer {
    pub fn new(index: usize, client: ServerClient, kind: ServerKind, pause: Duration) -> Self {
        Self { index, client, kind, pause, loaded: Mutex::default(), health: Mutex::default() }
    }

    /// Declares that the server uses `version`.
    pub fn set_loaded(&self, version: &AdapterVersion) {
        *lock(&self.loaded) = Some(version.name.clone());
    }

    fn is_waiting(&self) -> bool {
        lock(&self.health).retry_at.is_some_and(|at| Instant::now() < at)
    }

    /// Makes the server load `version`, unless it has. The other threads of the server wait meanwhile.
    fn load(&self, version: &AdapterVersion, given_up: &dyn Fn() -> bool) -> Result<(), ServerFailure> {
        let mut loaded = lock(&self.loaded);
        if loaded.as_ref() == Some(&version.name) {
            return Ok(());
        }
        let stream = Stream::new(0, Purpose::Endpoint, &[]);
        let (path, body) = wire::load(self.kind, &version.name, &version.folder);
        match self.client.post(path, &body, &stream, given_up, |_| Ok(())) {
            // The name is a function of the weights, so the same name is the same adapter.
            Err(failure) if failure.misunderstood() && failure.message().contains("already") => {}
            Err(failure) if failure.is_unknown_path() => {
                let hint = match self.kind {
                    ServerKind::Sglang => "start SGLang with --enable-lora",
                    _ => {
                        "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or set `rollout.server`"
                    }
                };
                let message = format!("the server cannot load adapters: it has no `{path}` (404)\nhint: {hint}");
                return Err(ServerFailure::lasting(message));
            }
            result => result?,
        }
        if let Some(old) = loaded.replace(version.name.clone()) {
            let (path, body) = wire::unload(self.kind, &old);
            if let Err(failure) = self.client.post(path, &body, &stream, given_up, |_| Ok(())) {
                tracing::info!("{}: unload the adapter `{old}`: {}", self.client.url(), failure.message());
            }
        }
        Ok(())
    }

    fn succeeded(&self) {
        let mut health = lock(&self.health);
        (health.failures, health.retry_at) = (0, None);
    }

    /// Notes a failure, unless the server is already waiting because of another one.
    fn failed(&self, failure: &ServerFailure) {
        if failure.is_unanswered() || failure.is_unknown_path() {
            *lock(&self.loaded) = None; // it may have been restarted
        }
        let mut health = lock(&self.health);
        if health.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let wait = self.pause.saturating_mul(1 << health.failures.min(16)).min(Duration::from_secs(30));
        health.retry_at = Some(Instant::now() + wait.max(failure.asked_wait().unwrap_or_default()));
        health.failures += 1;
        if health.failures == 1 {
            let first = failure.message().lines().next().unwrap_or_default();
            tracing::warn!("{}: {first}; trying again", self.client.url());
        }
    }

    fn is_gone(&self) -> bool {
        lock(&self.health).failures >= TRIES
    }
}

/// A reply.
pub(super) struct ServedReply {
    /// Prompt and index of the completion.
    pub place: (usize, usize),
    /// The number of the server.
    pub server: usize,
    pub sampled: Sampled,
}

/// A reply, or the reason why the run must stop.
type Outcome = Result<ServedReply>;

/// Requests in flight and waiting.
pub(super) struct Queue {
    shared: Arc<QueueState>,
    outcomes: Receiver<Outcome>,
}

struct QueueState {
    servers: Vec<Arc<RolloutServer>>,
    kind: ServerKind,
    version: AdapterVersion,
    waiting: Mutex<VecDeque<ServedTask>>,
    results: Sender<Outcome>,
    /// Set when the queue is dropped.
    abandoned: AtomicBool,
}

impl Queue {
    /// Starts `tasks` on `servers`, at most `per_server` at a time on each.
    pub fn start(
        servers: &[Arc<RolloutServer>],
        kind: ServerKind,
        version: &AdapterVersion,
        tasks: VecDeque<ServedTask>,
        per_server: usize,
    ) -> Result<Self> {
        let (results, outcomes) = channel();
        let threads = per_server.min(tasks.len());
        let shared = Arc::new(QueueState {
            servers: servers.to_vec(),
            kind,
            version: version.clone(),
            waiting: Mutex::new(tasks),
            results,
            abandoned: AtomicBool::new(false),
        });
        for server in servers {
            for _ in 0..threads {
                let (shared, server) = (shared.clone(), server.clone());
                let work = move || while shared.work(&server) {};
                thread::Builder::new().name("rollout".into()).spawn(work).context("start a request thread")?;
            }
        }
        Ok(Self { shared, outcomes })
    }

    /// The next outcome, in order of arrival; `None` if nothing arrives within `wait`.
    pub fn receive(&mut self, wait: Duration) -> Result<Option<ServedReply>> {
        match self.outcomes.recv_timeout(wait) {
            Ok(outcome) => outcome.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the request threads have ended")),
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}

impl QueueState {
    /// Processes one request; returns whether the thread is still needed.
    fn work(&self, server: &RolloutServer) -> bool {
        let abandoned = || self.abandoned.load(Ordering::Relaxed);
        if abandoned() {
            return false;
        }
        let task = if server.is_waiting() { None } else { self.queue().pop_front() };
        let Some(mut task) = task else {
            // Another server may fail and give a request back.
            thread::sleep(POLL);
            return true;
        };
        let failure = match self.request(server, &task, &abandoned) {
            Ok(sampled) => {
                server.succeeded();
                return self.results.send(Ok(ServedReply { place: task.place, server: server.index, sampled })).is_ok();
            }
            Err(failure) => failure,
        };
        server.failed(&failure);
        task.tries += 1;
        // A server that was restarted does not know the adapter any more.
        if !failure.is_passing() && !failure.is_unknown_path() {
            return self.stop(server, failure.into_error());
        }
        if self.servers.iter().all(|server| server.is_gone()) || task.tries > TRIES * self.servers.len() as u32 {
            let error = failure.into_error().context(format!("after {} tries", task.tries));
            return self.stop(server, error);
        }
        self.queue().push_front(task);
        true
    }

    fn request(
        &self,
        server: &RolloutServer,
        task: &ServedTask,
        given_up: &dyn Fn() -> bool,
    ) -> Result<Sampled, ServerFailure> {
        // With a reload command, the adapter has been loaded before the first request.
        if self.kind != ServerKind::Command {
            server.load(&self.version, given_up)?;
        }
        let (prompt, completion) = task.place;
        let stream = Stream::new(0, Purpose::Endpoint, &[prompt as u64, completion as u64]);
        server.client.post(wire::path(self.kind), &task.body, &stream, given_up, |body| wire::reply(self.kind, body))
    }

    /// Reports an error that ends the rollout.
    fn stop(&self, server: &RolloutServer, error: anyhow::Error) -> bool {
        _ = self.results.send(Err(error.context(format!("request a completion from {}", server.client.url()))));
        self.abandoned.store(true, Ordering::Relaxed);
        false
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<ServedTask>> {
        lock(&self.waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
