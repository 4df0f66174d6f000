//! Runs the processes of a sweep on this machine, several at a time.
//!
//! Each run and each evaluation is a separate process, so that a failure does not affect the others, and a machine with several
//! GPUs is used fully. The state is read from disk before every start, so that a killed sweep resumes when it is started again.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, kill_process};

use super::folder::{SweepFolder, SweepRecord};
use super::task::{NextAction, SweepTask, TaskKind, next, tasks};
use crate::disk::atomic::{self, write_error};
use crate::disk::files;
use crate::run::{Signal, Stop};

/// The resources of this machine that a sweep uses.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The path of `rft`.
    pub program: PathBuf,
    /// Processes at a time.
    pub jobs: usize,
    /// Worker threads of each process.
    pub threads: usize,
    /// One GPU per process, in the form of CUDA_VISIBLE_DEVICES. If empty, every process sees all GPUs.
    pub gpus: Vec<String>,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} at a time, {} threads each", self.jobs, self.threads)?;
        if self.gpus.is_empty() { Ok(()) } else { write!(f, ", GPUs {}", self.gpus.join(", ")) }
    }
}

/// Progress events for a display.
pub enum Event<'a> {
    Started {
        task: &'a SweepTask,
        /// Arguments of `rft`.
        args: &'a [String],
    },
    /// Another process, left over from an earlier start, is working on it.
    Waiting(&'a SweepTask),
    Ended {
        task: &'a SweepTask,
        end: &'a TaskEnd,
        seconds: f64,
    },
    /// Sent at regular intervals.
    Tick {
        running: Vec<&'a SweepTask>,
    },
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// Done, by this process or earlier.
    Done,
    Failed(TaskFailure),
    /// The run that it needs has failed.
    Skipped,
    /// The sweep was asked to stop.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    /// The exit status of the process.
    pub status: String,
    pub log: PathBuf,
    /// The last lines of the log.
    pub lines: Vec<String>,
}

/// The running processes, shared with the signal handler.
#[derive(Clone, Default)]
pub struct Children(Arc<Mutex<BTreeMap<usize, Child>>>);

impl Children {
    /// Ends all of them at once.
    pub fn kill(&self) {
        // A process that has just ended by itself is not an error.
        self.lock().values_mut().for_each(|child| _ = child.kill());
    }

    /// Asks all of them to save their state and end.
    fn ask(&self, signal: Signal) {
        let number = match signal {
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Preempt => rustix::process::Signal::USR1,
        };
        for child in self.lock().values() {
            // A child stays in this map until it has been waited for, so its process ID has not been reused.
            _ = kill_process(Pid::from_child(child), number);
        }
    }

