//! The share of an arm's gain that remains without its prompt, with confidence sets for other seeds and other questions.

use serde::Serialize;

use super::{Paired, means};
use crate::stats::{PairSpread, RatioSet, ratio_over_questions, ratio_over_seeds};

/// The gain of an arm without its prompt, as a share of its gain with it, on one benchmark or the average.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetainedShare {
    pub column: String,
    pub gain_with: f64,
    pub gain_without: f64,
    /// `None` if the gain with the prompt is zero.
    pub share: Option<f64>,
    /// The 95 % set for other training runs; `None` for a single seed.
    pub seeds: Option<RatioSet>,
    /// The 95 % set for other questions.
    pub questions: RatioSet,
}

/// The shares of several arms in each column. Each arm has its gain without the prompt and its gain with it, over the same seeds.
pub fn retained_shares(gains: &[[Paired<'_>; 2]], columns: &[String]) -> Vec<Vec<RetainedShare>> {
    let pairs = |arm: usize, column: usize| -> Vec<[f64; 2]> {
        let [without, with] = &gains[arm];
        without.seeds.iter().zip(&with.seeds).map(|(without, with)| [without[column], with[column]]).collect()
    };
    let others = |arm: usize, column: usize| {
        let rest = (0..gains.len()).filter(|&at| at != arm && gains[at][0].seeds.len() > 1);
        PairSpread::mean(&rest.map(|at| PairSpread::of(&pairs(at, column))).collect::<Vec<_>>())
    };
    let share = |arm: usize, column: usize| {
        let [without, with] = &gains[arm];
        let of_benchmark = |at: usize| -> Vec<[f64; 2]> {
            without.questions[at].iter().zip(&with.questions[at]).map(|(without, with)| [*without, *with]).collect()
        };
        let benchmarks = without.questions.len();
        let used = if column < benchmarks { column..column + 1 } else { 0..benchmarks };
        let [gain_without, gain_with] = [without, with].map(|it| means(&it.questions)[column]);
        RetainedShare {
            column: columns[column].clone(),
            gain_with,
            gain_without,
            share: (gain_with != 0.0).then(|| gain_without / gain_with),
            seeds: ratio_over_seeds(
                &pairs(arm, column),
                others(arm, column),
                [without.noise[column], with.noise[column]],
            ),
            questions: ratio_over_questions(&used.map(of_benchmark).collect::<Vec<_>>()),
        }
    };
    (0..gains.len()).map(|arm| (0..columns.len()).map(|column| share(arm, column)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rayon::prelude::*;

    use super::super::{StudyArm, StudyBenchmark};
    use super::*;
    use crate::rng::{Purpose, Stream};

    const QUESTIONS: u64 = 60;

    /// A model on `QUESTIONS` questions with one completion each: a third is easier.
    fn answers(stream: &Stream, accuracy: f64) -> Vec<f64> {
        let right = |q: u64| stream.f64(q) < accuracy + if q.is_multiple_of(3) { 0.2 } else { -0.1 };
        (0..QUESTIONS).map(|q| f64::from(u8::from(right(q)))).collect()
    }

    /// The shares of one arm with `seeds` seeds. The accuracy of a seed varies by `between` around the arm's.
    fn simulated(draw: u64, seeds: u64, between: f64, gains: [f64; 2]) -> (RetainedShare, f64) {
        let base = [0, 1].map(|at| answers(&Stream::new(draw, Purpose::Test, &[at]), 0.4));
        let arm = |at: usize| {
            let of = |seed: u64| {
                let shift = between * Stream::new(draw, Purpose::Test, &[9, seed]).normal(0);
                let stream = Stream::new(draw, Purpose::Test, &[2 + at as u64, seed]);
                vec![answers(&stream, 0.4 + gains[at] + shift)]
            };
            StudyArm { name: format!("arm {at}"), seeds: (1..=seeds).map(|seed| (seed, of(seed))).collect() }
        };
        let untrained = |at: usize| {
            let seeds: BTreeMap<u64, Vec<Vec<f64>>> = (1..=seeds).map(|seed| (seed, vec![base[at].clone()])).collect();
            StudyArm { name: format!("base {at}"), seeds }
        };
        let (arms, bases) = ([0, 1].map(arm), [0, 1].map(untrained));
        let benchmarks = [StudyBenchmark { name: "bench".into(), samples: 1 }];
        let gains_of = [0, 1].map(|at| Paired::new(&arms[at], &bases[at], &benchmarks).unwrap());
        let share = retained_shares(&[gains_of], &["bench".to_owned()]).remove(0).remove(0);
        // Over seeds, the questions and the evaluation of the untrained model are fixed.
        let truth = [0, 1].map(|at| 0.4 + gains[at] - means(&[base[at].clone()])[0]);
        (share, truth[0] / truth[1])
    }

    #[test]
    fn the_share_is_the_ratio_of_the_gains() {
        let (got, _) = simulated(1, 5, 0.02, [0.2, 0.4]);
        assert_eq!(got.share, Some(got.gain_without / got.gain_with));
        assert!((got.gain_with - 0.4).abs() < 0.2 && got.seeds.unwrap().contains(got.share.unwrap()), "{got:?}");
        assert_eq!(simulated(1, 1, 0.02, [0.2, 0.4]).0.seeds, None);
    }

    /// Few completions and few seeds, so that means are often equal by chance.
    #[test]
    fn sets_cover_the_true_share() {
        for seeds in [2, 3, 5] {
            for (between, gains) in [(0.0, [0.2, 0.4]), (0.03, [0.2, 0.4]), (0.0, [0.05, 0.001]), (0.03, [0.0, 0.001])]
            {
                let one = |draw: u64| {
                    let (got, truth) = simulated(draw, seeds, between, gains);
                    let over_questions = got.questions.contains(gains[0] / gains[1]);
                    [got.seeds.unwrap().contains(truth), over_questions].map(usize::from)
                };
                let add = |a: [usize; 2], b: [usize; 2]| [a[0] + b[0], a[1] + b[1]];
                let covered = (0..1_000u64).into_par_iter().map(one).reduce(|| [0; 2], add);
                let [over_seeds, over_questions] = covered.map(|count| count as f64 / 10.0);
                println!("{seeds} seeds, between {between}, gains {gains:?}: {over_seeds} %, {over_questions} %");
                assert!(
                    covered[0] >= 930 && (between > 0.0 || covered[1] >= 930),
                    "{seeds} seeds, between {between}, gains {gains:?}: {covered:?}"
                );
            }
        }
    }
}
