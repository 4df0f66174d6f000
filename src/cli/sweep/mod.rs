//! `rft sweep`: many runs from one file, and their evaluations.

mod dry_run;
mod live;
mod status;
mod tune;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::download;
use crate::device;
use crate::run::Stop;
use crate::sweep::local::{self, Children, Machine, TaskEnd};
use crate::sweep::task::{self, NextAction, SweepTask, TaskKind};
use crate::sweep::tune::with_choices;
use crate::sweep::{Sweep, SweepFile, SweepFolder, TaskState, choice, cluster, expand, folder, starts, trials};

/// Train and evaluate many arms from one file
///
/// The file is a configuration with a section [sweep] that defines what varies (see docs/sweeps.md). All arms are trained with
/// the same seeds, on the same questions in the same order, and evaluated on the benchmarks in [sweep.eval], as is the
/// untrained model. Each run is a separate process.
///
/// With a section [sweep.tune], trials first choose the learning rate of each arm, on held-out training questions.
///
/// If a run fails, the others continue. If the sweep is interrupted, the same command resumes it. Ctrl-C asks all processes to
/// save their state; a second Ctrl-C ends them.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_precedence_over_arg = true,
    after_help = "Examples:
  rft sweep ppe-study-tiny
  rft sweep ppe-study --dry-run --measure
  rft sweep my-sweep.toml --jobs 4 --set train.steps=50
  rft sweep ppe-study --slurm
  rft sweep status sweeps/ppe-study"
)]
pub struct SweepArgs {
    #[command(subcommand)]
    command: Option<SweepCommand>,

    /// Configuration with a section [sweep], or a shipped sweep: ppe-study, ppe-study-tiny, reward-controls, reward-controls-tiny, distill-tiny
    #[arg(required = true)]
    file: Option<String>,

    /// Folder of the sweep [default: `sweeps/NAME`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Number of parallel processes [default: the file's, else one per GPU, or one]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Comma-separated numbers of the GPUs to use; each process gets one [default: all visible GPUs]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    gpus: Vec<String>,

    /// Set one value of the file, such as `train.steps=50` or `sweep.seeds=[1,2]`; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Print runs, commands and costs, and exit
    #[arg(long)]
    dry_run: bool,

    /// Estimate the sweep's time from a measurement of the first run of about this many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60", requires = "dry_run", value_parser = super::plan::positive)]
    measure: Option<f64>,

    /// Price of the machine per hour, in any currency
    #[arg(long, value_name = "PRICE", requires = "measure", value_parser = super::plan::positive)]
    gpu_hour_price: Option<f64>,

    /// Submit to Slurm instead of running here, and wait until all jobs are done
    #[arg(long, conflicts_with_all = ["jobs", "gpus", "dry_run"])]
    slurm: bool,

    /// Download models without asking
    #[arg(long, short)]
    yes: bool,
}

#[derive(Subcommand, Debug)]
enum SweepCommand {
    /// Print the progress of every run and evaluation
    Status(status::SweepStatusArgs),
    /// Complete one run or evaluation of a sweep (used by cluster jobs)
    Task(TaskArgs),
}

#[derive(clap::Args, Debug)]
struct TaskArgs {
    /// Folder of the sweep
    sweep: PathBuf,

    /// Name of the run or evaluation
    name: String,

    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: SweepArgs) -> Result<ExitCode> {
    match &args.command {
        Some(SweepCommand::Status(args)) => status::run(args).map(|()| ExitCode::SUCCESS),
        Some(SweepCommand::Task(args)) => do_task(args),
        None => sweep(&args),
    }
}

fn sweep(args: &SweepArgs) -> Result<ExitCode> {
    let file = SweepFile::read(args.file.as_deref().unwrap_or_default(), &args.sets)?;
    let mut sweep = expand(&file)?;
    let trials = trials(&file)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("sweeps").join(&sweep.name));
    let machine = machine(args, &sweep)?;
    if args.dry_run {
        let (seconds, price) = (args.measure, args.gpu_hour_price);
        return dry_run::run(&sweep, trials.as_ref(), &out, &machine, seconds, price).map(|()| ExitCode::SUCCESS);
    }
    let earlier = choice::earlier(&out, trials.as_ref())?;
    confirm(&sweep, args.yes)?;
    let worker = Worker::new(machine, args.slurm)?;
    for note in &sweep.notes {
        eprintln!("note     {note}");
    }
    let mut tuned = None;
    if let Some(trials) = &trials {
        let (record, lock) = match tune::run(&worker, &out, trials, earlier)? {
            tune::Tuned::Chosen(record, lock) => (record, lock),
            tune::Tuned::Unfinished(code) => return Ok(code),
        };
        sweep = with_choices(sweep, trials, &record)?;
        tuned = lock;
    }
    let (folder, record, _lock) = SweepFolder::prepare(&out, &sweep)?;
    // From here on, the lock of the sweep keeps a second process away.
    drop(tuned);
    eprintln!("sweep    {}: {} runs, {} evaluations", sweep.name, record.runs.len(), record.evals.len());
    let ends = worker.work(&folder, &record, &sweep)?;
    Ok(worker.stopped().unwrap_or_else(|| exit_code(&ends)))
}

