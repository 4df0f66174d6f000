//! A study's outcome as sentences, tables and charts.

use std::fmt;

use super::{AVERAGE, ArmComparison, ComparisonVerdict, ENOUGH_POWER, StudyCell, StudyOutcome, WORTH};
use crate::report::chart::{Axis, Forest, ForestGroup, ForestRow};
use crate::report::document::{Table, TableCell, percent};
use crate::report::load::quoted;
use crate::stats::Interval;

impl fmt::Display for ComparisonVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Higher => f.write_str("higher"),
            Self::Lower => f.write_str("lower"),
            Self::None { power } => write!(f, "no verdict: power {:.0} %", 100.0 * power),
        }
    }
}

impl ArmComparison {
    /// The verdict, or the reason why there is none. `replicate`: `seed` or `wording`.
    pub fn told(&self, replicate: &str) -> String {
        if self.seeds.seeds < 2 { format!("no verdict: one {replicate}") } else { self.verdict.to_string() }
    }

    /// A row of a chart of differences, in percentage points. `replicate`: as for [`told`](Self::told).
    pub fn chart_row(&self, label: String, replicate: &str) -> ForestRow {
        let scaled = |interval: Interval| Interval { low: 100.0 * interval.low, high: 100.0 * interval.high };
        ForestRow {
            label,
            value: 100.0 * self.seeds.difference,
            interval: self.seeds.interval.map(scaled),
            second: Some(scaled(self.questions)),
            note: self.told(replicate),
        }
    }

    /// Whether it has a verdict.
    pub fn decided(&self) -> bool {
        self.verdict == ComparisonVerdict::Higher || self.verdict == ComparisonVerdict::Lower
    }
}

/// Comparisons that share one sentence: the same two arms, the same direction. The smallest p-values come first.
fn sentences<'a>(decided: &[&'a ArmComparison]) -> Vec<Vec<&'a ArmComparison>> {
    let mut groups: Vec<Vec<&ArmComparison>> = Vec::new();
    for it in decided {
        let of = |other: &ArmComparison| {
            (&other.arm, &other.reference, other.verdict) == (&it.arm, &it.reference, it.verdict)
        };
        match groups.iter_mut().find(|group| of(group[0])) {
            Some(group) => group.push(it),
            None => groups.push(vec![it]),
        }
    }
    let surest = |group: &[&ArmComparison]| group.iter().filter_map(|it| it.adjusted).fold(1.0, f64::min);
    groups.sort_by(|a, b| surest(a).total_cmp(&surest(b)));
    groups
}

fn sentence(group: &[&ArmComparison], replicates: &str) -> String {
    let place = |it: &&ArmComparison| {
        let place =
            if it.column == AVERAGE { "the average over the benchmarks".to_owned() } else { quoted(&it.column) };
        let interval = it.corrected.unwrap_or(it.questions);
        format!("on {place} by {:.1} points {}", 100.0 * it.seeds.difference.abs(), signed_ends(interval))
    };
    let places: Vec<String> = group.iter().map(place).collect();
    let (arm, reference) = (quoted(&group[0].arm), quoted(&group[0].reference));
    let (verdict, count) = (group[0].verdict, group[0].seeds.seeds);
    format!("{arm} is {verdict} than {reference} {} ({count} {replicates}).", places.join(", "))
}

