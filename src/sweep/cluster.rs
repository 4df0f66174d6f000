//! Submits a sweep to Slurm and follows its jobs.
//!
//! Submitted jobs are recorded in `slurm/jobs.json`, so that the same command follows jobs that are already in the queue and
//! submits only tasks that are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::file::SlurmSection;
use super::folder::{SweepFolder, SweepRecord, TaskState};
use super::local::{Event, TaskEnd, TaskFailure, unconfigured};
use super::slurm::{self, ACCOUNT_FORMAT, Array, QUEUE_FORMAT};
use super::task::{SweepTask, tasks};
use crate::disk::atomic::{self, write_error};
use crate::disk::files;
use crate::run::Stop;

/// A job array that was submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlurmJob {
    pub id: u64,
    pub array: Array,
}

/// Submits tasks that are neither done nor in the queue. Returns all jobs that may still run, and whether each is new.
pub fn submit(
    folder: &SweepFolder,
    record: &SweepRecord,
    section: &SlurmSection,
    rft: &Path,
) -> Result<Vec<(SlurmJob, bool)>> {
    let mut jobs = known_jobs(folder)?;
    let queue = queue(&jobs)?;
    jobs.retain(|job| queue.keys().any(|(id, _)| *id == job.id));
    let mut queued = BTreeMap::new();
    for job in &jobs {
        for (number, names) in &job.array.tasks {
            if queue.contains_key(&(job.id, *number)) {
                queued.extend(names.iter().map(|name| (name.clone(), job.id)));
            }
        }
    }
    let plan = slurm::plan(record, &folder.states(record)?, &queued);
    let mut all: Vec<(SlurmJob, bool)> = jobs.into_iter().map(|job| (job, false)).collect();
    let mut send = |array: &Array, after: Option<u64>| -> Result<Option<u64>> {
        if array.tasks.is_empty() {
            return Ok(None);
        }
        let text = slurm::script(&record.name, &folder.path, rft, section, array);
        let id = sbatch(folder, array, &text, after)?;
        all.push((SlurmJob { id, array: array.clone() }, true));
        let jobs: Vec<&SlurmJob> = all.iter().map(|(job, _)| job).collect();
        atomic::write(&jobs_path(folder), &serde_json::to_vec_pretty(&jobs)?)?;
        Ok(Some(id))
    };
    send(&plan.ready, None)?;
    for (job, array) in &plan.evals_after {
        send(array, Some(*job))?;
    }
    let runs = send(&plan.runs, None)?;
    send(&plan.evals, runs)?;
    Ok(all)
}

/// The jobs submitted by earlier calls.
fn known_jobs(folder: &SweepFolder) -> Result<Vec<SlurmJob>> {
    let path = jobs_path(folder);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse `{}`", path.display()))
}

fn jobs_path(folder: &SweepFolder) -> std::path::PathBuf {
    folder.path.join("slurm").join("jobs.json")
}

fn sbatch(folder: &SweepFolder, array: &Array, text: &str, after: Option<u64>) -> Result<u64> {
    let place = folder.path.join("slurm");
    files::create_dir_all(&place).map_err(|error| write_error(&place, &error))?;
    let script = place.join(format!("{}.sh", array.kind));
    atomic::write(&script, text.as_bytes())?;
    let mut command = Command::new("sbatch");
    command.arg("--parsable");
    if let Some(job) = after {
        // Each evaluation waits for the run with its number. If that run fails, the evaluation is canceled.
        command.arg(format!("--dependency=aftercorr:{job}")).arg("--kill-on-invalid-dep=yes");
    }
    unconfigured(&mut command);
    slurm::job_of(&reply(command.arg(&script))?)
}

