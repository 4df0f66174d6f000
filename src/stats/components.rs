//! How much of the variance of accuracy comes from the strategy, its wording, the training seed and the questions.
//!
//! The design is nested and crossed: wordings are nested in strategies and seeds in wordings, and every run answers the same
//! questions. With one accuracy y for each run and question, the model is
//! y = mean + strategy + wording + seed + question + rest, all random.
//!
//! The estimates are those of the analysis of variance, with unweighted means where the design is unbalanced (Burdick and Graybill,
//! "Confidence Intervals on Variance Components", 1992). In a balanced design without negative estimates they equal those of
//! REML. The intervals of the first three components are the modified large-sample intervals of Ting, Burdick, Graybill,
//! Jeyaratnam and Lu, "Confidence intervals on linear combinations of variance components that are unrestricted in sign" (Journal
//! of Statistical Computation and Simulation 35, 1990). Those of questions and rest are jackknife intervals on a logarithmic
//! scale, because right and wrong answers are far from normally distributed.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF, FisherSnedecor};

use super::{Interval, mean, sample_std, student_quantile};

/// A variance and its 95 % interval. The estimate is 0 where the formula gives a negative one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VarianceComponent {
    pub variance: f64,
    pub interval: Interval,
}

/// The components of the variance of accuracy. A component is `None` if the design has no two of its levels to compare.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VarianceComponents {
    pub strategy: Option<VarianceComponent>,
    /// Between the wordings of a strategy.
    pub wording: Option<VarianceComponent>,
    /// Between the seeds of a wording.
    pub seed: Option<VarianceComponent>,
    pub question: VarianceComponent,
    /// What depends on both the run and the question, and chance within a question.
    pub rest: VarianceComponent,
}

/// A mean square, and its factor in a linear combination.
#[derive(Clone, Copy)]
struct MeanSquare {
    factor: f64,
    square: f64,
    df: f64,
}

/// Splits the variance of `scores`: for each strategy, for each of its wordings, for each seed, the accuracy of each question.
/// `None` if there are fewer than two runs or two questions, or no run has another seed of its wording.
///
/// # Panics
/// If a strategy has no wording, a wording no seed, or the runs have different numbers of questions.
pub fn variance_components(scores: &[Vec<Vec<Vec<f64>>>]) -> Option<VarianceComponents> {
    let runs: Vec<&[f64]> = scores.iter().flatten().flatten().map(Vec::as_slice).collect();
    let questions = runs.first()?.len();
    assert!(runs.iter().all(|run| run.len() == questions), "all runs answer the same questions");
    assert!(scores.iter().all(|wordings| !wordings.is_empty()), "a strategy without wordings");
    if questions < 2 {
        return None;
    }
    let means: Vec<Vec<Vec<f64>>> = scores
        .iter()
        .map(|wordings| wordings.iter().map(|seeds| seeds.iter().map(|it| mean(it)).collect()).collect())
        .collect();
    let squares = RunSquares::new(&means);
    let seed = squares.seed?;
    let crossed = CrossedSquares::new(&runs);
    // Of a run's mean over the questions.
    let rest = MeanSquare { factor: 1.0 / questions as f64, square: crossed.rest, df: crossed.rest_df };

    let of_seed = combination(&[seed], &[rest]);
    let of_wording = squares.wording.map(|wording| combination(&[wording], &[seed.times(squares.seed_in_wording)]));
    let of_strategy = squares.strategy.map(|strategy| {
        let Some(wording) = squares.wording else {
            return combination(&[strategy], &[seed.times(squares.seed_in_strategy)]);
        };
        let wording = wording.times(squares.wording_in_strategy);
        let left = squares.seed_in_strategy - squares.wording_in_strategy * squares.seed_in_wording;
        // Zero in a balanced design.
        match left {
            left if left > 1e-9 => combination(&[strategy], &[wording, seed.times(left)]),
            left if left < -1e-9 => combination(&[strategy, seed.times(-left)], &[wording]),
            _ => combination(&[strategy], &[wording]),
        }
    });
    let (question, rest) = jackknife(&runs);
    Some(VarianceComponents { strategy: of_strategy, wording: of_wording, seed: Some(of_seed), question, rest })
}

