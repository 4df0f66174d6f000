//! The statistics equal SciPy's and statsmodels' to 1e-9, and have the stated coverage, error rate and power.
//! `tests/oracle/stats.py` writes the fixture.

use rft::behavior::agreement::ConfusionCounts;
use rft::rng::{Purpose, Stream};
use rft::stats::{
    KnownSpread, bootstrap_mean, compare_means, compare_seeds, compare_unpaired, detectable_difference, holm, majority,
    mcnemar_exact, mean, normal_cdf, paired_t_power, pass_at_k, sign_flip, student_cdf, student_quantile, wilson,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    pass_at_k: Vec<(usize, usize, usize, f64)>,
    majority: Vec<(Vec<Option<u32>>, Option<u32>)>,
    wilson: Vec<(usize, usize, f64, f64, f64)>,
    mcnemar_exact: Vec<(usize, usize, f64)>,
    normal: Vec<(f64, f64)>,
    student: Student,
    holm: Vec<(Vec<f64>, Vec<f64>)>,
    kappa: Vec<(Vec<u32>, Vec<u32>, f64)>,
    power: Power,
    paired_t: Vec<(Vec<f64>, f64, f64, f64)>,
    sign_flip: Vec<(Vec<f64>, f64)>,
    unpaired: Vec<(usize, usize, usize, usize, f64, f64, f64)>,
}

#[derive(Deserialize)]
struct Student {
    cdf: Vec<(f64, f64, f64)>,
    quantile: Vec<(f64, f64, f64)>,
}

#[derive(Deserialize)]
struct Power {
    power: Vec<(f64, usize, f64, f64)>,
    detectable: Vec<(usize, f64, f64)>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/stats.json")).unwrap()
}

#[track_caller]
fn near(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "expected {expected}, found {got}");
}

#[test]
fn several_samples_per_question() {
    let fixture = fixture();
    assert!(fixture.pass_at_k.len() > 50 && fixture.majority.len() == 30);
    for (n, correct, k, expected) in fixture.pass_at_k {
        near(pass_at_k(n, correct, k).unwrap(), expected, 1e-12);
    }
    for (answers, expected) in fixture.majority {
        let winner = majority(&answers).and_then(|index| answers[index]);
        assert_eq!(winner, expected, "{answers:?}");
    }
}

#[test]
fn intervals_and_tests() {
    let fixture = fixture();
    for (successes, n, level, low, high) in fixture.wilson {
        let got = wilson(successes, n, level);
        near(got.low, low, 1e-9);
        near(got.high, high, 1e-9);
    }
    for (only_first, only_second, p) in fixture.mcnemar_exact {
        near(mcnemar_exact(only_first, only_second), p, 1e-9);
    }
    for (c1, n1, c2, n2, low, high, p) in fixture.unpaired {
        let got = compare_unpaired((c1, n1), (c2, n2), 0.95);
        near(got.interval.low, low, 1e-9);
        near(got.interval.high, high, 1e-9);
        near(got.p_value, p, 1e-9);
    }
    for (differences, low, high, p) in fixture.paired_t {
        let got = compare_seeds(&differences, KnownSpread::default());
        near(got.interval.unwrap().low, low, 1e-9);
        near(got.interval.unwrap().high, high, 1e-9);
        near(got.p_value.unwrap(), p, 1e-9);
    }
    for (differences, p) in fixture.sign_flip {
        // Random sign changes here, all of them in the reference: a tolerance of four standard errors of a share.
        near(sign_flip(&differences, 50_000, 1), p, 4.0 * (p * (1.0 - p) / 50_000.0).sqrt() + 2e-5);
    }
}

#[test]
fn distributions() {
    let fixture = fixture();
    for (z, expected) in fixture.normal {
        near(normal_cdf(z), expected, 1e-9 * expected);
    }
    for (t, df, expected) in fixture.student.cdf {
        near(student_cdf(t, df), expected, 1e-9);
    }
    for (p, df, expected) in fixture.student.quantile {
        near(student_quantile(p, df), expected, 1e-9 * expected.abs().max(1.0));
    }
}