/// Standard output of a Slurm command.
fn reply(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Its own process group, so that Ctrl-C reaches only this process.
    command.process_group(0);
    let output = command.output().with_context(|| {
        format!("start `{name}`\nhint: use --slurm on the login node of a cluster, or omit it to run the sweep on this machine")
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}", said.lines().find(|it| !it.trim().is_empty()).unwrap_or("failed without a message"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ids(jobs: &[SlurmJob]) -> String {
    jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>().join(",")
}

/// Tasks that are waiting, running or ending.
fn queue(jobs: &[SlurmJob]) -> Result<BTreeMap<(u64, usize), String>> {
    if jobs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut command = Command::new("squeue");
    match reply(command.args(["--noheader", "--array", QUEUE_FORMAT]).arg(format!("--jobs={}", ids(jobs)))) {
        Ok(text) => Ok(slurm::queue(&text)),
        // Slurm forgets jobs a few minutes after their end.
        Err(error) if error.to_string().contains("Invalid job id") => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// The final states of tasks, if the cluster has accounting.
fn accounts(jobs: &[SlurmJob]) -> BTreeMap<(u64, usize), String> {
    let mut command = Command::new("sacct");
    command.args(["--noheader", "--parsable2", "--allocations", ACCOUNT_FORMAT]);
    reply(command.arg(format!("--jobs={}", ids(jobs)))).map(|text| slurm::accounts(&text)).unwrap_or_default()
}

/// Time between two queries of the queue.
const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(10);
/// Consecutive failures of squeue that are tolerated.
const PATIENCE: u32 = 20;

/// Checks the queue and the disk until all tasks have ended, or until `stop` asks to stop following. The ends are in the
/// order of the tasks.
pub fn follow(
    folder: &SweepFolder,
    record: &SweepRecord,
    jobs: &[SlurmJob],
    stop: &Stop,
    show: &mut dyn FnMut(Event),
) -> Result<Vec<(SweepTask, TaskEnd)>> {
    let tasks = tasks(record);
    let mut ends: BTreeMap<String, TaskEnd> = BTreeMap::new();
    let mut begun: BTreeMap<String, Instant> = BTreeMap::new();
    let mut missed: BTreeSet<String> = BTreeSet::new();
    let mut pause = SOON;
    let mut unanswered = 0;
    for (name, state) in folder.states(record)? {
        if state == TaskState::Done {
            ends.insert(name, TaskEnd::Done);
        }
    }
    while ends.len() < tasks.len() && stop.requested().is_none() {
        // A busy controller does not always reply.
        let queue = match queue(jobs) {
            Ok(queue) => queue,
            Err(error) if unanswered == PATIENCE => return Err(error),
            Err(error) => {
                tracing::warn!("{error:#}");
                unanswered += 1;
                wait(pause * unanswered, stop);
                continue;
            }
        };
        unanswered = 0;
        let states = folder.states(record)?;
        let before = ends.len();
        let place = |name: &String| {
            let of_job =
                |job: &SlurmJob| job.array.tasks.iter().find(|(_, it)| it.contains(name)).map(|it| (job.id, *it.0));
            jobs.iter().rev().find_map(of_job)
        };
        for task in &tasks {
            let name = &task.name;
            if ends.contains_key(name) {
                continue;
            }
            let place = place(name);
            let is_queued = place.is_some_and(|place| queue.contains_key(&place));
            let state = states.get(name).copied();
            if state == Some(TaskState::Running) && !begun.contains_key(name) {
                begun.insert(name.clone(), Instant::now());
                show(Event::Started { task, args: &[] });
            }
            let end = match state {
                Some(TaskState::Done) => TaskEnd::Done,
                _ if is_queued => {
                    missed.remove(name);
                    continue;
                }
                // A node's files may become visible on this machine a little later than the end of its job.
                _ if missed.insert(name.clone()) => continue,
                _ => {
                    let needed = task.needs.as_ref().and_then(|run| ends.get(run));
                    match needed {
                        Some(TaskEnd::Failed(_) | TaskEnd::Skipped) => TaskEnd::Skipped,
                        _ => {
                            let ended = place.and_then(|place| accounts(jobs).remove(&place));
                            let status = ended.unwrap_or_else(|| "left the queue before it was done".to_owned());
                            TaskEnd::Failed(TaskFailure::new(folder, task, status)?)
                        }
                    }
                }
            };
            let seconds = begun.get(name).map_or(0.0, |it| it.elapsed().as_secs_f64());
            show(Event::Ended { task, end: &end, seconds });
            ends.insert(name.clone(), end);
        }
        let is_running = |task: &&SweepTask| states.get(&task.name) == Some(&TaskState::Running);
        show(Event::Tick { running: tasks.iter().filter(is_running).collect() });
        // After a change, more changes are likely soon.
        pause = if ends.len() > before { SOON } else { (pause * 3 / 2).min(LATER) };
        wait(pause, stop);
    }
    let end_of = |task: SweepTask| {
        let end = ends.get(&task.name).cloned().unwrap_or(TaskEnd::Stopped);
        (task, end)
    };
    Ok(tasks.into_iter().map(end_of).collect())
}

fn wait(time: Duration, stop: &Stop) {
    let until = Instant::now() + time;
    while Instant::now() < until && stop.requested().is_none() {
        thread::sleep(Duration::from_millis(50).min(time));
    }
}
