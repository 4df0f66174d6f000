//! The processes of a sweep, some at a time on this machine.
//!
//! Each run and each evaluation is a process of its own: a failure stays with it, and a machine with several GPUs is filled. What
//! is to be done is read from the disk before every start, so a sweep that was killed goes on by being started again.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, kill_process};

use super::folder::{Folder, Record};
use super::task::{Kind, Next, Task, next, tasks};
use crate::disk::atomic::write_error;
use crate::run::{Signal, Stop};

/// How a sweep uses this machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `rft` itself.
    pub program: PathBuf,
    /// Processes at a time.
    pub jobs: usize,
    /// Worker threads of each process.
    pub threads: usize,
    /// A GPU for each process, as CUDA_VISIBLE_DEVICES names them; none: whatever the process finds.
    pub gpus: Vec<String>,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} at a time, {} threads each", self.jobs, self.threads)?;
        if self.gpus.is_empty() { Ok(()) } else { write!(f, ", GPUs {}", self.gpus.join(", ")) }
    }
}

/// What a display is told.
pub enum Event<'a> {
    Started {
        task: &'a Task,
        /// Arguments of `rft`.
        args: &'a [String],
    },
    /// Another process, left over from an earlier start, is at work on it.
    Waiting(&'a Task),
    Ended {
        task: &'a Task,
        end: &'a End,
        seconds: f64,
    },
    /// A while has passed.
    Tick {
        running: Vec<&'a Task>,
    },
}

/// How a task came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By this process or before.
    Done,
    Failed(Failure),
    /// The run that it needs has failed.
    Skipped,
    /// The sweep was asked to stop.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the process ended with.
    pub status: String,
    pub log: PathBuf,
    /// The last lines of the log.
    pub lines: Vec<String>,
}

/// The processes that are at work, so that a signal handler can reach them.
#[derive(Clone, Default)]
pub struct Children(Arc<Mutex<BTreeMap<usize, Child>>>);

impl Children {
    /// Ends all of them at once.
    pub fn kill(&self) {
        // One that has just ended by itself is no error.
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
            // A child is in this map until it was waited for, so the number is still its own.
            _ = kill_process(Pid::from_child(child), number);
        }
    }

    /// Those that have ended, taken out.
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
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// How often the processes are looked at.
const POLL: Duration = Duration::from_millis(100);

/// Does all that is missing of a sweep, until it is done or asked to stop. The ends are in the order of the tasks.
pub fn work(
    folder: &Folder,
    record: &Record,
    machine: &Machine,
    children: &Children,
    stop: &Stop,
    show: &mut dyn FnMut(Event),
) -> Result<Vec<(Task, End)>> {
    let tasks = tasks(record);
    let mut ends: BTreeMap<usize, End> = BTreeMap::new();
    // By slot: the task at work there, and since when.
    let mut slots: BTreeMap<usize, (usize, Instant)> = BTreeMap::new();
    // Tasks that a process of an earlier start is at work on, and since when they are waited for.
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
                        ends.insert(at, End::Skipped);
                        continue;
                    }
                }
                let started = next(folder, record, task).and_then(|next| match next {
                    Next::Start(args) => start(folder, task, &args, machine, slot).map(|it| Some((it, args))),
                    Next::Done => {
                        if let Some(since) = awaited.remove(&at) {
                            show(Event::Ended { task, end: &End::Done, seconds: since.elapsed().as_secs_f64() });
                        }
                        ends.insert(at, End::Done);
                        Ok(None)
                    }
                    Next::Busy => {
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
                    // What is wrong with one task stops no other.
                    Err(error) => {
                        let failure = Failure::new(folder, task, format!("{error:#}"))?;
                        let end = End::Failed(failure);
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
    let end_of = |(at, task): (usize, Task)| (task, ends.get(&at).cloned().unwrap_or(End::Stopped));
    Ok(tasks.into_iter().enumerate().map(end_of).collect())
}

/// Whether the run that a task needs is done.
enum Need {
    Met,
    Open,
    Failed,
}

fn needed(tasks: &[Task], ends: &BTreeMap<usize, End>, task: &Task) -> Need {
    let Some(run) = &task.needs else { return Need::Met };
    let at = tasks.iter().position(|it| it.kind == Kind::Run && it.name == *run);
    match at.and_then(|at| ends.get(&at)) {
        Some(End::Done) => Need::Met,
        Some(_) => Need::Failed,
        None => Need::Open,
    }
}

fn start(folder: &Folder, task: &Task, args: &[String], machine: &Machine, slot: usize) -> Result<Child> {
    let mut command = command(&machine.program, args, Some(machine.threads));
    if let Some(gpu) = machine.gpus.get(slot % machine.gpus.len().max(1)) {
        command.env("CUDA_VISIBLE_DEVICES", gpu);
    }
    let log = log(folder, task)?;
    command.stdin(Stdio::null()).stderr(log.try_clone().context("open a log twice")?).stdout(log);
    // A group of its own: Ctrl-C reaches this process alone, which asks the others.
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

/// Takes variables such as RFT_TRAIN__SEED from a process: they would change what the sweep's own files say.
pub(super) fn unconfigured(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|it| it.starts_with("RFT_") && it.contains("__")) {
            command.env_remove(name);
        }
    }
}

/// Replaces this process by that of a task; returns only the error of a program that does not start.
pub fn become_task(
    folder: &Folder,
    task: &Task,
    program: &Path,
    args: &[String],
    threads: Option<usize>,
) -> Result<anyhow::Error> {
    let log = log(folder, task)?;
    let mut command = command(program, args, threads);
    command.stdin(Stdio::null()).stderr(log.try_clone().context("open a log twice")?).stdout(log);
    Ok(anyhow::Error::new(command.exec()).context(format!("start `{}`", program.display())))
}

/// The log of a task, open at its end; that it failed before is forgotten.
pub(super) fn log(folder: &Folder, task: &Task) -> Result<File> {
    _ = fs::remove_file(folder.failed_path(&task.name));
    let path = folder.log_path(&task.name);
    OpenOptions::new().create(true).append(true).open(&path).map_err(|error| write_error(&path, &error))
}

fn end(folder: &Folder, task: &Task, status: ExitStatus, stop: &Stop) -> Result<End> {
    if status.success() {
        return Ok(End::Done);
    }
    let code = status.code();
    let by_signal =
        [Signal::Interrupt, Signal::Terminate, Signal::Preempt].iter().any(|it| code == Some(it.exit_code()));
    if stop.requested().is_some() && (by_signal || status.signal().is_some()) {
        return Ok(End::Stopped);
    }
    let status = match (code, status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    };
    Ok(End::Failed(Failure::new(folder, task, status)?))
}

impl Failure {
    /// Also leaves a mark on the disk.
    pub(super) fn new(folder: &Folder, task: &Task, status: String) -> Result<Self> {
        let log = folder.log_path(&task.name);
        let mark = folder.failed_path(&task.name);
        fs::write(&mark, format!("{status}\n")).map_err(|error| write_error(&mark, &error))?;
        Ok(Self { status, lines: last_lines(&log), log })
    }
}

/// The last lines of a log, as far as they can be read.
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
