//! What can be concluded from published percentages, and where a published table contradicts itself.
//!
//! A table of percentages with the sizes of its benchmarks gives the number of questions each model solved, but neither which
//! questions nor how another training run would have scored. Each difference is therefore tested twice. The first test treats
//! the scores as independent samples, as if the two models had answered different questions. The second is the exact McNemar
//! test at the most favorable pairing, in which one model solves every question that the other solves: a difference that is not
//! significant then is not significant under any pairing. Between the two, only results of single questions could decide.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stats::{Interval, compare_unpaired, holm, mcnemar_bounds, mean, normal_cdf, normal_quantile};

/// Name of the column with the mean of the others.
pub const AVERAGE: &str = "Avg.";

/// Upper bound on the rounding error of an average of five scores, all printed with two decimals.
const ROUNDING: f64 = 0.011;

/// Tables of accuracies over the same benchmarks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub source: String,
    pub benchmarks: Vec<PaperBenchmark>,
    #[serde(rename = "table")]
    pub tables: Vec<PaperTable>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperBenchmark {
    pub name: String,
    pub questions: usize,
}

/// The rows of one model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperTable {
    pub model: String,
    pub rows: Vec<PaperRow>,
}

/// Percentages as printed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperRow {
    pub name: String,
    pub scores: Vec<f64>,
    pub average: f64,
}

/// An average that is not the mean of its row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrongAverage {
    pub model: String,
    pub row: String,
    pub printed: f64,
    /// Mean of the row's scores.
    pub actual: f64,
}

/// Whether a difference exceeds the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Significant as independent samples, corrected for the number of comparisons.
    Beyond,
    /// Not significant under any pairing of the questions.
    Within,
    /// Depends on which questions were solved, which cannot be determined from percentages.
    Open,
}

/// One row against another on one benchmark or the average, in percentage points.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub row: String,
    pub reference: String,
    pub column: String,
    pub points: f64,
    /// 95 %, as independent samples.
    pub interval: Interval,
    pub p_value: f64,
    /// Adjusted with Holm's method over the rows and columns that were compared with the same reference.
    pub adjusted: f64,
    /// The smallest p-value that a pairing of the questions could give.
    pub best_p_value: f64,
    pub noise: Noise,
}

impl Published {
    /// The results of "Prior Prompt Engineering for Reinforcement Fine-Tuning".
    pub fn of_the_paper() -> Self {
        toml::from_str(include_str!("paper.toml")).expect("the embedded table is valid")
    }

    /// Averages whose error is larger than rounding, such as the paper's `No PP`: printed 45.41, but the mean of the row is 45.89.
    pub fn wrong_averages(&self) -> Vec<WrongAverage> {
        let rows = self.tables.iter().flat_map(|table| table.rows.iter().map(move |row| (&table.model, row)));
        rows.map(|(model, row)| WrongAverage {
            model: model.clone(),
            row: row.name.clone(),
            printed: row.average,
            actual: mean(&row.scores),
        })
        .filter(|row| (row.printed - row.actual).abs() > ROUNDING)
        .collect()
    }

    /// Compares every other row whose name starts with `prefix` with `reference`, on each benchmark and on the average. `None` if
    /// the table does not have the row `reference`.
    pub fn compare(&self, table: &PaperTable, reference: &str, prefix: &str) -> Option<Vec<Difference>> {
        let base = table.rows.iter().find(|row| row.name == reference)?;
        let rows = table.rows.iter().filter(|row| row.name != reference && row.name.starts_with(prefix));
        let mut differences: Vec<Difference> = rows.flat_map(|row| self.row_against(row, base)).collect();
        let p_values: Vec<f64> = differences.iter().map(|difference| difference.p_value).collect();
        for (difference, adjusted) in differences.iter_mut().zip(holm(&p_values)) {
            difference.adjusted = adjusted;
            difference.noise = match () {
                () if difference.best_p_value > 0.05 => Noise::Within,
                () if adjusted <= 0.05 => Noise::Beyond,
                () => Noise::Open,
            };
        }
        Some(differences)
    }