/// Mean squares of the runs' accuracies, and what they are expected to contain.
struct RunSquares {
    strategy: Option<MeanSquare>,
    wording: Option<MeanSquare>,
    seed: Option<MeanSquare>,
    /// The part of the seeds' mean square in that of the wordings, and in that of the strategies.
    seed_in_wording: f64,
    seed_in_strategy: f64,
    /// The part of the wordings' mean square in that of the strategies.
    wording_in_strategy: f64,
}

impl RunSquares {
    /// `means`: the accuracy of each run, by strategy and wording.
    fn new(means: &[Vec<Vec<f64>>]) -> Self {
        let of_wordings: Vec<Vec<f64>> =
            means.iter().map(|wordings| wordings.iter().map(|it| mean(it)).collect()).collect();
        let of_strategies: Vec<f64> = of_wordings.iter().map(|wordings| mean(wordings)).collect();
        let term =
            |sum: f64, df: usize| (df > 0).then(|| MeanSquare { factor: 1.0, square: sum / df as f64, df: df as f64 });
        let pooled = |groups: &mut dyn Iterator<Item = &Vec<f64>>| {
            let (mut sum, mut df) = (0.0, 0);
            for group in groups {
                let center = mean(group);
                sum += group.iter().map(|value| (value - center).powi(2)).sum::<f64>();
                df += group.len() - 1;
            }
            term(sum, df)
        };
        let count = means.len() as f64;
        let inverse = |seeds: &Vec<f64>| 1.0 / seeds.len() as f64;
        let wording_df: usize = means.iter().map(|wordings| wordings.len() - 1).sum();
        let in_wording = means
            .iter()
            .map(|wordings| (1.0 - 1.0 / wordings.len() as f64) * wordings.iter().map(inverse).sum::<f64>());
        let in_strategy =
            means.iter().map(|wordings| wordings.iter().map(inverse).sum::<f64>() / (wordings.len() as f64).powi(2));
        Self {
            strategy: pooled(&mut std::iter::once(&of_strategies)),
            wording: pooled(&mut of_wordings.iter()),
            seed: pooled(&mut means.iter().flatten()),
            seed_in_wording: in_wording.sum::<f64>() / wording_df.max(1) as f64,
            seed_in_strategy: in_strategy.sum::<f64>() / count,
            wording_in_strategy: means.iter().map(|wordings| 1.0 / wordings.len() as f64).sum::<f64>() / count,
        }
    }
}

/// Mean squares of runs and questions as two crossed factors.
struct CrossedSquares {
    question: f64,
    rest: f64,
    rest_df: f64,
}

impl CrossedSquares {
    fn new(runs: &[&[f64]]) -> Self {
        let (count, questions) = (runs.len() as f64, runs[0].len());
        let of_runs: Vec<f64> = runs.iter().map(|run| mean(run)).collect();
        let of_questions: Vec<f64> =
            (0..questions).map(|at| runs.iter().map(|run| run[at]).sum::<f64>() / count).collect();
        let center = mean(&of_runs);
        let question: f64 = of_questions.iter().map(|value| (value - center).powi(2)).sum();
        let rest: f64 = runs
            .iter()
            .zip(&of_runs)
            .flat_map(|(run, own)| {
                run.iter().zip(&of_questions).map(move |(value, of)| (value - own - of + center).powi(2))
            })
            .sum();
        let df = questions as f64 - 1.0;
        let rest_df = ((count - 1.0) * df).max(1.0);
        Self { question: count * question / df, rest: rest / rest_df, rest_df }
    }

    /// The variances of questions and rest.
    fn variances(&self, runs: usize) -> (f64, f64) {
        ((self.question - self.rest) / runs as f64, self.rest)
    }
}

