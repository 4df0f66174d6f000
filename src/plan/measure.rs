//! Times a short piece of a run: a few training steps, and the evaluation of a few questions.

use super::forecast::{Forecast, MeasuredPiece};
use crate::config::RunConfig;
use crate::device::{Device, Extent, LoadedModel};
use crate::disk::files;
use crate::model::source::ModelSource;
use crate::run::{Progress, RunDir, Stop, metrics};
use crate::train::evaluate::evaluate;
use crate::train::sample::TrainQuestion;
use crate::train::setup::Setup;
use crate::train::{Training, train};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// The measured pieces, and the estimate for the whole run.
#[derive(Serialize)]
pub struct PlanMeasurement {
    pub device: String,
    pub steps: MeasuredPiece,
    /// The completions of those steps, without the updates.
    pub rollouts: MeasuredPiece,
    pub evaluation: MeasuredPiece,
    pub forecast: Forecast,
}

/// A folder for the measured run, which is removed with its contents.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // If the folder cannot be removed, it remains.
        _ = files::remove_dir_all(&self.0);
    }
}

/// Trains for about `seconds`, at least two steps, then evaluates for about a quarter of that time.
pub fn measure(config: &RunConfig, seconds: f64, price: Option<f64>) -> Result<PlanMeasurement> {
    let source = ModelSource::open(&config.model.path, &config.model.revision)?;
    let setup = Setup::new(config, &source, Timestamp::now(), None, None)?;
    let device = Device::choose(&config.run.device)?;
    let (mut state, _) = setup.initial_state(config, &source)?;
    let loaded = LoadedModel::load(device, &source, Some(&state.adapter), &Extent::of(config))?;
    drop(source);

    let scratch = Scratch(std::env::temp_dir().join(format!("rft-plan-{}", std::process::id())));
    let run = RunDir::create(&scratch.0, None, "measured")?;
    let (progress, stop) = (Progress::lines(0, std::io::sink()), Stop::on_signals(|_| ())?);
    let (mut engine, mut learner) = (loaded.engine(), loaded.learner());
    let mut config = config.clone();
    config.train.save_steps = 0;
    let (total, kinds) = (config.total_steps(setup.questions.len()), if config.eval.greedy { 2 } else { 1 });

    // The first step allocates memory and selects algorithms. It determines how many steps fit, and is not counted.
    let mut wanted = 1;
    for _ in 0..2 {
        config.train.steps = Some(wanted);
        let training = training(&config, &setup, 0, &run, &progress, &stop);
        let started = Instant::now();
        let outcome = train(&training, engine.as_mut(), learner.as_mut(), &mut state)?;
        if outcome.stopped.is_some() {
            bail!("interrupted");
        }
        let fit = (seconds / started.elapsed().as_secs_f64()) as usize;
        wanted = 1 + fit.clamp(1, total.max(2) - 1);
    }
    let (steps, rollouts) = counted(&run, config.rollout.completions_per_step())?;

    // As many questions as fit into a quarter of the time, at the speed of the rollouts.
    let seconds_of_one = rollouts.seconds / rollouts.units as f64;
    let questions = (seconds / 4.0 / seconds_of_one / f64::from(kinds)) as usize;
    let questions = questions.clamp(1, config.rollout.max_rows).min(setup.held_out.len());
    let training = training(&config, &setup, questions, &run, &progress, &stop);
    let started = Instant::now();
    let evaluated = evaluate(&training, engine.as_mut(), &state.adapter, 0)?;
    let taken = started.elapsed().as_secs_f64();
    let evaluation = evaluated.map(|evaluated| {
        let prompts: usize = setup.held_out[..questions].iter().map(TrainQuestion::longest_prompt).sum();
        let lengths = evaluated.sampled.mean_length + evaluated.greedy.map_or(0.0, |greedy| greedy.mean_length);
        let tokens = prompts as f64 * f64::from(kinds) + lengths * questions as f64;
        MeasuredPiece { units: questions * kinds as usize, tokens: tokens.round() as u64, seconds: taken }
    });
    if stop.requested().is_some() {
        bail!("interrupted");
    }
    let evaluation = evaluation.unwrap_or_default();
    config.train.steps = Some(total);
    let forecast = Forecast::new(&config, setup.questions.len(), setup.held_out.len(), &steps, &evaluation, price);
    Ok(PlanMeasurement { device: device.to_string(), steps, rollouts, evaluation, forecast })
}

/// The measured run, with the first `held_out` questions for evaluation.
fn training<'a>(
    config: &'a RunConfig,
    setup: &'a Setup,
    held_out: usize,
    run: &'a RunDir,
    progress: &'a Progress,
    stop: &'a Stop,
) -> Training<'a> {
    Training {
        config,
        scorer: setup.scorer(config),
        base: &config.model.path,
        questions: &setup.questions,
        held_out: &setup.held_out[..held_out],
        run,
        progress,
        show_completions: 0,
        stop,
    }
}

/// The steps after the first and their rollouts, from the run's metrics.
fn counted(run: &RunDir, completions: usize) -> Result<(MeasuredPiece, MeasuredPiece)> {
    let mut lines = metrics::read(&run.metrics())?;
    lines.retain(|line| line.values.contains_key("reward"));
    let value = |line: usize, name: &str| -> Result<f64> {
        lines.get(line).and_then(|line| *line.values.get(name)?).with_context(|| format!("measure `{name}`"))
    };
    let sum = |name: &str| (1..lines.len()).map(|line| value(line, name)).sum::<Result<f64>>();
    let tokens = value(lines.len() - 1, "num_tokens")? - value(0, "num_tokens")?;
    let steps = MeasuredPiece { units: lines.len() - 1, tokens: tokens as u64, seconds: sum("step_time")? };
    Ok((steps, MeasuredPiece { units: steps.units * completions, seconds: sum("rollout_time")?, ..steps }))
}