    fn row_against<'a>(&'a self, row: &'a PaperRow, base: &'a PaperRow) -> impl Iterator<Item = Difference> + 'a {
        let difference = |column: &str, points, interval, p_value, best_p_value| Difference {
            row: row.name.clone(),
            reference: base.name.clone(),
            column: column.into(),
            points,
            interval,
            p_value,
            adjusted: 1.0,
            best_p_value,
            noise: Noise::Open,
        };
        let single = self.benchmarks.iter().enumerate().map(move |(i, benchmark)| {
            let n = benchmark.questions;
            let (first, second) = (solved(base.scores[i], n), solved(row.scores[i], n));
            let found = compare_unpaired((first, n), (second, n), 0.95);
            let interval = Interval { low: 100.0 * found.interval.low, high: 100.0 * found.interval.high };
            let (best, _) = mcnemar_bounds(first, second, n);
            difference(&benchmark.name, 100.0 * found.difference, interval, found.p_value, best)
        });
        let (points, error, best_error) = self.average_difference(row, base);
        let reach = normal_quantile(0.975) * error;
        let interval = Interval { low: points - reach, high: points + reach };
        let average = difference(AVERAGE, points, interval, two_sided(points, error), two_sided(points, best_error));
        single.chain([average])
    }

    /// Difference of the averages in points, and its standard errors: as independent samples, and at the most favorable pairing. A
    /// share p of n questions has variance p (1 - p) / n; two shares that differ by d on the same questions differ on at least
    /// |d| n of them, so that the variance of d is at least (|d| - d^2) / n.
    fn average_difference(&self, row: &PaperRow, base: &PaperRow) -> (f64, f64, f64) {
        let (mut difference, mut variance, mut least) = (0.0, 0.0, 0.0);
        for (benchmark, (first, second)) in self.benchmarks.iter().zip(base.scores.iter().zip(&row.scores)) {
            let n = benchmark.questions as f64;
            let share = |percent: f64| solved(percent, benchmark.questions) as f64 / n;
            let (p, q) = (share(*first), share(*second));
            let d = q - p;
            difference += d;
            variance += (p * (1.0 - p) + q * (1.0 - q)) / n;
            least += (d.abs() - d * d) / n;
        }
        let scale = 100.0 / self.benchmarks.len() as f64;
        (scale * difference, scale * variance.sqrt(), scale * least.sqrt())
    }

    /// The conclusions from the tables, as sentences.
    pub fn findings(&self) -> Vec<String> {
        let mut said: Vec<String> = self.wrong_averages().iter().map(ToString::to_string).collect();
        for table in &self.tables {
            for (reference, prefix) in
                [("base", "iPE"), ("base", "pPE"), ("base", "No PP"), ("No PP", "pPE"), ("pPE Think", "pPE")]
            {
                let differences = self.compare(table, reference, prefix).unwrap_or_default();
                if !differences.is_empty() {
                    said.push(sentence(&table.model, reference, prefix, &differences));
                }
            }
        }
        said.push(
            "Each row is a single training run, so these figures do not show how another seed would score.".into(),
        );
        said
    }
}

/// The number of `questions` that a printed percentage stands for.
fn solved(percent: f64, questions: usize) -> usize {
    (percent / 100.0 * questions as f64).round() as usize
}

fn two_sided(difference: f64, error: f64) -> f64 {
    if difference == 0.0 { 1.0 } else { 2.0 * normal_cdf(-(difference / error).abs()) }
}

