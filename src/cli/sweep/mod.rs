//! `rft sweep`: many runs from one file, and their evaluations.

mod dry_run;
mod live;
mod status;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use std::collections::BTreeSet;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::download;
use crate::device;
use crate::run::Stop;
use crate::sweep::local::{self, Children, End, Machine};
use crate::sweep::task::{self, Kind, Next, Task};
use crate::sweep::{Folder, State, Sweep, SweepFile, cluster, expand, folder, starts};

/// Train and measure many arms from one file
///
/// The file is a configuration with a section [sweep] that says what varies: docs/sweeps.md has the keys. Every arm is trained
/// with the same seeds on the same questions in the same order, each run in a process of its own, and measured on the benchmarks
/// of [sweep.eval], as is the untrained model.
///
/// A run that fails stops no other. The same command goes on where it was interrupted, and does only what is missing. Ctrl-C asks
/// all processes to save their state; a second one ends them.
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
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// A configuration with a section [sweep], or a shipped one: ppe-study, ppe-study-tiny
    #[arg(required = true)]
    file: Option<String>,

    /// Folder of the sweep [default: `sweeps` and its name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Processes at a time [default: the file's, else one for each GPU, or one]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// GPUs to use, by number, with commas between; each process gets one [default: those that are visible]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    gpus: Vec<String>,

    /// Set one value of the file, such as `train.steps=50` or `sweep.seeds=[1,2]`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Print runs, commands and costs, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Measure a piece of the first run for about so many seconds, and say what the sweep takes
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60", requires = "dry_run", value_parser = super::plan::positive)]
    measure: Option<f64>,

    /// What an hour of the machine costs, in any currency
    #[arg(long, value_name = "PRICE", requires = "measure", value_parser = super::plan::positive)]
    gpu_hour_price: Option<f64>,

    /// Submit to Slurm instead of running here, and follow until all is done
    #[arg(long, conflicts_with_all = ["jobs", "gpus", "dry_run"])]
    slurm: bool,

    /// Download models without asking
    #[arg(long, short)]
    yes: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Tell how far every run and evaluation is
    Status(status::Args),
    /// Do one run or evaluation of a sweep, as far as it is missing: what a job of a cluster calls
    Task(TaskArgs),
}

#[derive(clap::Args, Debug)]
struct TaskArgs {
    /// Folder of the sweep
    sweep: PathBuf,

    /// Name of a run or an evaluation
    name: String,

    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    match &args.command {
        Some(Command::Status(args)) => status::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Task(args)) => do_task(args),
        None => sweep(&args),
    }
}

fn sweep(args: &Args) -> Result<ExitCode> {
    let file = SweepFile::read(args.file.as_deref().unwrap_or_default(), &args.sets)?;
    let sweep = expand(&file)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("sweeps").join(&sweep.name));
    let machine = machine(args, &sweep)?;
    if args.dry_run {
        return dry_run::run(&sweep, &out, &machine, args.measure, args.gpu_hour_price).map(|()| ExitCode::SUCCESS);
    }
    confirm(&sweep, args.yes)?;
    let (folder, record, _lock) = Folder::prepare(&out, &sweep)?;
    eprintln!("sweep    {}: {} runs, {} evaluations", sweep.name, record.runs.len(), record.evals.len());
    eprintln!("folder   {}", out.display());
    for note in &sweep.notes {
        eprintln!("note     {note}");
    }
    if args.slurm {
        return on_cluster(&folder, &record, &sweep, &machine.program);
    }
    eprintln!("machine  {machine}");
    let done = folder.states(&record)?.values().filter(|it| **it == State::Done).count();
    if done > 0 {
        eprintln!("so far   {done} of {} are done", record.runs.len() + record.evals.len());
    }

    let children = Children::default();
    let killed = children.clone();
    let stop = Stop::on_signals_and(
        |_| eprintln!("stopping; every process saves its state first (again to stop at once)"),
        move |_| killed.kill(),
    )?;
    let mut live = live::Live::new(&folder, &record, done);
    let ends = local::work(&folder, &record, &machine, &children, &stop, &mut |event| live.show(event))?;
    live.finish();
    conclude(&folder, &record, &ends)?;
    if let Some(signal) = stop.requested() {
        eprintln!("stopped; the same command goes on from here");
        return Ok(ExitCode::from(signal.exit_code() as u8));
    }
    Ok(exit_code(&ends))
}

