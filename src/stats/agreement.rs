//! Agreement of two raters.

use std::collections::BTreeMap;

/// Cohen's kappa (Educational and Psychological Measurement 20:37, 1960): the share of items on which two raters agree, less the
/// share expected of raters who keep their own frequencies but decide by chance, as a part of what is left above chance. 1 is
/// full agreement, 0 is chance. NaN without items, and where both give all items one and the same class: chance alone would
/// agree then.
///
/// # Panics
/// When the lengths differ.
pub fn cohen_kappa<T: Ord>(first: &[T], second: &[T]) -> f64 {
    assert_eq!(first.len(), second.len(), "two raters need the same items");
    let n = first.len() as f64;
    let mut counts: BTreeMap<&T, [f64; 2]> = BTreeMap::new();
    for (a, b) in first.iter().zip(second) {
        counts.entry(a).or_default()[0] += 1.0;
        counts.entry(b).or_default()[1] += 1.0;
    }
    let agreed = first.iter().zip(second).filter(|(a, b)| a == b).count() as f64 / n;
    let chance = counts.into_values().map(|[a, b]| a * b).sum::<f64>() / (n * n);
    (agreed - chance) / (1.0 - chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty yes-yes, 15 no-no, 5 and 10 apart: 0.7 agreed, 0.5 expected.
    #[test]
    fn above_chance() {
        let table = [(true, true, 20), (true, false, 5), (false, true, 10), (false, false, 15)];
        let pairs = table.into_iter().flat_map(|(a, b, times)| std::iter::repeat_n((a, b), times));
        let (first, second): (Vec<bool>, Vec<bool>) = pairs.unzip();
        assert!((cohen_kappa(&first, &second) - 0.4).abs() < 1e-15);
        assert_eq!(cohen_kappa(&first, &first), 1.0);
    }

    #[test]
    fn one_class_says_nothing() {
        assert!(cohen_kappa(&[1, 1], &[1, 1]).is_nan());
        assert!(cohen_kappa::<u8>(&[], &[]).is_nan());
    }
}