impl StudyOutcome {
    fn replicate(&self) -> &'static str {
        self.replicates.trim_end_matches('s')
    }

    /// Each arm compared with each reference, in percentage points.
    pub fn comparisons(&self, name: &'static str, caption: &str) -> Table {
        let over = format!("over {}, 95\u{a0}%", self.replicates);
        let heads = [
            if self.replicates == "seeds" { "arm" } else { "strategy" },
            "reference",
            "benchmark",
            "difference",
            "verdict",
            &over,
            "over questions, 95\u{a0}%",
            "p, corrected",
            "detectable",
        ];
        let mut table = Table::new(name, caption, heads);
        for it in &self.comparisons {
            table.rows.push(vec![
                it.arm.as_str().into(),
                it.reference.as_str().into(),
                it.column.as_str().into(),
                TableCell::number(it.seeds.difference, points(it.seeds.difference)),
                it.told(self.replicate()).into(),
                it.seeds.interval.map_or_else(|| format!("one {}", self.replicate()), signed_ends).into(),
                signed_ends(it.questions).into(),
                TableCell::maybe(it.adjusted, |p| if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }),
                TableCell::maybe(it.detectable, percent),
            ]);
        }
        table
    }

    /// The findings, with the smallest p-values first. A difference without a verdict is not named. `between` describes the
    /// differences, such as `between arms`.
    pub fn summary(&self, between: &str) -> Vec<String> {
        let decided: Vec<&ArmComparison> = self.comparisons.iter().filter(|it| it.decided()).collect();
        let mut said: Vec<String> =
            sentences(&decided).into_iter().map(|group| sentence(&group, self.replicates)).collect();
        let (all, worth) = (self.comparisons.len(), 100.0 * WORTH);
        let open: Vec<&ArmComparison> = self.comparisons.iter().filter(|it| !it.decided()).collect();
        let single = open.iter().filter(|it| it.seeds.seeds < 2).count();
        let weak = open.iter().filter(|it| it.seeds.seeds > 1 && it.seeds.power(WORTH) < ENOUGH_POWER).count();
        let which = match (open.len(), all) {
            (0, _) => return said,
            (1, 1) => format!("the difference {between}"),
            (count, all) if count == all => format!("any of the {all} differences {between}"),
            (count, all) => format!("the other {count} of {all} differences {between}"),
        };
        let one = open.len() == 1;
        let share = |count: usize| match count == open.len() {
            true if one => "It comes".to_owned(),
            true => "All come".to_owned(),
            false => format!("{count} of them come{}", if count == 1 { "s" } else { "" }),
        };
        if single < open.len() {
            let be = if one { "it is" } else { "they are" };
            said.push(format!("No verdict on {which}: {be} not significant over {} and questions.", self.replicates));
        } else {
            said.push(format!("No verdict on {which}."));
        }
        if weak > 0 {
            said.push(format!(
                "{} from {} with a power below 50 % to detect a true difference of {worth:.0} points.",
                share(weak),
                if weak == 1 { "a comparison" } else { "comparisons" }
            ));
        }
        if single > 0 {
            let replicate = self.replicate();
            said.push(format!(
                "{} from a single {replicate}, so the effect of the {replicate} is unknown.",
                share(single)
            ));
        }
        said
    }

    /// The differences from one reference, or all if it is `None`, with one group of rows per column.
    pub fn forest(&self, title: &str, reference: Option<&str>) -> Forest {
        let row = |it: &ArmComparison| it.chart_row(it.arm.clone(), self.replicate());
        let group = |column: &String| ForestGroup {
            heading: column.clone(),
            rows: self
                .comparisons
                .iter()
                .filter(|it| reference.is_none_or(|reference| it.reference == reference) && it.column == *column)
                .map(row)
                .collect(),
        };
        let groups: Vec<ForestGroup> = self.columns.iter().map(group).filter(|group| !group.rows.is_empty()).collect();
        let legend = match groups.iter().flat_map(|group| &group.rows).any(|row| row.interval.is_some()) {
            true => "Thick bar: 95 % interval over training seeds. Thin line: over questions.",
            false => "Line: 95 % interval over questions.",
        };
        Forest {
            title: title.to_owned(),
            description: format!("Differences of accuracy, by benchmark. {legend}"),
            axis: Axis::new("difference of accuracy", "points"),
            zero: true,
            legend: legend.to_owned(),
            groups,
        }
    }
}

impl StudyCell {
    /// A row of a chart of accuracies, in percent.
    pub fn chart_row(&self, label: String) -> ForestRow {
        let Interval { low, high } = self.interval;
        ForestRow {
            label,
            value: 100.0 * self.accuracy,
            interval: None,
            second: Some(Interval { low: 100.0 * low, high: 100.0 * high }),
            note: percent(self.accuracy),
        }
    }

    /// `35.2 [31.1, 39.4] ±2.0`, in percent; the last is the standard deviation between seeds.
    pub fn shown(&self) -> TableCell {
        let between = self.between_seeds.map_or(String::new(), |sd| format!(" ±{}", percent(sd)));
        TableCell::number(self.accuracy, format!("{} {}{between}", percent(self.accuracy), ends(self.interval)))
    }
}

/// `[31.1, 39.4]`, in percent.
pub fn ends(Interval { low, high }: Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
}

pub fn signed_ends(Interval { low, high }: Interval) -> String {
    format!("[{}, {}]", points(low), points(high))
}

/// A difference in percentage points with its sign; without a sign if it rounds to zero.
pub fn points(difference: f64) -> String {
    let text = format!("{:.1}", 100.0 * difference.abs());
    match (text.as_str(), difference < 0.0) {
        ("0.0", _) => text,
        (_, true) => format!("−{text}"),
        (_, false) => format!("+{text}"),
    }
}
