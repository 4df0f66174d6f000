//! A study's outcome in words and tables.

use std::fmt::{self, Write};

use super::{AVERAGE, Cell, Comparison, ENOUGH_POWER, Outcome, Verdict, WORTH};
use crate::report::chart::{Axis, Forest, Group, Row};
use crate::stats::Interval;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Higher => f.write_str("higher"),
            Self::Lower => f.write_str("lower"),
            Self::None { power } => write!(f, "no verdict: power {:.0} %", 100.0 * power),
        }
    }
}

impl Comparison {
    fn decided(&self) -> bool {
        self.verdict == Verdict::Higher || self.verdict == Verdict::Lower
    }
}

impl Outcome {
    /// The results in the paper's form, arms by benchmarks in percent, as Markdown.
    pub fn results_markdown(&self) -> String {
        let mut table =
            format!("| arm | seeds | {} |\n|---|---|{}\n", self.columns.join(" | "), "---|".repeat(self.columns.len()));
        for ((name, cells), seeds) in self.cells.iter().zip(&self.seeds) {
            let cell = |cell: &Cell| {
                let between = cell.between_seeds.map_or(String::new(), |sd| format!(", seeds ±{:.1}", 100.0 * sd));
                format!("{:.1} {}{between}", 100.0 * cell.accuracy, ends(cell.interval))
            };
            let cells: Vec<String> = cells.iter().map(cell).collect();
            writeln!(table, "| {name} | {seeds} | {} |", cells.join(" | ")).unwrap();
        }
        table
    }

    /// Each arm against each reference in points, as Markdown.
    pub fn comparisons_markdown(&self) -> String {
        let mut table = String::from(
            "| arm | against | benchmark | difference | over seeds | over questions | p, corrected | detectable | verdict |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for it in &self.comparisons {
            let (arm, reference, column, verdict) = (&it.arm, &it.reference, &it.column, it.verdict);
            let difference = points(it.seeds.difference);
            let seeds = it.seeds.interval.map_or("one seed".into(), signed_ends);
            let questions = signed_ends(it.questions);
            let p = it.adjusted.map_or("–".into(), |p| if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") });
            let detectable = it.detectable.map_or("–".into(), |least| format!("{:.1}", 100.0 * least));
            let row = format!(
                "| {arm} | {reference} | {column} | {difference} | {seeds} | {questions} | {p} | {detectable} | {verdict} |"
            );
            table.push_str(&row);
            table.push('\n');
        }
        table
    }

    /// What may be said, the least likely by chance first. A difference without a verdict is not named.
    pub fn summary(&self) -> Vec<String> {
        let mut said = Vec::new();
        let mut decided: Vec<&Comparison> = self.comparisons.iter().filter(|it| it.decided()).collect();
        decided.sort_by(|a, b| a.adjusted.unwrap_or(1.0).total_cmp(&b.adjusted.unwrap_or(1.0)));
        for it in &decided {
            let where_ = if it.column == AVERAGE {
                "on average over the benchmarks".into()
            } else {
                format!("on {}", it.column)
            };
            let size = 100.0 * it.seeds.difference.abs();
            let (arm, reference, verdict, seeds) = (&it.arm, &it.reference, it.verdict, it.seeds.seeds);
            let interval = it
                .seeds
                .interval
                .map_or(String::new(), |interval| format!(", 95 % interval {}", signed_ends(interval)));
            said.push(format!(
                "`{arm}` is {verdict} than `{reference}` {where_} by {size:.1} points ({seeds} seeds{interval})."
            ));
        }
        let all = self.comparisons.len();
        if all == 0 {
            said.push("No arm to compare with is in this study.".into());
            return said;
        }
        let open: Vec<&Comparison> = self.comparisons.iter().filter(|it| !it.decided()).collect();
        let weak = open.iter().filter(|it| it.seeds.power(WORTH) < ENOUGH_POWER).count();
        if !open.is_empty() {
            let which = if decided.is_empty() {
                format!("any of the {all}")
            } else {
                format!("the other {} of {all}", open.len())
            };
            let (chance, worth) = (open.len() - weak, 100.0 * WORTH);
            said.push(format!(
                "No verdict on {which} differences between arms: {chance} are within what seeds and questions do by chance, {weak} \
                 come from comparisons that would miss a true difference of {worth:.0} points more often than not."
            ));
        }
        let single = open.iter().filter(|it| it.seeds.seeds < 2).count();
        if single > 0 {
            said.push(format!("{single} of them rest on one seed, which says nothing about another training run."));
        }
        said
    }

    /// The differences from one reference, a group of rows for each column.
    pub fn forest(&self, reference: &str) -> Forest {
        let scaled = |interval: Interval| Interval { low: 100.0 * interval.low, high: 100.0 * interval.high };
        let row = |it: &Comparison| Row {
            label: it.arm.clone(),
            value: 100.0 * it.seeds.difference,
            interval: it.seeds.interval.map(scaled),
            second: Some(scaled(it.questions)),
            note: it.verdict.to_string(),
        };
        let group = |column: &String| Group {
            heading: column.clone(),
            rows: self
                .comparisons
                .iter()
                .filter(|it| it.reference == reference && it.column == *column)
                .map(row)
                .collect(),
        };
        Forest {
            title: format!("Each arm against `{reference}`"),
            description: format!(
                "Difference of accuracy from {reference}, by benchmark. Thick: 95 % over training seeds; thin: 95 % over questions."
            ),
            axis: Axis::new("difference of accuracy; thick: 95 % over seeds, thin: over questions", "points"),
            groups: self.columns.iter().map(group).filter(|group| !group.rows.is_empty()).collect(),
        }
    }
}

/// `[31.1, 39.4]`, in percent.
fn ends(Interval { low, high }: Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
}

fn signed_ends(Interval { low, high }: Interval) -> String {
    format!("[{}, {}]", points(low), points(high))
}

/// A difference in points with its sign; none where it rounds to nothing.
fn points(difference: f64) -> String {
    let text = format!("{:.1}", 100.0 * difference.abs());
    match (text.as_str(), difference < 0.0) {
        ("0.0", _) => text,
        (_, true) => format!("−{text}"),
        (_, false) => format!("+{text}"),
    }
}