#[test]
fn many_comparisons_agreement_and_power() {
    let fixture = fixture();
    for (p_values, expected) in fixture.holm {
        holm(&p_values).iter().zip(&expected).for_each(|(&got, &expected)| near(got, expected, 1e-12));
    }
    for (first, second, expected) in fixture.kappa {
        let mut tally = ConfusionCounts::default();
        first.iter().zip(&second).for_each(|(&first, &second)| tally.add(first == 1, second == 1));
        near(tally.kappa().unwrap(), expected, 1e-12);
    }
    for (effect, n, alpha, expected) in fixture.power.power {
        near(paired_t_power(effect, n, alpha), expected, 1e-9);
    }
    for (n, alpha, expected) in fixture.power.detectable {
        near(detectable_difference(1.0, n, alpha, 0.8).unwrap(), expected, 1e-9);
    }
}

/// A model of two arms, from which the accuracies of each study are sampled.
struct World {
    questions: usize,
    /// Standard deviation between seeds of the difference of the arms' true accuracies.
    between: f64,
    /// True mean difference over seeds.
    difference: f64,
}

impl World {
    /// The difference of the arms on each question, for each seed. Both arms solve a question with a probability of 0.2 to
    /// 0.8, shifted for the second arm by the difference and by the seed.
    fn study(&self, seeds: usize, stream: &Stream) -> Vec<Vec<f64>> {
        (0..seeds as u64)
            .map(|seed| {
                let moved = self.difference + self.between * stream.normal(seed);
                let solved = |question: u64| {
                    let draw = |arm: u64| {
                        let [a, b, ..] = stream.block(question, 2 + 2 * seed + arm);
                        f64::from(a) / 2f64.powi(32) + f64::from(b) / 2f64.powi(64)
                    };
                    let chance = 0.2 + 0.6 * question as f64 / (self.questions - 1) as f64;
                    f64::from(draw(1) < chance + moved) - f64::from(draw(0) < chance)
                };
                (0..self.questions as u64).map(solved).collect()
            })
            .collect()
    }
}

fn over_questions(study: &[Vec<f64>]) -> Vec<f64> {
    study.iter().map(|differences| mean(differences)).collect()
}

fn over_seeds(study: &[Vec<f64>]) -> Vec<f64> {
    (0..study[0].len())
        .map(|question| study.iter().map(|seed| seed[question]).sum::<f64>() / study.len() as f64)
        .collect()
}

#[test]
fn seed_intervals_cover() {
    let world = World { questions: 40, between: 0.03, difference: 0.02 };
    for (seeds, studies) in [(3, 8_000), (5, 6_000), (10, 2_000)] {
        let covers = |study: &u64| {
            let stream = Stream::new(17, Purpose::Test, &[seeds as u64, *study]);
            let interval =
                compare_seeds(&over_questions(&world.study(seeds, &stream)), KnownSpread::default()).interval.unwrap();
            interval.low <= world.difference && world.difference <= interval.high
        };
        let share = (0..studies).filter(covers).count() as f64 / studies as f64;
        println!("{seeds} seeds: {:.2} % covered", 100.0 * share);
        assert!((0.94..=0.96).contains(&share), "{seeds} seeds: {share}");
    }
}

/// Questions sampled from a population, in the numbers of AIME and AMC, with several completions each.
#[test]
fn question_intervals_cover() {
    for (questions, samples, studies) in [(30, 8u32, 3_000), (83, 4, 1_500)] {
        let covers = |study: &u64| {
            let stream = Stream::new(23, Purpose::Test, &[questions, *study]);
            // The probabilities of solving a question are uniform in [0.1, 0.9], with mean 0.5.
            let solved = |question: u64| {
                let chance = 0.1 + 0.8 * stream.f64(question);
                let right = |sample: &u32| stream.f64(1_000 * u64::from(*sample + 1) + question) < chance;
                (0..samples).filter(right).count() as f64 / f64::from(samples)
            };
            let means: Vec<f64> = (0..questions).map(solved).collect();
            let interval = bootstrap_mean(&means, 600, 0.95, *study);
            interval.low <= 0.5 && 0.5 <= interval.high
        };
        let share = (0..studies).filter(covers).count() as f64 / studies as f64;
        println!("{questions} questions: {:.2} % covered", 100.0 * share);
        assert!((0.94..=0.96).contains(&share), "{questions} questions: {share}");
    }
}