/// The components of questions and rest, by leaving out each question.
fn jackknife(runs: &[&[f64]]) -> (VarianceComponent, VarianceComponent) {
    let questions = runs[0].len();
    let whole = CrossedSquares::new(runs).variances(runs.len());
    let parts: Vec<(f64, f64)> = (0..questions)
        .filter(|_| questions > 2)
        .map(|left_out| {
            let rest: Vec<Vec<f64>> = runs
                .iter()
                .map(|run| run.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, value)| *value).collect())
                .collect();
            CrossedSquares::new(&rest.iter().map(Vec::as_slice).collect::<Vec<_>>()).variances(runs.len())
        })
        .collect();
    let of = |whole: f64, part: fn(&(f64, f64)) -> f64| {
        let parts: Vec<f64> = parts.iter().map(part).collect();
        // The logarithm does not exist at zero: there the interval is on the scale of the variance.
        let is_positive = whole > 0.0 && parts.iter().all(|it| *it > 0.0);
        let to = |it: f64| if is_positive { it.ln() } else { it };
        let from = |it: f64| if is_positive { it.exp() } else { it };
        let n = questions as f64;
        let pseudo: Vec<f64> = parts.iter().map(|it| n * to(whole) - (n - 1.0) * to(*it)).collect();
        let reach = match pseudo.len() {
            0 | 1 => f64::INFINITY,
            _ => student_quantile(0.975, n - 1.0) * sample_std(&pseudo) / n.sqrt(),
        };
        let end = |value: f64| from(value).max(0.0);
        VarianceComponent {
            variance: whole.max(0.0),
            interval: Interval { low: end(to(whole) - reach), high: end(to(whole) + reach) },
        }
    };
    (of(whole.0, |it| it.0), of(whole.1, |it| it.1))
}

impl MeanSquare {
    fn times(self, factor: f64) -> Self {
        Self { factor: self.factor * factor, ..self }
    }
}

/// The variance Σ positive - Σ negative of mean squares, with its modified large-sample interval.
fn combination(positive: &[MeanSquare], negative: &[MeanSquare]) -> VarianceComponent {
    const TAIL: f64 = 0.025;
    let size = |term: &MeanSquare| term.factor * term.square;
    let estimate = positive.iter().map(size).sum::<f64>() - negative.iter().map(size).sum::<f64>();
    let (mut below, mut above) = (0.0, 0.0);
    for term in positive {
        below += (shrink(term.df, TAIL) * size(term)).powi(2);
        above += (stretch(term.df, TAIL) * size(term)).powi(2);
    }
    for term in negative {
        below += (stretch(term.df, TAIL) * size(term)).powi(2);
        above += (shrink(term.df, TAIL) * size(term)).powi(2);
    }
    for plus in positive {
        for minus in negative {
            let product = size(plus) * size(minus);
            let f = f_upper(TAIL, plus.df, minus.df);
            let (g, h) = (shrink(plus.df, TAIL), stretch(minus.df, TAIL));
            below += ((f - 1.0).powi(2) - (g * f).powi(2) - h * h) / f * product;
            let f = f_upper(1.0 - TAIL, plus.df, minus.df);
            let (h, g) = (stretch(plus.df, TAIL), shrink(minus.df, TAIL));
            above += ((1.0 - f).powi(2) - (h * f).powi(2) - g * g) / f * product;
        }
    }
    let end = |value: f64| value.max(0.0);
    let interval = Interval { low: end(estimate - below.max(0.0).sqrt()), high: end(estimate + above.max(0.0).sqrt()) };
    VarianceComponent { variance: end(estimate), interval }
}

/// 1 - 1/F, with the upper quantile F at `tail` of the F distribution with `df` and infinitely many degrees of freedom.
fn shrink(df: f64, tail: f64) -> f64 {
    1.0 - df / chi_upper(tail, df)
}

/// 1/F - 1, with the lower quantile.
fn stretch(df: f64, tail: f64) -> f64 {
    df / chi_upper(1.0 - tail, df) - 1.0
}

fn chi_upper(tail: f64, df: f64) -> f64 {
    ChiSquared::new(df).expect("degrees of freedom above 0").inverse_cdf(1.0 - tail)
}

fn f_upper(tail: f64, df: f64, other: f64) -> f64 {
    FisherSnedecor::new(df, other).expect("degrees of freedom above 0").inverse_cdf(1.0 - tail)
}
