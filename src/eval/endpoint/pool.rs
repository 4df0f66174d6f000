//! Threads that send requests to a server, each one request at a time.
//!
//! The threads are detached. Dropping a pool does not wait for its threads, which are waiting for a reply or a timeout, so that
//! a canceled evaluation ends immediately. The threads end when their wait ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wire::{self, Reply};
use crate::rng::Stream;
use crate::server::{ServerClient, ServerFailure};

/// One sample to request.
pub(super) struct SampleRequest {
    /// Index in the list of jobs.
    pub job: usize,
    pub sample: usize,
    /// The body of the request.
    pub body: String,
    /// The random numbers of this sample. Those from position 1 on vary the delays between tries.
    pub stream: Stream,
}

/// A task and its outcome.
pub(super) type SampleOutcome = (SampleRequest, Result<Reply, ServerFailure>);

pub(super) struct Pool {
    client: Arc<ServerClient>,
    stop: Arc<[String]>,
    tasks: Sender<SampleRequest>,
    queue: Arc<Mutex<Receiver<SampleRequest>>>,
    outcomes: Receiver<SampleOutcome>,
    results: Sender<SampleOutcome>,
    /// Set when the outcomes are no longer needed.
    abandoned: Arc<AtomicBool>,
    threads: usize,
    in_flight: usize,
}

impl Pool {
    pub fn new(client: Arc<ServerClient>, stop: Vec<String>) -> Self {
        let (tasks, queue) = channel();
        let (results, outcomes) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let (stop, abandoned) = (stop.into(), Arc::new(AtomicBool::new(false)));
        Self { client, stop, tasks, queue, outcomes, results, abandoned, threads: 0, in_flight: 0 }
    }

    /// Number of tasks whose outcomes have not been received yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Starts a task, with one more thread if all threads are busy.
    pub fn send(&mut self, task: SampleRequest) -> Result<()> {
        self.in_flight += 1;
        if self.in_flight > self.threads {
            self.start()?;
        }
        self.tasks.send(task).context("the request threads have ended")
    }

    /// The next outcome, in order of arrival; `None` if there is none within `wait`.
    pub fn receive(&mut self, wait: Duration) -> Result<Option<SampleOutcome>> {
        match self.outcomes.recv_timeout(wait) {
            Ok(outcome) => {
                self.in_flight -= 1;
                Ok(Some(outcome))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the request threads have ended"),
        }
    }

    fn start(&mut self) -> Result<()> {
        let (client, stop, queue) = (self.client.clone(), self.stop.clone(), self.queue.clone());
        let (results, abandoned) = (self.results.clone(), self.abandoned.clone());
        let work = move || {
            loop {
                let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(task) = task else { return };
                let given_up = || abandoned.load(Ordering::Relaxed);
                let outcome = client
                    .post("/v1/completions", &task.body, &task.stream, &given_up, |body| wire::reply(body, &stop));
                if results.send((task, outcome)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("endpoint".into()).spawn(work).context("start a request thread")?;
        self.threads += 1;
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}