    /// Removes and returns the processes that have ended.
    fn ended(&self) -> Result<Vec<(usize, ExitStatus)>> {
        let mut children = self.lock();
        let mut ended = Vec::new();
        for (slot, child) in children.iter_mut() {
            if let Some(status) = child.try_wait().context("wait for a process")? {
                ended.push((*slot, status));
            }
        }
        ended.iter().for_each(|(slot, _)| _ = children.remove(slot));
        Ok(ended)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Child>> {
        self.0.lock().expect("the lock is not poisoned")
    }
}

/// Time between two checks of the processes.
const POLL: Duration = Duration::from_millis(100);

/// Does all missing tasks of a sweep, until it is done or asked to stop. The ends are in the order of the tasks.
pub fn work(
    folder: &SweepFolder,
    record: &SweepRecord,
    machine: &Machine,
    children: &Children,
    stop: &Stop,
    show: &mut dyn FnMut(Event),
) -> Result<Vec<(SweepTask, TaskEnd)>> {
    let tasks = tasks(record);
    let mut ends: BTreeMap<usize, TaskEnd> = BTreeMap::new();
    // By slot: the running task and its start time.
    let mut slots: BTreeMap<usize, (usize, Instant)> = BTreeMap::new();
    // Tasks on which a process of an earlier start is working, and the time since when they are waited for.
    let mut awaited: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut asked = false;
    loop {
        for (slot, status) in children.ended()? {
            let (at, started) = slots.remove(&slot).expect("every child has a slot");
            let end = end(folder, &tasks[at], status, stop)?;
            show(Event::Ended { task: &tasks[at], end: &end, seconds: started.elapsed().as_secs_f64() });
            ends.insert(at, end);
        }
        if let Some(signal) = stop.requested() {
            if !asked {
                children.ask(signal);
                asked = true;
            }
            if slots.is_empty() {
                break;
            }
        } else {
            for at in 0..tasks.len() {
                let is_at_work = slots.values().any(|(it, _)| *it == at);
                let Some(slot) = (0..machine.jobs).find(|slot| !slots.contains_key(slot)) else { break };
                let task = &tasks[at];
                if ends.contains_key(&at) || is_at_work {
                    continue;
                }
                match needed(&tasks, &ends, task) {
                    Need::Met => {}
                    Need::Open => continue,
                    Need::Failed => {
                        ends.insert(at, TaskEnd::Skipped);
                        continue;
                    }
                }
                let started = next(folder, record, task).and_then(|next| match next {
                    NextAction::Start(args) => start(folder, task, &args, machine, slot).map(|it| Some((it, args))),
                    NextAction::Done => {
                        if let Some(since) = awaited.remove(&at) {
                            show(Event::Ended { task, end: &TaskEnd::Done, seconds: since.elapsed().as_secs_f64() });
                        }
                        ends.insert(at, TaskEnd::Done);
                        Ok(None)
                    }
                    NextAction::Busy => {
                        awaited.entry(at).or_insert_with(|| {
                            show(Event::Waiting(task));
                            Instant::now()
                        });
                        Ok(None)
                    }
                });
                match started {
                    Ok(Some((child, args))) => {
                        children.lock().insert(slot, child);
                        slots.insert(slot, (at, Instant::now()));
                        show(Event::Started { task, args: &args });
                    }
                    Ok(None) => {}
                    // A failure of one task does not stop the others.
                    Err(error) => {
                        let failure = TaskFailure::new(folder, task, format!("{error:#}"))?;
                        let end = TaskEnd::Failed(failure);
                        show(Event::Ended { task, end: &end, seconds: 0.0 });
                        ends.insert(at, end);
                    }
                }
            }
            if slots.is_empty() && ends.len() == tasks.len() {
                break;
            }
        }
        show(Event::Tick { running: slots.values().map(|(at, _)| &tasks[*at]).collect() });
        thread::sleep(POLL);
    }
    let end_of = |(at, task): (usize, SweepTask)| (task, ends.get(&at).cloned().unwrap_or(TaskEnd::Stopped));
    Ok(tasks.into_iter().enumerate().map(end_of).collect())
}

/// Whether the run that a task needs is done.
enum Need {
    Met,
    Open,
    Failed,
}

fn needed(tasks: &[SweepTask], ends: &BTreeMap<usize, TaskEnd>, task: &SweepTask) -> Need {
    let Some(run) = &task.needs else { return Need::Met };
    let at = tasks.iter().position(|it| it.kind == TaskKind::Run && it.name == *run);
    match at.and_then(|at| ends.get(&at)) {
        Some(TaskEnd::Done) => Need::Met,
        Some(_) => Need::Failed,
        None => Need::Open,
    }
}

fn start(folder: &SweepFolder, task: &SweepTask, args: &[String], machine: &Machine, slot: usize) -> Result<Child> {
    let mut command = command(&machine.program, args, Some(machine.threads));
    if let Some(gpu) = machine.gpus.get(slot % machine.gpus.len().max(1)) {
        command.env("CUDA_VISIBLE_DEVICES", gpu);
    }
    let log = log(folder, task)?;
    command.stdin(Stdio::null()).stderr(log.try_clone().context("open a log twice")?).stdout(log);
    // Its own process group: Ctrl-C reaches only this process, which then asks the others to stop.
    command.process_group(0);
    command.spawn().with_context(|| format!("start `{}`", machine.program.display()))
}

/// `rft` with these arguments.
fn command(program: &Path, args: &[String], threads: Option<usize>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    if let Some(threads) = threads {
        command.arg("--threads").arg(threads.to_string());
    }
    unconfigured(&mut command);
    command
}

/// Removes variables such as RFT_TRAIN__SEED from a process, because they would override its configuration.
pub fn unconfigured(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|it| it.starts_with("RFT_") && it.contains("__")) {
            command.env_remove(name);
        }
    }
}

/// Replaces this process with that of a task. Returns only if the program cannot be started.
pub fn become_task(
    folder: &SweepFolder,
    task: &SweepTask,
    program: &Path,
    args: &[String],
    threads: Option<usize>,
) -> Result<anyhow::Error> {
    let log = log(folder, task)?;
    let mut command = command(program, args, threads);
    command.stdin(Stdio::null()).stderr(log.try_clone().context("open a log twice")?).stdout(log);
    Ok(anyhow::Error::new(command.exec()).context(format!("start `{}`", program.display())))
}

/// Opens the log of a task for appending, and removes the mark of an earlier failure.
pub(super) fn log(folder: &SweepFolder, task: &SweepTask) -> Result<File> {
    _ = files::remove_file(&folder.failed_path(&task.name));
    let path = folder.log_path(&task.name);
    Ok(files::append(&path).map_err(|error| write_error(&path, &error))?.into_file())
}

fn end(folder: &SweepFolder, task: &SweepTask, status: ExitStatus, stop: &Stop) -> Result<TaskEnd> {
    if status.success() {
        return Ok(TaskEnd::Done);
    }
    let code = status.code();
    let by_signal =
        [Signal::Interrupt, Signal::Terminate, Signal::Preempt].iter().any(|it| code == Some(it.exit_code()));
    if stop.requested().is_some() && (by_signal || status.signal().is_some()) {
        return Ok(TaskEnd::Stopped);
    }
    let status = match (code, status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "unknown exit status".to_owned(),
    };
    Ok(TaskEnd::Failed(TaskFailure::new(folder, task, status)?))
}

impl TaskFailure {
    /// Also marks the task as failed on disk.
    pub(super) fn new(folder: &SweepFolder, task: &SweepTask, status: String) -> Result<Self> {
        let log = folder.log_path(&task.name);
        let mark = folder.failed_path(&task.name);
        atomic::write(&mark, format!("{status}\n").as_bytes())?;
        Ok(Self { status, lines: last_lines(&log), log })
    }
}

/// The last lines of a log, or nothing if it cannot be read.
pub fn last_lines(path: &Path) -> Vec<String> {
    const LINES: usize = 5;
    const BYTES: u64 = 4096;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| (*line).to_owned()).collect()
}