/// The table, and what failed with the end of its log.
fn conclude(folder: &Folder, record: &folder::Record, ends: &[(Task, End)]) -> Result<()> {
    writeln!(stdout(), "{}", status::table(folder, record)?)?;
    for (task, end) in ends {
        if let End::Failed(failure) = end {
            eprintln!("failed   {}: {}", task.name, failure.status);
            for line in &failure.lines {
                eprintln!("         {line}");
            }
            eprintln!("         all of it: {}", failure.log.display());
        }
    }
    let skipped = ends.iter().filter(|(_, end)| *end == End::Skipped).count();
    if skipped > 0 {
        eprintln!("skipped  {skipped} evaluations of runs that failed");
    }
    Ok(())
}

/// Models are downloaded once, by this process, and not by all runs at the same time.
fn confirm(sweep: &Sweep, yes: bool) -> Result<()> {
    let models: BTreeSet<_> = sweep.configs.values().map(|it| (&it.model.path, &it.model.revision)).collect();
    models.into_iter().try_for_each(|(model, revision)| download::confirm_model(model, revision, yes))
}

/// Processes at a time, threads and GPUs.
fn machine(args: &Args, sweep: &Sweep) -> Result<Machine> {
    ensure!(args.jobs != Some(0), "--jobs 0 would do nothing\nhint: processes at a time, 1 or more");
    let wants_gpu = sweep.configs.values().any(|config| ["auto", "cuda"].contains(&config.run.device.as_str()));
    let gpus = match args.gpus.is_empty() {
        false => args.gpus.clone(),
        true if wants_gpu => visible_gpus(),
        true => Vec::new(),
    };
    let jobs = args.jobs.or(sweep.jobs).unwrap_or(gpus.len().max(1));
    if !gpus.is_empty() && jobs > gpus.len() {
        eprintln!(
            "note     {jobs} processes share {} GPUs: each of them has to leave memory to the others",
            gpus.len()
        );
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fixed = sweep.configs.values().filter_map(|config| config.train.threads).max();
    Ok(Machine {
        program: std::env::current_exe().context("find the program's own file")?,
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

/// Becomes the process of one task.
fn do_task(args: &TaskArgs) -> Result<ExitCode> {
    let (folder, record) = Folder::open(&args.sweep)?;
    let kind = match (record.run(&args.name), record.eval(&args.name)) {
        (Some(_), _) => Kind::Run,
        (None, Some(_)) => Kind::Eval,
        (None, None) => bail!(
            "`{}` has no run and no evaluation `{}`\nhint: `rft sweep status {}` lists them",
            args.sweep.display(),
            args.name,
            args.sweep.display()
        ),
    };
    let task = Task { name: args.name.clone(), kind, needs: None };
    let rft = std::env::current_exe().context("find the program's own file")?;
    let mut told = false;
    loop {
        match task::next(&folder, &record, &task)? {
            Next::Done => {
                eprintln!("`{}` is done", task.name);
                return Ok(ExitCode::SUCCESS);
            }
            // A job that is started again may meet its own last process, which still saves its state.
            Next::Busy => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("another process is at work on `{}`; waiting for it", task.name);
                }
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            Next::Start(command) => {
                // Slurm's own count; nothing at the first start of a job.
                let restarts = std::env::var("SLURM_RESTART_COUNT").ok().and_then(|it| it.parse().ok());
                starts::count(&folder, &task, restarts.unwrap_or(0))?;
                eprintln!("rft {}", task::in_shell(&command));
                return Err(local::become_task(&folder, &task, &rft, &command, args.threads)?);
            }
        }
    }
}

/// Hands the sweep to Slurm and looks on.
fn on_cluster(folder: &Folder, record: &folder::Record, sweep: &Sweep, rft: &Path) -> Result<ExitCode> {
    let jobs = cluster::submit(folder, record, &sweep.slurm, rft)?;
    for (job, is_new) in &jobs {
        let what = if *is_new { "submitted" } else { "in the queue" };
        eprintln!("job      {} {what}: {} [{}]", job.id, job.array.kind, job.array.numbers());
    }
    let jobs: Vec<cluster::Job> = jobs.into_iter().map(|(job, _)| job).collect();
    let stop = Stop::on_signals(|_| ())?;
    let mut live = live::Live::new(folder, record, 0);
    let ends = cluster::follow(folder, record, &jobs, &stop, &mut |event| live.show(event))?;
    live.finish();
    conclude(folder, record, &ends)?;
    if let Some(signal) = stop.requested() {
        let ids = jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>().join(" ");
        eprintln!("the jobs go on; the same command follows them again, and `scancel {ids}` ends them");
        return Ok(ExitCode::from(signal.exit_code() as u8));
    }
    Ok(exit_code(&ends))
}

fn exit_code(ends: &[(Task, End)]) -> ExitCode {
    if ends.iter().all(|(_, end)| *end == End::Done) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
