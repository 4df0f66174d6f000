//! Threads that ask a server, each one request at a time.
//!
//! They belong to nobody: a pool that is dropped leaves its threads to what they wait for (a reply, the time-out) and
//! returns at once, so that a cancelled evaluation ends at once. They end as soon as that wait does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wire::{self, Reply};
use crate::rng::Stream;
use crate::server::{ServerClient, ServerFailure};

/// One sample to ask for.
pub(super) struct SampleRequest {
    /// Place in the list of jobs.
    pub job: usize,
    pub sample: usize,
    /// What is sent.
    pub body: String,
    /// The random numbers of this sample; from position 1 on they shift the waits between tries.
    pub stream: Stream,
}

/// A task and what came of it.
pub(super) type SampleOutcome = (SampleRequest, Result<Reply, ServerFailure>);

pub(super) struct Pool {
    client: Arc<ServerClient>,
    stop: Arc<[String]>,
    tasks: Sender<SampleRequest>,
    queue: Arc<Mutex<Receiver<SampleRequest>>>,
    outcomes: Receiver<SampleOutcome>,
    results: Sender<SampleOutcome>,
    /// Nobody waits for the outcomes any more.
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

    /// Tasks sent whose outcomes have not been received.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Starts on a task, with one more thread where all of them are busy.
    pub fn send(&mut self, task: SampleRequest) -> Result<()> {
        self.in_flight += 1;
        if self.in_flight > self.threads {
            self.start()?;
        }
        self.tasks.send(task).context("no thread is left to ask the server")
    }

    /// The next outcome, in the order in which they come; `None` where none came for `wait`.
    pub fn receive(&mut self, wait: Duration) -> Result<Option<SampleOutcome>> {
        match self.outcomes.recv_timeout(wait) {
            Ok(outcome) => {
                self.in_flight -= 1;
                Ok(Some(outcome))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the threads that ask the server are gone"),
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
        thread::Builder::new().name("endpoint".into()).spawn(work).context("start a thread that asks the server")?;
        self.threads += 1;
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}
