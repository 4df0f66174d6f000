//! The progress display of a run: if stderr is a terminal, a growing table with a row for each step and a status line below it;
//! else plain lines.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::printable::printable;
use super::terminal::{status_line, stderr_width};
use super::wrap::{columns, wrapped};
use crate::stats::{Proportion, mean};

/// The metrics of one training step.
#[derive(Clone, Debug)]
pub struct StepView {
    /// Counted from 1.
    pub step: usize,
    pub reward: f64,
    /// Share of correct completions.
    pub accuracy: Option<f64>,
    /// Share of completions in the format that the prior prompt asks for.
    pub format: Option<f64>,
    /// The mean of each other component of the reward.
    pub components: Vec<(String, f64)>,
    /// Mean number of tokens per completion.
    pub mean_length: f64,
    /// Total number of tokens in the step's completions.
    pub tokens: usize,
    pub seconds: f64,
}

/// The result of an evaluation on held-out questions.
#[derive(Clone, Copy, Debug)]
pub struct EvalView<'a> {
    /// The time of the evaluation: `before training`, `after step 20`.
    pub label: &'a str,
    pub accuracy: Proportion,
    pub format: Option<Proportion>,
    pub greedy_accuracy: Option<Proportion>,
}

/// Shows the progress of a run on stderr. Clones write to the same display, from any thread.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<ProgressState>>);

struct ProgressState {
    sink: Sink,
    total: usize,
    seconds_per_step: Option<f64>,
    rewards: Vec<f64>,
    /// The heading of the table, once it has one.
    heading: String,
}

enum Sink {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
    Silent,
}

impl Progress {
    /// For a run of `total` steps, of which `done` are already done. Colors are omitted if `NO_COLOR` is set.
    pub fn new(total: usize, done: usize) -> Self {
        if !io::stderr().is_terminal() {
            return Self::lines(total, io::stderr());
        }
        let style = ProgressStyle::with_template("{spinner} {pos}/{len} {bar:10.cyan/dim} {prefix} {wide_msg}")
            .expect("a valid template")
            .progress_chars("━━─");
        let bar = ProgressBar::with_draw_target(Some(total as u64), status_line());
        let bar = bar.with_position(done as u64).with_style(style);
        // A step can take minutes, so the spinner has to move meanwhile.
        bar.enable_steady_tick(Duration::from_millis(120));
        Self::with_sink(Sink::Bar(bar), total)
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self::with_sink(Sink::Silent, 0)
    }

    /// Writes one plain line per event to `out`.
    pub fn lines(total: usize, out: impl Write + Send + 'static) -> Self {
        Self::with_sink(Sink::Lines(Box::new(out)), total)
    }