fn sentence(model: &str, reference: &str, prefix: &str, differences: &[Difference]) -> String {
    let of = |noise| differences.iter().filter(move |difference| difference.noise == noise);
    let named: Vec<String> =
        of(Noise::Beyond).map(|it| format!("{} {} {:+.1}", it.row, it.column, it.points)).collect();
    let named = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
    format!(
        "{model}, {prefix} compared with {reference}: of {} differences, {} {} beyond noise{named}, {} {} within noise for every pairing \
         of the questions, and {} cannot be decided from percentages.",
        differences.len(),
        of(Noise::Beyond).count(),
        are(of(Noise::Beyond).count()),
        of(Noise::Within).count(),
        are(of(Noise::Within).count()),
        of(Noise::Open).count(),
    )
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

impl fmt::Display for WrongAverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, row, printed, actual } = self;
        write!(f, "{model}, {row}: the printed average is {printed:.2}, but the mean of the row is {actual:.2}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every printed score corresponds to a whole number of questions, so the transcript and the sizes are right. HumanEval+ is
    /// printed with one decimal.
    #[test]
    fn scores_are_whole_numbers_of_questions() {
        let paper = Published::of_the_paper();
        let rows: Vec<&PaperRow> = paper.tables.iter().flat_map(|table| &table.rows).collect();
        assert_eq!(rows.len(), 27);
        for row in rows {
            assert_eq!(row.scores.len(), paper.benchmarks.len());
            for (score, benchmark) in row.scores.iter().zip(&paper.benchmarks) {
                let n = benchmark.questions;
                let off = (100.0 * solved(*score, n) as f64 / n as f64 - score).abs();
                let rounding = if benchmark.name == "HE+" { 0.0501 } else { 0.0051 };
                assert!(off < rounding, "{} {} {score}", row.name, benchmark.name);
            }
        }
    }

    #[test]
    fn one_average_is_wrong() {
        let wrong = Published::of_the_paper().wrong_averages();
        assert_eq!(wrong.len(), 1);
        assert_eq!((wrong[0].row.as_str(), wrong[0].printed), ("No PP", 45.41));
        assert!((wrong[0].actual - 45.886).abs() < 1e-9);
        let said = "Qwen2.5-7B, No PP: the printed average is 45.41, but the mean of the row is 45.89.";
        let findings = Published::of_the_paper().findings();
        assert_eq!(findings[0], said);
        println!("{}", findings.join("\n"));
    }

    #[test]
    fn no_difference_between_arms_is_beyond_noise() {
        let paper = Published::of_the_paper();
        let arms = paper.compare(&paper.tables[0], "pPE Think", "pPE").unwrap();
        assert_eq!(arms.len(), 4 * 6);
        assert!(arms.iter().all(|difference| difference.noise != Noise::Beyond));
        let examples = arms.iter().find(|it| it.row == "pPE Examples" && it.column == AVERAGE).unwrap();
        assert!((examples.points - 0.606).abs() < 0.02 && examples.noise == Noise::Within, "{examples:?}");
        // The average of one run has a standard error of about 2.1 points, a difference of two runs about 3.
        let error = (examples.interval.high - examples.interval.low) / (2.0 * 1.959_964);
        assert!((2.6..3.2).contains(&error), "{error}");
    }

    #[test]
    fn only_on_math_training_is_better_than_the_base() {
        let paper = Published::of_the_paper();
        let arms = paper.compare(&paper.tables[0], "base", "pPE").unwrap();
        let beyond: Vec<_> = arms.iter().filter(|it| it.noise == Noise::Beyond).map(|it| it.column.as_str()).collect();
        assert_eq!(beyond, ["MATH"; 5]);
        // +13 of 198 questions, the paper's highlighted result on GPQA: it depends on how the questions pair.
        let gpqa = arms.iter().find(|it| it.row == "pPE Examples" && it.column == "GPQA").unwrap();
        assert_eq!(gpqa.noise, Noise::Open);
        assert!((gpqa.points - 6.5657).abs() < 1e-3 && gpqa.p_value > 0.1 && gpqa.best_p_value < 0.001);
        assert!(paper.compare(&paper.tables[1], "No PP", "pPE").is_none());
    }
}
