//! Verdicts on simulated studies: how often arms without a difference get one, and how often intervals contain the truth. The
//! ends of the scale count, because many studies of trained models are there.

use std::collections::BTreeMap;

use rayon::prelude::*;
use rft::report::study::{ArmComparison, ComparisonVerdict, Study, StudyArm, StudyBenchmark, comparisons, pairs};
use rft::rng::{Purpose, Stream};
use rft::stats::{KnownSpread, compare_seeds, holm, mean, wilson};

/// A resample costs the simulation most of its time. The smallest p-value of a sign-flip test with 200 is 0.005.
const RESAMPLES: usize = 200;

/// True accuracies of the arms, and how much training seeds change them.
struct Setting {
    accuracies: &'static [f64],
    seeds: u64,
    /// The wrong answers of a seed are those of the arm times 1 +- this, uniform.
    spread: f64,
}

#[derive(Default)]
struct Counts {
    studies: usize,
    /// Studies with a verdict on two arms without a true difference.
    false_verdicts: usize,
    /// The same with a plain t test, whose variance is that of the seeds alone, and with a required power of 50 %.
    plain_false_verdicts: usize,
    comparisons: usize,
    covered: usize,
    plain_covered: usize,
    /// True differences of at least 5 points, and those of them with a verdict.
    differences: usize,
    found: usize,
    plain_found: usize,
}

impl Counts {
    fn add(mut self, other: Self) -> Self {
        self.studies += other.studies;
        self.false_verdicts += other.false_verdicts;
        self.plain_false_verdicts += other.plain_false_verdicts;
        self.comparisons += other.comparisons;
        self.covered += other.covered;
        self.plain_covered += other.plain_covered;
        self.differences += other.differences;
        self.found += other.found;
        self.plain_found += other.plain_found;
        self
    }

    fn coverage(&self) -> f64 {
        self.covered as f64 / self.comparisons as f64
    }
}

const QUESTIONS: u64 = 100;

impl Setting {
    /// The share of wrong answers to a question: from 0.4 to 1.6 times the arm's mean, so that questions differ.
    fn wrong(&self, arm: usize, question: u64) -> f64 {
        (1.0 - self.accuracies[arm]) * (0.4 + 1.2 * question as f64 / (QUESTIONS - 1) as f64)
    }

    fn study(&self, draw: u64) -> Study {
        let arm = |arm: usize| {
            let results = |seed: u64| {
                let stream = Stream::new(draw, Purpose::Test, &[arm as u64, seed]);
                let moved = 1.0 + self.spread * (2.0 * stream.f64(1_000_000) - 1.0);
                let right = |question| f64::from(u8::from(stream.f64(question) >= moved * self.wrong(arm, question)));
                vec![(0..QUESTIONS).map(right).collect()]
            };
            StudyArm { name: format!("arm {arm}"), seeds: (1..=self.seeds).map(|seed| (seed, results(seed))).collect() }
        };
        let benchmarks = vec![StudyBenchmark { name: "bench".into(), samples: 1 }];
        Study { benchmarks, arms: (0..self.accuracies.len()).map(arm).collect() }
    }

    fn one(&self, draw: u64) -> Counts {
        let study = self.study(draw);
        let found = comparisons(&study, &pairs(&study, &[]), RESAMPLES, draw).unwrap();
        let accuracy = |name: &str| self.accuracies[name[4..].parse::<usize>().unwrap()];
        let truth = |it: &ArmComparison| accuracy(&it.arm) - accuracy(&it.reference);
        let plain: Vec<_> =
            found.iter().map(|it| compare_seeds(&over_seeds(&study, it), KnownSpread::default())).collect();
        let larger: Vec<f64> =
            found.iter().zip(&plain).map(|(it, plain)| it.question_p_value.max(plain.p_value.unwrap())).collect();
        let mut counts = Counts { studies: 1, ..Counts::default() };
        for ((it, plain), adjusted) in found.iter().zip(&plain).zip(holm(&larger)) {
            let truth = truth(it);
            let decided = !matches!(it.verdict, ComparisonVerdict::None { .. });
            let plainly = adjusted <= 0.05 && plain.power(0.05) >= 0.5;
            if truth == 0.0 {
                counts.false_verdicts |= usize::from(decided);
                counts.plain_false_verdicts |= usize::from(plainly);
            }
            if truth.abs() >= 0.05 {
                counts.differences += 1;
                counts.found += usize::from(decided);
                counts.plain_found += usize::from(plainly);
            }
            let covers =
                |interval: rft::stats::Interval| interval.low <= truth + 1e-12 && truth <= interval.high + 1e-12;
            counts.comparisons += 1;
            counts.covered += usize::from(covers(it.seeds.interval.unwrap()));
            counts.plain_covered += usize::from(covers(plain.interval.unwrap()));
        }
        counts
    }

