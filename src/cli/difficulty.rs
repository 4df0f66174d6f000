//! `rft difficulty`: the pass rate of every training question under a model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::download;
use super::run_args::RunArgs;
use crate::config::{self, RunConfig};
use crate::device::{self, Device, Extent, LoadedModel};
use crate::model::source::ModelSource;
use crate::rollout::RolloutWatch;
use crate::run::Stop;
use crate::train::difficulty::{Difficulty, MeasuredWith};
use crate::train::setup::Setup;

/// Time between two lines of progress.
const PAUSE: Duration = Duration::from_secs(10);

/// Measure how often a model solves each training question
///
/// Samples every training question several times under the prior prompt, as training does, and writes the number of right
/// samples to a file. `rft train` with `data.difficulty = FILE` and `data.pass_rate = [0.1, 0.9]` then trains only on the
/// questions in this band. If the measurement is interrupted, the same command resumes it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft difficulty --ppe reasoning --samples 8 --out rates.jsonl
  rft difficulty --model Qwen/Qwen2.5-0.5B --data openai/gsm8k --ppe reasoning --out rates.jsonl
  rft train --ppe reasoning --set data.difficulty=rates.jsonl --set data.pass_rate=[0.1,0.9]")]
pub struct DifficultyArgs {
    #[command(flatten)]
    run: RunArgs,

    /// Samples per question
    #[arg(long, value_name = "K", default_value_t = 8)]
    samples: usize,

    /// File to write to, one JSON object per question
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Download without asking
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &DifficultyArgs) -> Result<ExitCode> {
    ensure!((1..=1024).contains(&args.samples), "--samples: {} is out of range, expected 1 to 1024", args.samples);
    let config = measured(config::resolve(&args.run.layers())?.config);
    device::use_threads(config.train.threads)?;
    download::confirm(&config, args.yes)?;
    let source = ModelSource::open(&config.model.path, &config.model.revision)?;
    let setup = Setup::new(&config, &source, jiff::Timestamp::now(), None, None)?;
    for note in &setup.notes {
        eprintln!("note     {note}");
    }
    let device = Device::choose(&config.run.device)?;
    let kind = if device == Device::Cpu { "cpu" } else { "cuda" };
    let with = MeasuredWith::new(&config, &setup, &source, kind, args.samples);
    let mut difficulty = Difficulty::open(&args.out, &with, &setup)?;
    let all = setup.measured().count();
    let extent = Extent {
        positions: config.rollout.max_sequence_length(),
        max_rows: config.rollout.max_rows,
        working_bytes: None,
        keep: None,
        taught: false,
    };
    let loaded = LoadedModel::load(device, &source, None, &extent)?;
    let stop =
        Stop::on_signals(|_| eprintln!("stopping; finished questions are kept (interrupt again to stop immediately)"))?;
    let mut shown = Instant::now();
    let mut after = |difficulty: &Difficulty| {
        if shown.elapsed() >= PAUSE {
            shown = Instant::now();
            eprintln!("{}/{all} questions", difficulty.done());
        }
    };
    let mut engine = loaded.engine();
    let complete = difficulty.measure(&setup, &config, engine.as_mut(), &mut MeasurementWatch(&stop), &mut after)?;
    let (done, out) = (difficulty.done(), args.out.display());
    if !complete {
        eprintln!("stopped after {done} of {all} questions\nhint: run the same command again to resume");
        return Ok(stop.requested().map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code() as u8)));
    }
    let (right, samples) = difficulty.right();
    println!("{done} questions, {:.1} % of their samples are right", 100.0 * right as f64 / samples.max(1) as f64);
    for (right, questions) in difficulty.histogram().iter().enumerate() {
        println!("{right:>4} of {}: {questions} questions", args.samples);
    }
    println!("pass rates  {out}");
    Ok(ExitCode::SUCCESS)
}

/// The configuration of the measurement: all training questions, no commands of the user, and no initial adapter, because the
/// model is measured.
fn measured(mut config: RunConfig) -> RunConfig {
    config.data.pass_rate = None;
    config.data.difficulty = None;
    config.lora.init_adapter = None;
    config.reward.custom.clear();
    config
}

/// Stops the measurement on a signal.
struct MeasurementWatch<'a>(&'a Stop);

impl RolloutWatch for MeasurementWatch<'_> {
    fn cancelled(&mut self) -> bool {
        self.0.requested().is_some()
    }
}