    fn with_sink(sink: Sink, total: usize) -> Self {
        let state = ProgressState { sink, total, seconds_per_step: None, rewards: Vec::new(), heading: String::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Shows a completed step.
    pub fn step(&self, view: &StepView) {
        self.with(|state| state.step(view));
    }

    /// Shows the phase of a step (`sampling 12/64`); only on the bar.
    pub fn phase(&self, text: &str) {
        self.with(|state| {
            if let Sink::Bar(bar) = &state.sink {
                bar.set_prefix(format!("{text}{}", state.time_left(bar.position() as usize)));
            }
        });
    }

    /// Prints permanent lines above the bar.
    pub fn note(&self, text: &str) {
        self.with(|state| state.line(text));
    }

    /// Shows a completed evaluation.
    pub fn eval(&self, view: &EvalView) {
        self.note(&view.to_line());
    }

    /// Removes the bar and shows the curve of the rewards; later output appears below it.
    pub fn finish(&self) {
        self.with(|state| {
            if let Sink::Bar(bar) = &state.sink {
                bar.finish_and_clear();
                state.sink = Sink::Lines(Box::new(io::stderr()));
                if !state.rewards.is_empty() {
                    let line = format!("reward   {}", sparkline(&state.rewards));
                    state.line(&line);
                }
            }
        });
    }

    fn with(&self, act: impl FnOnce(&mut ProgressState)) {
        act(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl ProgressState {
    fn step(&mut self, view: &StepView) {
        // Recent steps have more weight, because the length of completions changes as the model learns.
        let average = self.seconds_per_step.map_or(view.seconds, |average| 0.8 * average + 0.2 * view.seconds);
        self.seconds_per_step = Some(average);
        self.rewards.push(view.reward);
        let time_left = self.time_left(view.step);
        match &self.sink {
            Sink::Bar(bar) => {
                bar.set_position(view.step as u64);
                bar.set_prefix(time_left.trim_start().to_owned());
                bar.set_message(sparkline(&self.rewards));
                let [names, values, more] = view.rows(stderr_width().unwrap_or(usize::MAX));
                let lines =
                    [(self.heading != names).then_some(&names), Some(&values), (!more.is_empty()).then_some(&more)];
                let lines: Vec<&str> = lines.into_iter().flatten().map(String::as_str).collect();
                self.line(&lines.join("\n"));
                self.heading = names;
            }
            Sink::Lines(_) => {
                let line = format!("step {}/{}  {}{time_left}", view.step, self.total, view.to_line());
                self.line(&line);
            }
            Sink::Silent => {}
        }
    }

    fn line(&mut self, text: &str) {
        let text = &*printable(text);
        match &mut self.sink {
            // Plain lines, not those of the bar, which would be filled with spaces.
            Sink::Bar(bar) => bar.suspend(|| {
                let text = stderr_width().map_or(Cow::Borrowed(text), |width| wrapped(text, width));
                let _ = writeln!(io::stderr(), "{text}");
            }),
            // A closed stderr is not a reason to stop a run.
            Sink::Lines(out) => {
                let _ = writeln!(out, "{text}").and_then(|()| out.flush());
            }
            Sink::Silent => {}
        }
    }

    /// `  2m 05s left`, or nothing if it is not known yet.
    fn time_left(&self, done: usize) -> String {
        let steps = self.total.saturating_sub(done);
        match self.seconds_per_step {
            Some(seconds) if steps > 0 => format!("  {} left", duration(seconds * steps as f64)),
            _ => String::new(),
        }
    }
}

/// Least width of a column of the table.
const COLUMN: usize = 8;
/// Spaces between two columns.
const GAP: usize = 2;

impl StepView {
    /// Heading and values of the table, and a line of the components that have no column because the terminal has `width`
    /// columns.
    fn rows(&self, width: usize) -> [String; 3] {
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        let mut cells =
            vec![("step".to_owned(), self.step.to_string()), ("reward".to_owned(), format!("{:.3}", self.reward))];
        for (name, share) in [("accuracy", self.accuracy), ("format", self.format)] {
            cells.extend(share.map(|share| (name.to_owned(), percent(share))));
        }
        let last = [
            ("length".to_owned(), format!("{:.1}", self.mean_length)),
            ("tokens/s".to_owned(), format!("{:.0}", self.tokens as f64 / self.seconds)),
        ];
        let wide = |(name, value): &(String, String)| columns(name).max(columns(value)).max(COLUMN);
        let mut used: usize = cells.iter().chain(&last).map(|cell| wide(cell) + GAP).sum();
        let mut more = Vec::new();
        for (name, value) in &self.components {
            let cell = (printable(name).into_owned(), format!("{value:.3}"));
            match used.saturating_add(wide(&cell)) <= width {
                true => {
                    used += wide(&cell) + GAP;
                    cells.push(cell);
                }
                false => more.push(format!("{} {}", cell.0, cell.1)),
            }
        }
        cells.extend(last);
        let right =
            |text: &str, cell: &(String, String)| format!("{:fill$}{text}", "", fill = wide(cell) - columns(text));
        let row = |cell: fn(&(String, String)) -> &String| -> String {
            cells.iter().map(|it| right(cell(it), it)).collect::<Vec<_>>().join("  ")
        };
        let more =
            if more.is_empty() { String::new() } else { format!("{:w$}{}", "", more.join("  "), w = COLUMN + GAP) };
        [row(|it| &it.0), row(|it| &it.1), more]
    }

    fn to_line(&self) -> String {
        let mut line = format!("reward {:.3}", self.reward);
        for (name, share) in [("accuracy", self.accuracy), ("format", self.format)] {
            if let Some(share) = share {
                line += &format!("  {name} {:.1} %", 100.0 * share);
            }
        }
        for (name, value) in &self.components {
            line += &format!("  {name} {value:.3}");
        }
        line + &format!("  length {:.1}  {:.0} tokens/s", self.mean_length, self.tokens as f64 / self.seconds)
    }
}

impl EvalView<'_> {
    fn to_line(self) -> String {
        let mut line = format!("held-out {}: accuracy {}", self.label, self.accuracy);
        for (name, share) in [("format", self.format), ("greedy accuracy", self.greedy_accuracy)] {
            if let Some(share) = share {
                line += &format!("  {name} {share}");
            }
        }
        line + &format!("  ({} questions)", self.accuracy.n)
    }
}

/// Two units: `2m 05s`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

/// A sparkline of all `values` in at most 16 characters; each is the mean of an equal part of the values.
fn sparkline(values: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = values.len().min(16);
    let means: Vec<f64> =
        (0..width).map(|i| mean(&values[i * values.len() / width..(i + 1) * values.len() / width])).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // A constant or missing value gives NaN, which `as` converts to the lowest level.
    let level = |value: f64| LEVELS[((value - low) / (high - low) * 7.0).round() as usize];
    means.into_iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct TestScreen(Arc<Mutex<Vec<u8>>>);

    impl Write for TestScreen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn plain_output_has_one_line_per_event() {
        let screen = TestScreen::default();
        let progress = Progress::lines(40, screen.clone());
        let view = StepView {
            step: 1,
            reward: 0.3254,
            accuracy: Some(0.3515),
            format: Some(0.3),
            components: Vec::new(),
            mean_length: 48.25,
            tokens: 2_000,
            seconds: 2.0,
        };
        progress.eval(&EvalView {
            label: "before training",
            accuracy: Proportion::new(180, 512),
            format: None,
            greedy_accuracy: Some(Proportion::new(507, 512)),
        });
        progress.step(&view);
        progress.phase("sampling 1/16");
        progress.clone().note("saved checkpoints/step-000001");
        progress.step(&StepView { step: 40, format: None, components: vec![("judge".into(), 0.25)], ..view });
        progress.finish();
        let text = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "held-out before training: accuracy 35.2 % [31.1, 39.4]  greedy accuracy 99.0 % [97.7, 99.6]  (512 questions)\n\
             step 1/40  reward 0.325  accuracy 35.1 %  format 30.0 %  length 48.2  1000 tokens/s  1m 18s left\n\
             saved checkpoints/step-000001\n\
             step 40/40  reward 0.325  accuracy 35.1 %  judge 0.250  length 48.2  1000 tokens/s\n"
        );
    }

    #[test]
    fn time_left_follows_the_recent_steps() {
        let progress = Progress::lines(100, io::sink());
        let view = StepView {
            step: 1,
            reward: 0.0,
            accuracy: None,
            format: None,
            components: Vec::new(),
            mean_length: 1.0,
            tokens: 1,
            seconds: 10.0,
        };
        progress.step(&view);
        progress.step(&StepView { step: 2, seconds: 20.0, ..view });
        // 98 steps of 0.8 * 10 + 0.2 * 20 seconds.
        progress.with(|state| assert_eq!(state.time_left(2), "  19m 36s left"));
    }

    /// What the width does not allow as columns is on a line below; no name is cut.
    #[test]
    fn rows_of_the_table_are_aligned_and_fit() {
        let components = (0..3).map(|i| (format!("a long component {i}"), -1234.5)).collect();
        let (accuracy, format) = (Some(1.0), Some(0.5));
        let view = StepView {
            step: 100_000,
            reward: -0.25,
            accuracy,
            format,
            components,
            mean_length: 12_345.6,
            tokens: 1,
            seconds: 1.0,
        };
        let [names, values, more] = view.rows(80);
        assert_eq!(names, "    step    reward  accuracy    format  a long component 0    length  tokens/s");
        assert_eq!(values, "  100000    -0.250    100.0%     50.0%           -1234.500   12345.6         1");
        assert_eq!(more, "          a long component 1 -1234.500  a long component 2 -1234.500");
        let [names, values, more] = view.rows(120);
        assert_eq!((names.len(), values.len(), more.as_str()), (118, 118, ""));
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!(duration(59.4), "59s");
        assert_eq!(duration(59.6), "1m 00s");
        assert_eq!(duration(3_599.0), "59m 59s");
        assert_eq!(duration(90_061.0), "25h 01m");
    }

    #[test]
    fn the_sparkline_shows_the_whole_run() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0.5, 0.5]), "▁▁");
        assert_eq!(sparkline(&[0.0, 0.25, 0.5, 0.75, 1.0]), "▁▃▅▆█");
        let rising: Vec<f64> = (0..1_000).map(f64::from).collect();
        let curve = sparkline(&rising);
        assert_eq!(curve.chars().count(), 16);
        assert!(curve.starts_with('▁') && curve.ends_with('█'));
        assert_eq!(sparkline(&[f64::NAN, 1.0, 2.0]), "▁▁█");
    }
}