    /// Simulates `studies` and prints a row.
    fn run(&self, studies: u64) -> Counts {
        let counts = (0..studies).into_par_iter().map(|draw| self.one(draw)).reduce(Counts::default, Counts::add);
        let percent = |part: usize, whole: usize| {
            if whole == 0 { "-".to_owned() } else { format!("{:.1}", 100.0 * part as f64 / whole as f64) }
        };
        println!(
            "{:?} seeds {} spread {}: false verdicts {} (before {}), coverage {} (before {}), found {} (before {})",
            self.accuracies,
            self.seeds,
            self.spread,
            percent(counts.false_verdicts, counts.studies),
            percent(counts.plain_false_verdicts, counts.studies),
            percent(counts.covered, counts.comparisons),
            percent(counts.plain_covered, counts.comparisons),
            percent(counts.found, counts.differences),
            percent(counts.plain_found, counts.differences),
        );
        counts
    }
}

/// The difference of a comparison at each seed.
fn over_seeds(study: &Study, it: &ArmComparison) -> Vec<f64> {
    let of = |name: &str| -> BTreeMap<u64, f64> {
        let arm = study.arms.iter().find(|arm| arm.name == name).unwrap();
        arm.seeds.iter().map(|(seed, results)| (*seed, mean(&results[0]))).collect()
    };
    let (first, second) = (of(&it.reference), of(&it.arm));
    first.iter().map(|(seed, value)| second[seed] - value).collect()
}

const EQUAL: [&[f64]; 4] = [&[0.5, 0.5, 0.5], &[0.9, 0.9, 0.9], &[0.97, 0.97, 0.97], &[0.995, 0.995, 0.995]];
const DIFFERENT: [&[f64]; 3] = [&[0.9, 0.95, 1.0], &[0.97, 0.98, 0.99, 1.0], &[1.0, 1.0, 0.76]];

/// The rate of false verdicts is at most 5 %, and intervals cover at least 93 %, as far as `studies` can tell.
fn check(settings: &[&'static [f64]], seeds: &[u64], spreads: &[f64], studies: u64) {
    for &accuracies in settings {
        for &seeds in seeds {
            for &spread in spreads {
                // Shares above 1 do not exist.
                let spread = if accuracies.iter().any(|it| *it < 0.8) { spread / 4.0 } else { spread };
                let counts = Setting { accuracies, seeds, spread }.run(studies);
                let rate = wilson(counts.false_verdicts, counts.studies, 0.95);
                assert!(rate.low <= 0.05, "{accuracies:?}, {seeds} seeds, spread {spread}: false verdicts {rate:?}");
                assert!(
                    counts.coverage() >= 0.93,
                    "{accuracies:?}, {seeds} seeds, spread {spread}: coverage {}",
                    counts.coverage()
                );
            }
        }
    }
}

#[test]
fn simulated_studies_have_few_false_verdicts_and_covering_intervals() {
    check(&[EQUAL[1]], &[2, 3], &[0.8], 400);
    check(&DIFFERENT[..1], &[2], &[0.0], 400);
}

#[test]
#[ignore = "scripts/verdict-rates.sh runs it"]
fn many_simulated_studies() {
    check(&EQUAL, &[2, 3, 5], &[0.0, 0.8], 4_000);
    check(&DIFFERENT, &[2, 3, 4, 5], &[0.0, 0.8], 4_000);
}