/// Studies of six arms on five benchmarks without any true difference from the reference: the share of studies with at least one
/// false verdict. Three seeds often differ from the reference by the same number of questions, and the t test then has no spread.
/// A verdict therefore uses the larger of two p-values, over seeds and over questions.
#[test]
fn null_studies_give_no_verdicts() {
    let studies = 1_000;
    let world = World { questions: 40, between: 0.03, difference: 0.0 };
    for seeds in [3, 5] {
        let (mut seeds_alone, mut both) = (0, 0);
        for study in 0..studies {
            let comparisons: Vec<Vec<Vec<f64>>> = (0..30)
                .map(|arm| world.study(seeds, &Stream::new(29, Purpose::Test, &[seeds as u64, study, arm])))
                .collect();
            let over = |differences: &Vec<Vec<f64>>| {
                compare_seeds(&over_questions(differences), KnownSpread::default()).p_value.unwrap()
            };
            let mut p_values: Vec<f64> = comparisons.iter().map(over).collect();
            seeds_alone += u32::from(holm(&p_values).iter().any(|&p| p <= 0.05));
            // An uncorrected p-value above 0.05 cannot become a verdict.
            for (p, differences) in p_values.iter_mut().zip(&comparisons).filter(|(p, _)| **p <= 0.05) {
                *p = p.max(sign_flip(&over_seeds(differences), 2_000, study));
            }
            both += u32::from(holm(&p_values).iter().any(|&p| p <= 0.05));
        }
        println!(
            "{seeds} seeds: of {studies} null studies {seeds_alone} by seeds alone, {both} by seeds and questions"
        );
        assert!(both <= 50, "{seeds} seeds: {both} of {studies}");
    }
}

/// The detectable difference is detected in 80 of 100 studies.
#[test]
fn stated_power_is_reached() {
    let studies = 4_000;
    let between: f64 = 0.03;
    for seeds in [3, 5, 9] {
        let difference = detectable_difference(between, seeds, 0.05, 0.8).unwrap();
        let found = |study: &u64| {
            let stream = Stream::new(31, Purpose::Test, &[seeds as u64, *study]);
            let differences: Vec<f64> =
                (0..seeds as u64).map(|seed| difference + between * stream.normal(seed)).collect();
            compare_seeds(&differences, KnownSpread::default()).p_value.unwrap() <= 0.05
        };
        let share = (0..studies).filter(found).count() as f64 / studies as f64;
        println!("{seeds} seeds, {:.1} points: found in {:.1} %", 100.0 * difference, 100.0 * share);
        assert!((share - 0.8).abs() < 0.016, "{seeds} seeds: {share}");
    }
}

/// The same for questions, with the size of AMC: 83 questions, four completions each.
#[test]
fn stated_power_over_questions_is_reached() {
    let (questions, studies) = (83u64, 400);
    let spread = 0.25;
    let difference = detectable_difference(spread, questions as usize, 0.05, 0.8).unwrap();
    let found = |study: &u64| {
        let stream = Stream::new(37, Purpose::Test, &[*study]);
        let second: Vec<f64> = (0..questions).map(|question| difference + spread * stream.normal(question)).collect();
        sign_flip(&second, 1_000, *study) <= 0.05
    };
    let share = (0..studies).filter(found).count() as f64 / studies as f64;
    assert!((share - 0.8).abs() < 0.05, "{share}");
    // A comparison calculates it from its own spread.
    let stream = Stream::new(41, Purpose::Test, &[]);
    let second: Vec<f64> = (0..questions).map(|question| spread * stream.normal(question)).collect();
    let stated = compare_means(&vec![0.0; second.len()], &second, 0).detectable.unwrap();
    assert!((stated / difference - 1.0).abs() < 0.2, "{stated} {difference}");
}
