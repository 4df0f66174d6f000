//! Strategies over their wordings, on simulated studies: whether the intervals of the variance components contain the truth, and
//! how often strategies without a difference get a verdict.

use std::collections::BTreeMap;

use rayon::prelude::*;
use rft::report::study::{ComparisonVerdict, Study, StudyArm, StudyBenchmark, comparisons, pairs};
use rft::rng::{Purpose, Stream};
use rft::stats::{Interval, VarianceComponents, normal_quantile, variance_components, wilson};
use serde_json::Value;

#[test]
fn the_components_are_those_of_reml() {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/variance_components.json")).unwrap();
    let scores: Scores = serde_json::from_value(fixture["scores"].clone()).unwrap();
    let found = variance_components(&scores).unwrap();
    let parts = [
        ("strategy", found.strategy.unwrap()),
        ("wording", found.wording.unwrap()),
        ("seed", found.seed.unwrap()),
        ("question", found.question),
        ("rest", found.rest),
    ];
    for (name, part) in parts {
        let reml = fixture["reml"][name].as_f64().unwrap();
        // The optimizer of statsmodels stops at about three digits.
        assert!((part.variance / reml - 1.0).abs() < 3e-3, "{name}: {} and {reml}", part.variance);
        assert!(part.interval.low < part.variance && part.variance < part.interval.high, "{name}: {part:?}");
    }
}

#[test]
fn a_level_that_was_not_repeated_has_no_component() {
    let run = |value: f64| vec![value, 1.0 - value, value, value];
    assert_eq!(variance_components(&[vec![vec![run(0.0)]], vec![vec![run(1.0)]]]), None, "one seed each");
    let found = variance_components(&[vec![vec![run(0.0), run(1.0)]], vec![vec![run(1.0)]]]).unwrap();
    assert!(found.strategy.is_some() && found.wording.is_none() && found.seed.is_some());
    let found = variance_components(&[vec![vec![run(0.0), run(1.0)], vec![run(1.0)]]]).unwrap();
    assert!(found.strategy.is_none() && found.wording.is_some());
    assert_eq!(variance_components(&[]), None);
    // All answers equal: nothing varies.
    let found = variance_components(&vec![vec![vec![run(1.0); 2]; 2]; 2]).unwrap();
    assert_eq!((found.strategy.unwrap().variance, found.wording.unwrap().variance), (0.0, 0.0));
    assert!(found.rest.variance.abs() < 1e-12 && found.question.interval.high.is_finite(), "{found:?}");
}

/// By strategy, wording and seed, the score of each question.
type Scores = Vec<Vec<Vec<Vec<f64>>>>;

/// The replicates of a strategy, from its wordings and their seeds.
type Replicates = fn(&[Vec<Vec<f64>>]) -> Vec<Vec<f64>>;

/// A design, and the standard deviations of the effects on accuracy.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// For each strategy, the number of seeds of each wording.
    design: &'static [&'static [u64]],
    strategy: f64,
    wording: f64,
    seed: f64,
}

const QUESTIONS: u64 = 100;
/// Questions differ by a uniform effect of at most this.
const QUESTION: f64 = 0.25;
const MEAN: f64 = 0.5;

const BALANCED: &[&[u64]] = &[&[2, 2, 2], &[2, 2, 2], &[2, 2, 2]];
const SMALL: &[&[u64]] = &[&[2, 2], &[2, 2]];
const LARGE: &[&[u64]] = &[&[3, 3, 3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3]];
const UNBALANCED: &[&[u64]] = &[&[2, 3], &[1, 2, 4, 2], &[2, 2, 3]];

const EFFECTS: [(f64, f64, f64); 5] =
    [(0.0, 0.0, 0.0), (0.06, 0.05, 0.03), (0.0, 0.05, 0.02), (0.08, 0.0, 0.03), (0.05, 0.02, 0.05)];

impl Setting {
    /// The scores of the study `draw`, by strategy, wording and seed, and the true accuracy of each run.
    fn study(&self, draw: u64) -> (Scores, Vec<f64>) {
        let mut accuracies = Vec::new();
        let normal = |place: &[u64], sd: f64| {
            sd * normal_quantile(Stream::new(draw, Purpose::Test, place).f64(0).clamp(1e-12, 1.0 - 1e-12))
        };
        let question = Stream::new(draw, Purpose::Test, &[9]);
        let mut run = |s: u64, w: u64, r: u64| -> Vec<f64> {
            let run = MEAN
                + normal(&[1, s], self.strategy)
                + normal(&[2, s, w], self.wording)
                + normal(&[3, s, w, r], self.seed);
            accuracies.push(run);
            let outcome = Stream::new(draw, Purpose::Test, &[4, s, w, r]);
            let right = |q: u64| outcome.f64(q) < run + QUESTION * (2.0 * question.f64(q) - 1.0);
            (0..QUESTIONS).map(|q| f64::from(u8::from(right(q)))).collect()
        };
        let mut scores = Vec::new();
        for (s, wordings) in (0..).zip(self.design) {
            let of = (0..).zip(*wordings).map(|(w, &seeds)| (0..seeds).map(|r| run(s, w, r)).collect());
            scores.push(of.collect());
        }
        (scores, accuracies)
    }

    /// The true variances, in the order of [`parts`]. The rest is that of these runs: their accuracies determine it.
    fn truth(&self, accuracies: &[f64]) -> [f64; 5] {
        let [strategy, wording, seed] = [self.strategy, self.wording, self.seed].map(|sd| sd * sd);
        let question = QUESTION * QUESTION / 3.0;
        let chance = accuracies.iter().map(|it| it * (1.0 - it)).sum::<f64>() / accuracies.len() as f64;
        [strategy, wording, seed, question, chance - question]
    }

