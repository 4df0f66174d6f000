//! The progress display of a sweep: one bar per process if stderr is a terminal, else lines.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::run::progress::duration;
use crate::sweep::folder::{SweepFolder, SweepRecord};
use crate::sweep::local::{Event, TaskEnd};
use crate::sweep::task::{SweepTask, TaskKind};

pub struct Live<'a> {
    folder: &'a SweepFolder,
    record: &'a SweepRecord,
    bars: Option<MultiProgress>,
    /// Bars by task.
    lines: BTreeMap<String, ProgressBar>,
    ended: usize,
    told: Instant,
}

impl<'a> Live<'a> {
    /// `done` is the number of tasks that are already done; they are not printed again.
    pub fn new(folder: &'a SweepFolder, record: &'a SweepRecord, done: usize) -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self { folder, record, bars, lines: BTreeMap::new(), ended: done, told: Instant::now() }
    }

    pub fn show(&mut self, event: Event) {
        match event {
            Event::Started { task, args } => {
                let verb = if args.iter().any(|it| it == "--resume") { "resumed" } else { "started" };
                self.say(&format!("{verb:8} {}", task.name));
                if let Some(bars) = &self.bars {
                    let style = ProgressStyle::with_template("  {spinner} {prefix}  {msg}").expect("a valid template");
                    let bar = bars.add(ProgressBar::new_spinner().with_style(style).with_prefix(task.name.clone()));
                    bar.enable_steady_tick(Duration::from_millis(120));
                    self.lines.insert(task.name.clone(), bar);
                }
            }
            Event::Waiting(task) => {
                self.say(&format!("waiting  {}: an earlier process is still working on it", task.name));
            }
            Event::Ended { task, end, seconds } => {
                if let Some(bar) = self.lines.remove(&task.name) {
                    bar.finish_and_clear();
                }
                let how = match end {
                    TaskEnd::Done => "done",
                    TaskEnd::Failed(_) => "failed",
                    TaskEnd::Skipped => "skipped",
                    TaskEnd::Stopped => "stopped",
                };
                self.ended += usize::from(*end == TaskEnd::Done);
                let all = self.record.runs.len() + self.record.evals.len();
                let result = self.state(task).map(|it| format!("  {it}")).unwrap_or_default();
                self.say(&format!("{how:8} {} in {}{result}  [{} of {all}]", task.name, duration(seconds), self.ended));
                if let TaskEnd::Failed(failure) = end {
                    self.say(&format!("         {}", failure.lines.last().unwrap_or(&failure.status)));
                }
            }
            Event::Tick { running } => self.tick(&running),
        }
    }

    /// Shows the progress of the processes from time to time.
    fn tick(&mut self, running: &[&SweepTask]) {
        let every = if self.bars.is_some() { Duration::from_millis(500) } else { Duration::from_secs(30) };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        for task in running {
            let Some(state) = self.state(task) else { continue };
            match self.lines.get(&task.name) {
                Some(bar) => bar.set_message(state),
                None => self.say(&format!("running  {}  {state}", task.name)),
            }
        }
    }

    /// The progress of a task, read from its folder.
    fn state(&self, task: &SweepTask) -> Option<String> {
        match task.kind {
            TaskKind::Run => {
                let view = self.folder.run_view(&task.name).ok().filter(|it| it.step > 0)?;
                let steps = view.steps.map(|steps| format!("/{steps}")).unwrap_or_default();
                let reward = view.reward.map(|reward| format!("  reward {reward:.3}")).unwrap_or_default();
                Some(format!("step {}{steps}{reward}", view.step))
            }
            TaskKind::Eval => {
                let eval = self.record.eval(&task.name)?;
                let folder = self.folder.eval_path(&task.name);
                let done = eval.benches.iter().filter(|it| folder.join(it).join("results.json").is_file()).count();
                Some(format!("{done} of {} benchmarks", eval.benches.len()))
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bars {
            // An error here only means that stderr is closed.
            Some(bars) => _ = bars.println(line),
            None => eprintln!("{line}"),
        }
    }

    pub fn finish(&mut self) {
        std::mem::take(&mut self.lines).into_values().for_each(|bar| bar.finish_and_clear());
    }
}
