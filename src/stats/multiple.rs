//! Correction for multiple comparisons.

/// Adjusted p-values of Holm's step-down method (Scandinavian Journal of Statistics 6:65, 1979), in the given order. Rejecting
/// those of at most alpha makes one or more false rejections with probability at most alpha, however the tests depend on each
/// other.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut floor = 0.0f64;
    for (rank, &index) in order.iter().enumerate() {
        floor = floor.max((p_values.len() - rank) as f64 * p_values[index]).min(1.0);
        adjusted[index] = floor;
    }
    adjusted
}

/// The levels at which Holm's method tests the p-values, in the given order: `alpha` / m for the smallest of m, then
/// `alpha` / (m - 1), and so on. A p-value is rejected if it and all smaller ones are at most their level, so the interval with
/// confidence 1 - level of a rejected comparison excludes zero.
pub fn holm_levels(p_values: &[f64], alpha: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut levels = vec![alpha; p_values.len()];
    for (rank, &index) in order.iter().enumerate() {
        levels[index] = alpha / (p_values.len() - rank) as f64;
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_multiplied_by_the_number_of_tests() {
        assert_eq!(holm(&[0.04, 0.01, 0.03]), [0.06, 0.03, 0.06]);
        assert_eq!(holm(&[0.5, 0.9]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn the_smallest_has_the_strictest_level() {
        assert_eq!(holm_levels(&[0.04, 0.01, 0.03], 0.06), [0.06, 0.02, 0.03]);
        assert!(holm_levels(&[], 0.05).is_empty());
    }
}
