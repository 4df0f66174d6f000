//! What a benchmark can show: the smallest difference between two models that it detects, and whether a score is near the floor
//! or the ceiling.

use crate::stats::detectable_difference;

/// The share of the variance of one sample's correctness that is between questions; the rest is between samples of a question.
const BETWEEN_QUESTIONS: f64 = 0.7;
/// The correlation of two models' correctness on the same question with one sample each. Miller, "Adding error bars to evals"
/// (arXiv 2411.00640), reports 0.3 to 0.7 for pairs of models.
const CORRELATION: f64 = 0.5;
/// The normal approximation of a count needs at least this number of right and of wrong answers.
const FEWEST: f64 = 5.0;

/// The smallest true difference in accuracy that a paired test at the level 5 % detects in four of five studies, between two models
/// of about this accuracy; `None` at the accuracies 0 and 1.
///
/// With one sample per question, the variance of a question's difference is 2 p (1 - p) (1 - [`CORRELATION`]), which is p (1 - p).
/// Of that, the part that differs between samples of a question, 2 p (1 - p) (1 - [`BETWEEN_QUESTIONS`]), decreases with the
/// number of samples.
pub fn detectable(accuracy: f64, questions: usize, samples: usize) -> Option<f64> {
    let within = 2.0 * (1.0 - BETWEEN_QUESTIONS);
    let between = 2.0 * (1.0 - CORRELATION) - within;
    let variance = accuracy * (1.0 - accuracy) * (between + within / samples as f64);
    detectable_difference(variance.sqrt(), questions, 0.05, 0.8)
}

/// An end of the scale that a score is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleEnd {
    Floor,
    Ceiling,
}

/// The end of the scale from which fewer than five questions' worth of answers separate this accuracy, if any.
pub fn near_limit(accuracy: f64, questions: usize) -> Option<ScaleEnd> {
    let right = accuracy * questions as f64;
    let wrong = questions as f64 - right;
    if right.min(wrong) >= FEWEST {
        None
    } else if right <= wrong {
        Some(ScaleEnd::Floor)
    } else {
        Some(ScaleEnd::Ceiling)
    }
}

/// A warning about a score near an end of the scale.
pub fn warning(accuracy: f64, questions: usize) -> Option<String> {
    let right = accuracy * questions as f64;
    let (limit, count, what) = match near_limit(accuracy, questions)? {
        ScaleEnd::Floor => ("floor", right, "right"),
        ScaleEnd::Ceiling => ("ceiling", questions as f64 - right, "wrong"),
    };
    Some(format!(
        "near the {limit}: {count:.1} of {questions} answers are {what}, and with fewer than 5 the score shows little about \
         differences between models"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use crate::stats::{mean, sample_std};

    #[test]
    fn a_score_is_near_a_limit_with_fewer_than_five_right_or_wrong_answers() {
        assert_eq!(near_limit(0.15, 30), Some(ScaleEnd::Floor));
        assert_eq!(near_limit(0.17, 30), None);
        assert_eq!(near_limit(0.99, 500), None);
        assert_eq!(near_limit(0.995, 500), Some(ScaleEnd::Ceiling));
        assert_eq!(near_limit(0.0, 1_000), Some(ScaleEnd::Floor));
        assert_eq!(near_limit(0.5, 8), Some(ScaleEnd::Floor));
        let said = warning(0.85, 20).unwrap();
        assert!(said.starts_with("near the ceiling: 3.0 of 20 answers are wrong"), "{said}");
        assert_eq!(warning(0.7, 20), None);
    }

    #[test]
    fn more_questions_and_more_samples_detect_smaller_differences() {
        let points = |accuracy, questions, samples| 100.0 * detectable(accuracy, questions, samples).unwrap();
        assert!((points(0.75, 500, 1) - 5.43).abs() < 0.05, "{}", points(0.75, 500, 1));
        assert!(points(0.75, 500, 4) < points(0.75, 500, 1));
        assert!(points(0.15, 30, 64) > points(0.15, 100, 64));
        assert_eq!(detectable(0.0, 30, 1), None);
    }

    /// Two models of the assumed kind differ by the detectable difference: a paired t test finds it in about 80 % of
    /// studies.
    #[test]
    fn studies_of_the_assumed_kind_have_the_stated_power() {
        const QUESTIONS: usize = 200;
        const STUDIES: u64 = 2_000;
        let difference = detectable(0.5, QUESTIONS, 1).unwrap();
        let (low, high) = (0.5 - difference / 2.0, 0.5 + difference / 2.0);
        // The models use the same draw with this probability, else independent ones. This gives the assumed correlation.
        let shared = CORRELATION * high / low;
        let found = (0..STUDIES).filter(|&study| {
            let draws = Stream::new(5, Purpose::Test, &[study]);
            let outcome = |i: usize| {
                let u = |k: u64| draws.f64(3 * i as u64 + k);
                let second = if u(0) < shared { u(1) } else { u(2) };
                let right = |u: f64, p: f64| f64::from(u8::from(u < p));
                (right(u(1), low), right(second, high))
            };
            let differences: Vec<f64> = (0..QUESTIONS).map(outcome).map(|(a, b)| b - a).collect();
            mean(&differences).abs() > 1.972 * sample_std(&differences) / (QUESTIONS as f64).sqrt()
        });
        let power = found.count() as f64 / STUDIES as f64;
        assert!((0.77..=0.84).contains(&power), "{power}");
    }
}
