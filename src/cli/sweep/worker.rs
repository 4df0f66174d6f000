//! Works on a sweep, on this machine or on a cluster.

use std::process::ExitCode;

use anyhow::Result;

use super::{live, status};
use crate::run::Stop;
use crate::sweep::folder::SweepRecord;
use crate::sweep::local::{self, Children, Machine, TaskEnd};
use crate::sweep::task::SweepTask;
use crate::sweep::{Sweep, SweepFolder, TaskState, cluster};

/// The ends of all tasks of a sweep.
pub type TaskEnds = Vec<(SweepTask, TaskEnd)>;

/// Does the tasks of a sweep on this machine or on a cluster, until it is asked to stop.
pub struct SweepWorker {
    machine: Machine,
    pub slurm: bool,
    stop: Stop,
    children: Children,
}

impl SweepWorker {
    pub fn new(machine: Machine, slurm: bool) -> Result<Self> {
        let children = Children::default();
        let killed = children.clone();
        let tell = move |_| {
            if !slurm {
                eprintln!("stopping after every process has saved its state (interrupt again to stop immediately)");
            }
        };
        let stop = Stop::on_signals_and(tell, move |_| killed.kill())?;
        Ok(Self { machine, slurm, stop, children })
    }

    /// The exit code of a stop, if one was requested.
    pub fn stopped(&self) -> Option<ExitCode> {
        self.stop.requested().map(|signal| ExitCode::from(signal.exit_code() as u8))
    }

    /// Does all tasks that are not done, and prints the table of the results.
    pub fn work(&self, folder: &SweepFolder, record: &SweepRecord, sweep: &Sweep) -> Result<TaskEnds> {
        eprintln!("folder   {}", folder.path.display());
        if self.slurm {
            return self.on_cluster(folder, record, sweep);
        }
        eprintln!("machine  {}", self.machine);
        let done = folder.states(record)?.values().filter(|it| **it == TaskState::Done).count();
        if done > 0 {
            eprintln!("so far   {done} of {} are done", record.runs.len() + record.evals.len());
        }
        let mut live = live::Live::new(folder, record, done);
        let mut show = |event: local::Event| live.show(event);
        let ends = local::work(folder, record, &self.machine, &self.children, &self.stop, &mut show)?;
        live.finish();
        conclude(folder, record, &ends)?;
        if self.stop.requested().is_some() {
            eprintln!("stopped; run the same command again to resume");
        }
        Ok(ends)
    }

    /// Submits the sweep to Slurm and follows its progress.
    fn on_cluster(&self, folder: &SweepFolder, record: &SweepRecord, sweep: &Sweep) -> Result<TaskEnds> {
        let jobs = cluster::submit(folder, record, &sweep.slurm, &self.machine.program)?;
        for (job, is_new) in &jobs {
            let what = if *is_new { "submitted" } else { "already queued" };
            eprintln!("job      {} {what}: {} [{}]", job.id, job.array.kind, job.array.numbers());
        }
        let jobs: Vec<cluster::SlurmJob> = jobs.into_iter().map(|(job, _)| job).collect();
        let mut live = live::Live::new(folder, record, 0);
        let ends = cluster::follow(folder, record, &jobs, &self.stop, &mut |event| live.show(event))?;
        live.finish();
        conclude(folder, record, &ends)?;
        if self.stop.requested().is_some() {
            let ids = jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>().join(" ");
            eprintln!(
                "the jobs continue; run the same command to follow them again, or `scancel {ids}` to cancel them"
            );
        }
        Ok(ends)
    }
}

/// Prints the table, and each failure with the end of its log.
fn conclude(folder: &SweepFolder, record: &SweepRecord, ends: &[(SweepTask, TaskEnd)]) -> Result<()> {
    println!("{}", status::table(folder, record)?);
    for (task, end) in ends {
        if let TaskEnd::Failed(failure) = end {
            eprintln!("failed   {}: {}", task.name, failure.status);
            for line in &failure.lines {
                eprintln!("         {line}");
            }
            eprintln!("         full log: {}", failure.log.display());
        }
    }
    let skipped = ends.iter().filter(|(_, end)| *end == TaskEnd::Skipped).count();
    if skipped > 0 {
        eprintln!("skipped  {skipped} evaluations of runs that failed");
    }
    Ok(())
}
