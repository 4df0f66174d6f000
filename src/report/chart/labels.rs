//! Positions of neighboring labels that do not overlap.

/// The positions closest to `wanted` (least squares) that keep `gap` between neighbors and stay within `low` to `high`. The
/// gap is smaller only if the labels do not fit otherwise. In the given order.
///
/// If the i-th label from the top is moved up by i gaps, keeping the distance means that the sequence does not decrease. This
/// is an isotonic regression, which is solved by pooling the neighbors that violate it.
pub fn spread(wanted: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let n = wanted.len();
    let gap = if n > 1 { gap.min((high - low) / (n - 1) as f64) } else { gap };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));

    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (rank, &index) in order.iter().enumerate() {
        let mut pool = (wanted[index] - rank as f64 * gap, 1);
        while let Some(&(sum, count)) = pools.last()
            && sum / count as f64 >= pool.0 / pool.1 as f64
        {
            pools.pop();
            pool = (pool.0 + sum, pool.1 + count);
        }
        pools.push(pool);
    }

    let lowest = high - gap * n.saturating_sub(1) as f64;
    let moved = pools.into_iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / count as f64, count));
    let mut placed = vec![0.0; n];
    for ((rank, &index), position) in order.iter().enumerate().zip(moved) {
        placed[index] = position.max(low).min(lowest.max(low)) + rank as f64 * gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_move_as_little_as_necessary() {
        assert_eq!(spread(&[10.0, 50.0], 14.0, (0.0, 100.0)), [10.0, 50.0]);
        assert_eq!(spread(&[50.0, 50.0], 14.0, (0.0, 100.0)), [43.0, 57.0]);
        assert_eq!(spread(&[99.0, 100.0, 5.0], 14.0, (0.0, 100.0)), [86.0, 100.0, 5.0]);
        assert_eq!(spread(&[0.0, 0.0, 0.0], 60.0, (0.0, 100.0)), [0.0, 50.0, 100.0]);
        assert_eq!(spread(&[], 14.0, (0.0, 100.0)), [0.0; 0]);
    }

    #[test]
    fn labels_do_not_overlap_and_stay_inside() {
        for seed in 0..50u64 {
            let stream = crate::rng::Stream::new(seed, crate::rng::Purpose::Test, &[]);
            let wanted: Vec<f64> = (0..7).map(|i| 100.0 * stream.f64(i)).collect();
            let mut placed = spread(&wanted, 14.0, (0.0, 100.0));
            placed.sort_unstable_by(f64::total_cmp);
            assert!(placed[0] >= 0.0 && placed[6] <= 100.0 + 1e-9);
            assert!(placed.windows(2).all(|pair| pair[1] - pair[0] >= 14.0 - 1e-9), "{placed:?}");
        }
    }
}
