//! Agreement of two labelings of the same completions.

use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A textbook example: 20 and 15 agreements, 5 and 10 disagreements; kappa is 0.4.
    #[test]
    fn kappa_of_a_textbook_example() {
        let tally = ConfusionCounts { true_positives: 20, false_positives: 5, false_negatives: 10, true_negatives: 15 };
        assert!((tally.kappa().unwrap() - 0.4).abs() < 1e-12);
    }
}
