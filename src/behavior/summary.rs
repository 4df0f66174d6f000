//! A summary of many completions: the frequency of each behavior, with its interval.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{BehaviorSpan, Class};
use crate::stats::{Interval, bootstrap_ratios, wilson};

/// Number of bootstrap resamples of the questions.
const RESAMPLES: usize = 10_000;
const CONFIDENCE: f64 = 0.95;
const CLASSES: usize = Class::ALL.len();
/// Columns of a question's totals: completions that show each class, spans of each class, completions, tokens.
const COLUMNS: usize = 2 * CLASSES + 2;
const RESPONSES: usize = 2 * CLASSES;
const TOKENS: usize = RESPONSES + 1;

/// The classes found in one completion.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseCounts {
    /// Identity of the question, whose completions are resampled together.
    pub question: String,
    pub tokens: Option<usize>,
    /// Spans of each class, in the order of [`Class::ALL`].
    pub counts: [usize; CLASSES],
}

impl ResponseCounts {
    pub fn new(question: &str, tokens: Option<usize>, spans: &[BehaviorSpan]) -> Self {
        let mut counts = [0; CLASSES];
        spans.iter().for_each(|span| counts[span.class as usize] += 1);
        Self { question: question.to_owned(), tokens, counts }
    }
}

/// An estimate and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassEstimate {
    pub value: f64,
    pub interval: Interval,
}

/// One class over all completions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassSummary {
    pub class: Class,
    /// Number of completions that show it.
    pub responses: usize,
    /// The share of completions that show it, from 0 to 1.
    pub presence: ClassEstimate,
    /// Spans per completion.
    pub count: ClassEstimate,
    /// Spans per 1,000 tokens, because lengths differ between models; `None` if a completion has no token count.
    pub per_1000_tokens: Option<ClassEstimate>,
}

/// All classes over all completions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub questions: usize,
    pub responses: usize,
    pub tokens: Option<usize>,
    pub classes: Vec<ClassSummary>,
}

impl Summary {
    /// Intervals are bootstrapped over questions, because completions of the same question are similar. A share gets Wilson's
    /// interval if each question has one completion, or if all or none of the questions show the class, for which a bootstrap
    /// interval would have no width.
    ///
    /// # Panics
    /// If there are no completions.
    pub fn new(responses: &[ResponseCounts], seed: u64) -> Self {
        assert!(!responses.is_empty(), "a summary needs completions");
        let mut questions: BTreeMap<&str, [f64; COLUMNS]> = BTreeMap::new();
        for response in responses {
            let totals = questions.entry(&response.question).or_insert([0.0; COLUMNS]);
            for (class, &count) in response.counts.iter().enumerate() {
                totals[class] += f64::from(u8::from(count > 0));
                totals[CLASSES + class] += count as f64;
            }
            totals[RESPONSES] += 1.0;
            totals[TOKENS] += response.tokens.unwrap_or(0) as f64;
        }
        let totals: Vec<[f64; COLUMNS]> = questions.into_values().collect();
        let sum = |column: usize| totals.iter().map(|question| question[column]).sum::<f64>();
        let tokens =
            responses.iter().map(|response| response.tokens).sum::<Option<usize>>().filter(|&tokens| tokens > 0);

        let mut ratios: Vec<(usize, usize)> = (0..2 * CLASSES).map(|column| (column, RESPONSES)).collect();
        if tokens.is_some() {
            ratios.extend((0..CLASSES).map(|class| (CLASSES + class, TOKENS)));
        }
        let intervals = bootstrap_ratios(&totals, &ratios, RESAMPLES, CONFIDENCE, seed);
        let estimate = |index: usize, scale: f64| {
            let (above, below) = ratios[index];
            let Interval { low, high } = intervals[index];
            ClassEstimate {
                value: scale * sum(above) / sum(below),
                interval: Interval { low: scale * low, high: scale * high },
            }
        };
        let one_each = totals.len() == responses.len();
        let classes = Class::ALL.into_iter().enumerate().map(|(index, class)| {
            let shown = sum(index) as usize;
            let mut presence = estimate(index, 1.0);
            if one_each {
                presence.interval = wilson(shown, responses.len(), CONFIDENCE);
            } else if shown == 0 || shown == responses.len() {
                presence.interval = wilson(if shown == 0 { 0 } else { totals.len() }, totals.len(), CONFIDENCE);
            }
            ClassSummary {
                class,
                responses: shown,
                presence,
                count: estimate(CLASSES + index, 1.0),
                per_1000_tokens: tokens.map(|_| estimate(2 * CLASSES + index, 1000.0)),
            }
        });
        Self { questions: totals.len(), responses: responses.len(), tokens, classes: classes.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(question: &str, tokens: usize, verifications: usize) -> ResponseCounts {
        let mut counts = [0; CLASSES];
        counts[Class::Verification as usize] = verifications;
        ResponseCounts { question: question.to_owned(), tokens: Some(tokens), counts }
    }

    #[test]
    fn shares_counts_and_rates() {
        let summary = Summary::new(&[counted("a", 100, 2), counted("a", 300, 0), counted("b", 100, 2)], 1);
        assert_eq!((summary.questions, summary.responses, summary.tokens), (2, 3, Some(500)));
        let class = &summary.classes[Class::Verification as usize];
        assert_eq!((class.responses, class.presence.value, class.count.value), (2, 2.0 / 3.0, 4.0 / 3.0));
        assert!((class.per_1000_tokens.unwrap().value - 8.0).abs() < 1e-12);
        for estimate in [class.presence, class.count, class.per_1000_tokens.unwrap()] {
            let Interval { low, high } = estimate.interval;
            assert!(low < estimate.value && estimate.value < high, "{estimate:?}");
        }
    }

    #[test]
    fn a_share_of_zero_has_an_interval_with_a_width() {
        let none = Summary::new(&[counted("a", 9, 0), counted("a", 9, 0), counted("b", 9, 0)], 1);
        assert_eq!(none.classes[0].presence.interval, wilson(0, 2, CONFIDENCE), "two questions, not three");
        let one_each = Summary::new(&[counted("a", 9, 1), counted("b", 9, 0)], 1);
        assert_eq!(one_each.classes[0].presence.interval, wilson(1, 2, CONFIDENCE));
    }

    #[test]
    fn without_tokens_there_is_no_rate() {
        let mut uncounted = counted("a", 9, 1);
        uncounted.tokens = None;
        let summary = Summary::new(&[uncounted, counted("b", 9, 1)], 1);
        assert_eq!((summary.tokens, summary.classes[0].per_1000_tokens), (None, None));
    }
}