/// The ends of all tasks of a sweep.
type TaskEnds = Vec<(SweepTask, TaskEnd)>;

/// Does the tasks of a sweep on this machine or on a cluster, until it is asked to stop.
struct Worker {
    machine: Machine,
    slurm: bool,
    stop: Stop,
    children: Children,
}

impl Worker {
    fn new(machine: Machine, slurm: bool) -> Result<Self> {
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
    fn stopped(&self) -> Option<ExitCode> {
        self.stop.requested().map(|signal| ExitCode::from(signal.exit_code() as u8))
    }

    /// Does all tasks that are not done, and prints the table of the results.
    fn work(&self, folder: &SweepFolder, record: &folder::SweepRecord, sweep: &Sweep) -> Result<TaskEnds> {
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
    fn on_cluster(&self, folder: &SweepFolder, record: &folder::SweepRecord, sweep: &Sweep) -> Result<TaskEnds> {
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
fn conclude(folder: &SweepFolder, record: &folder::SweepRecord, ends: &[(SweepTask, TaskEnd)]) -> Result<()> {
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

/// Models are downloaded once, by this process, not by all runs at the same time.
fn confirm(sweep: &Sweep, yes: bool) -> Result<()> {
    let models: BTreeSet<_> = sweep.configs.values().map(|it| (&it.model.path, &it.model.revision)).collect();
    models.into_iter().try_for_each(|(model, revision)| download::confirm_model(model, revision, yes))
}

/// Number of processes, threads and GPUs.
fn machine(args: &SweepArgs, sweep: &Sweep) -> Result<Machine> {
    ensure!(args.jobs != Some(0), "--jobs: expected 1 or more, found 0");
    let wants_gpu = sweep.configs.values().any(|config| ["auto", "cuda"].contains(&config.run.device.as_str()));
    let gpus = match args.gpus.is_empty() {
        false => args.gpus.clone(),
        true if wants_gpu => visible_gpus(),
        true => Vec::new(),
    };
    let jobs = args.jobs.or(sweep.jobs).unwrap_or(gpus.len().max(1));
    if !gpus.is_empty() && jobs > gpus.len() {
        eprintln!("note     {jobs} processes share {} GPUs and their memory", gpus.len());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fixed = sweep.configs.values().filter_map(|config| config.train.threads).max();
    Ok(Machine {
        program: std::env::current_exe().context("find the executable of this program")?,
        jobs,
        threads: fixed.unwrap_or((cores / jobs).max(1)),
        gpus,
    })
}

fn visible_gpus() -> Vec<String> {
    let count = device::gpus();
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(list) if count > 0 => list.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect(),
        _ => (0..count).map(|number| number.to_string()).collect(),
    }
}

/// Replaces this process with that of one task.
fn do_task(args: &TaskArgs) -> Result<ExitCode> {
    let (folder, record) = SweepFolder::open(&args.sweep)?;
    let kind = match (record.run(&args.name), record.eval(&args.name)) {
        (Some(_), _) => TaskKind::Run,
        (None, Some(_)) => TaskKind::Eval,
        (None, None) => bail!(
            "`{}` has no run or evaluation named `{}`\nhint: `rft sweep status {}` lists them",
            args.sweep.display(),
            args.name,
            args.sweep.display()
        ),
    };
    let task = SweepTask { name: args.name.clone(), kind, needs: None };
    let rft = std::env::current_exe().context("find the executable of this program")?;
    let mut told = false;
    loop {
        match task::next(&folder, &record, &task)? {
            NextAction::Done => {
                eprintln!("`{}` is done", task.name);
                return Ok(ExitCode::SUCCESS);
            }
            // A restarted job may find its previous process still saving its state.
            NextAction::Busy => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("another process is working on `{}`; waiting for it", task.name);
                }
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            NextAction::Start(command) => {
                // Slurm's restart count; unset at the first start of a job.
                let restarts = std::env::var("SLURM_RESTART_COUNT").ok().and_then(|it| it.parse().ok());
                starts::count(&folder, &task, restarts.unwrap_or(0))?;
                eprintln!("rft {}", task::in_shell(&command));
                return Err(local::become_task(&folder, &task, &rft, &command, args.threads)?);
            }
        }
    }
}

fn exit_code(ends: &[(SweepTask, TaskEnd)]) -> ExitCode {
    if ends.iter().all(|(_, end)| *end == TaskEnd::Done) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