    /// For each component, the number of intervals of `studies` that contain the truth.
    fn covered(&self, studies: u64) -> [usize; 5] {
        let one = |draw: u64| {
            let (scores, accuracies) = self.study(draw);
            let parts = parts(&variance_components(&scores).unwrap());
            let mut covers = [0; 5];
            for ((count, interval), truth) in covers.iter_mut().zip(parts).zip(self.truth(&accuracies)) {
                *count = usize::from(interval.low <= truth && truth <= interval.high);
            }
            covers
        };
        let add = |a: [usize; 5], b: [usize; 5]| std::array::from_fn(|at| a[at] + b[at]);
        (0..studies).into_par_iter().map(one).reduce(|| [0; 5], add)
    }

    /// The number of `studies` with a verdict between two strategies: with wordings as replicates, and with the runs of all
    /// wordings as if they were seeds of one.
    fn verdicts(&self, studies: u64) -> (usize, usize) {
        let one = |draw: u64| {
            let (scores, _) = self.study(draw);
            let arms = |replicates: Replicates| -> Vec<StudyArm> {
                let arm = |(at, wordings): (usize, &Vec<Vec<Vec<f64>>>)| StudyArm {
                    name: format!("strategy {at}"),
                    seeds: (0..).zip(replicates(wordings).into_iter().map(|it| vec![it])).collect::<BTreeMap<_, _>>(),
                };
                scores.iter().enumerate().map(arm).collect()
            };
            let decided = |arms: Vec<StudyArm>| {
                let benchmarks = vec![StudyBenchmark { name: "bench".into(), samples: 1 }];
                let study = Study { benchmarks, arms };
                let found = comparisons(&study, &pairs(&study, &[]), 200, draw).unwrap();
                usize::from(found.iter().any(|it| !matches!(it.verdict, ComparisonVerdict::None { .. })))
            };
            let wordings = |wordings: &[Vec<Vec<f64>>]| -> Vec<Vec<f64>> {
                let mean = |seeds: &Vec<Vec<f64>>| -> Vec<f64> {
                    let count = seeds.len() as f64;
                    (0..seeds[0].len()).map(|q| seeds.iter().map(|seed| seed[q]).sum::<f64>() / count).collect()
                };
                wordings.iter().map(mean).collect()
            };
            let pooled = |wordings: &[Vec<Vec<f64>>]| -> Vec<Vec<f64>> { wordings.iter().flatten().cloned().collect() };
            (decided(arms(wordings)), decided(arms(pooled)))
        };
        (0..studies).into_par_iter().map(one).reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }
}

fn parts(found: &VarianceComponents) -> [Interval; 5] {
    let parts = [found.strategy.unwrap(), found.wording.unwrap(), found.seed.unwrap(), found.question, found.rest];
    parts.map(|it| it.interval)
}

/// At least 93 % of the intervals contain the truth, as far as `studies` can tell, and not more than 97 % where the component is
/// clearly positive.
fn check_coverage(setting: &Setting, studies: u64) {
    let covered = setting.covered(studies);
    let shares: Vec<String> =
        covered.iter().map(|count| format!("{:.1}", 100.0 * *count as f64 / studies as f64)).collect();
    println!("{setting:?}: coverage of strategy, wording, seed, question, rest: {} %", shares.join(", "));
    for (at, count) in covered.into_iter().enumerate() {
        let interval = wilson(count, studies as usize, 0.999);
        assert!(interval.high >= 0.93, "{setting:?}, component {at}: {count} of {studies}");
        assert!(at < 3 || interval.low <= 0.97, "{setting:?}, component {at}: {count} of {studies}");
    }
}

/// At most 5 % of studies without a difference between strategies have a verdict, as far as `studies` can tell.
fn check_verdicts(setting: &Setting, studies: u64) {
    let (verdicts, pooled) = setting.verdicts(studies);
    let percent = |count: usize| 100.0 * count as f64 / studies as f64;
    println!(
        "{setting:?}: false verdicts between strategies {:.1} %, with wordings ignored {:.1} %",
        percent(verdicts),
        percent(pooled)
    );
    assert!(wilson(verdicts, studies as usize, 0.95).low <= 0.05, "{setting:?}: {verdicts} of {studies}");
    assert!(pooled > verdicts, "ignoring the wordings must be worse: {pooled} and {verdicts}");
}

fn settings(designs: &[&'static [&'static [u64]]]) -> Vec<Setting> {
    let of = |&design: &&'static [&'static [u64]]| {
        EFFECTS.map(|(strategy, wording, seed)| Setting { design, strategy, wording, seed })
    };
    designs.iter().flat_map(of).collect()
}

fn null(design: &'static [&'static [u64]]) -> Setting {
    Setting { design, strategy: 0.0, wording: 0.06, seed: 0.02 }
}

#[test]
fn intervals_of_components_cover_the_truth() {
    for setting in settings(&[BALANCED, UNBALANCED]) {
        check_coverage(&setting, 300);
    }
}

#[test]
fn strategies_without_a_difference_rarely_get_a_verdict() {
    check_verdicts(&null(BALANCED), 300);
}

/// The rates in docs/reports.md, by `scripts/verdict-rates.sh`.
#[test]
#[ignore = "takes minutes; scripts/verdict-rates.sh runs it"]
fn rates_of_many_studies() {
    for setting in settings(&[SMALL, BALANCED, LARGE, UNBALANCED]) {
        check_coverage(&setting, 4000);
    }
    for design in [SMALL, BALANCED, LARGE] {
        check_verdicts(&null(design), 4000);
    }
}
