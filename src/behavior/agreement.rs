//! Agreement of two labelings of the same completions.

use serde::Serialize;

use super::{BehaviorSpan, Class};

/// Counts of a two-by-two table: found or not, present or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfusionCounts {
    pub true_positives: usize,
    pub false_positives: usize,
    pub false_negatives: usize,
    pub true_negatives: usize,
}

impl ConfusionCounts {
    pub fn add(&mut self, found: bool, there: bool) {
        *match (found, there) {
            (true, true) => &mut self.true_positives,
            (true, false) => &mut self.false_positives,
            (false, true) => &mut self.false_negatives,
            (false, false) => &mut self.true_negatives,
        } += 1;
    }

    /// The share of found spans that are present; `None` if nothing was found.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    /// The share of present spans that were found; `None` if nothing is present.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// The harmonic mean of precision and recall.
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }

    /// Cohen's kappa, the agreement beyond chance (Cohen, Educational and Psychological Measurement 20:37, 1960); `None` if
    /// agreement by chance is certain.
    pub fn kappa(&self) -> Option<f64> {
        let [a, b, c, d] =
            [self.true_positives, self.false_positives, self.false_negatives, self.true_negatives].map(|n| n as f64);
        let n = a + b + c + d;
        let chance = ((a + b) * (a + c) + (c + d) * (b + d)) / (n * n);
        (chance < 1.0).then(|| ((a + d) / n - chance) / (1.0 - chance))
    }
}

fn ratio(above: usize, below: usize) -> Option<f64> {
    (below > 0).then(|| above as f64 / below as f64)
}

/// Adds one completion to `tally`: whether the spans of `class` in `found` and in `there` overlap. Each span is matched with at
/// most one span of the other list. True negatives are not defined, because text without spans cannot be counted.
pub fn match_spans(tally: &mut ConfusionCounts, class: Class, found: &[BehaviorSpan], there: &[BehaviorSpan]) {
    let of = |spans: &[BehaviorSpan]| {
        let mut ranges: Vec<(usize, usize)> =
            spans.iter().filter(|span| span.class == class).map(|span| (span.start, span.end)).collect();
        ranges.sort_unstable();
        ranges
    };
    let (found, there) = (of(found), of(there));
    let mut taken = vec![false; there.len()];
    let mut met = 0;
    for (start, end) in &found {
        let meets = |&(from, to): &(usize, usize)| from < *end && *start < to;
        if let Some(index) = (0..there.len()).find(|&index| !taken[index] && meets(&there[index])) {
            taken[index] = true;
            met += 1;
        }
    }
    tally.true_positives += met;
    tally.false_positives += found.len() - met;
    tally.false_negatives += there.len() - met;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A textbook example: 20 and 15 agreements, 5 and 10 disagreements; kappa is 0.4.
    #[test]
    fn kappa_of_a_textbook_example() {
        let tally = ConfusionCounts { true_positives: 20, false_positives: 5, false_negatives: 10, true_negatives: 15 };
        assert_eq!(tally.precision(), Some(0.8));
        assert_eq!(tally.recall(), Some(20.0 / 30.0));
        assert_eq!(tally.f1(), Some(40.0 / 55.0));
        assert!((tally.kappa().unwrap() - 0.4).abs() < 1e-12);
    }

    #[test]
    fn without_findings_precision_is_undefined() {
        let mut tally = ConfusionCounts::default();
        tally.add(false, false);
        assert_eq!((tally.precision(), tally.recall(), tally.f1(), tally.kappa()), (None, None, None, None));
    }

    #[test]
    fn a_span_is_matched_once() {
        let span = |start, end| BehaviorSpan { class: Class::Code, start, end, rule: String::new() };
        let mut tally = ConfusionCounts::default();
        match_spans(&mut tally, Class::Code, &[span(0, 4), span(2, 9), span(20, 22)], &[span(1, 8), span(30, 31)]);
        assert_eq!((tally.true_positives, tally.false_positives, tally.false_negatives), (1, 2, 1));
    }
}
