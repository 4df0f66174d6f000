//! Computes the advantage of each completion from the rewards of its group.

use std::collections::BTreeMap;

use crate::config::ScaleRewards;
use crate::stats::{mean, sample_std};

/// Added to the standard deviation before dividing by it, to bound the advantages of a nearly flat group. TRL's value.
const EPSILON: f64 = 1e-4;

/// The result of [`advantages`] for one rollout batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// One advantage per completion, in the shape of the rewards: (groups, completions).
    pub values: Vec<Vec<f32>>,
    /// Mean over all completions of the batch.
    pub reward_mean: f64,
    /// Unbiased standard deviation over all completions of the batch, not the mean over groups (as TRL logs it).
    pub reward_std: f64,
    /// Groups whose rewards are all equal; their advantages are exactly zero.
    pub flat_groups: usize,
}

/// Advantages of a rollout batch: each reward minus its group's mean, divided according to `scale`.
///
/// With [`ScaleRewards::Group`] the divisor is the unbiased standard deviation of the group (DeepSeekMath,
/// arXiv 2402.03300), with [`ScaleRewards::Batch`] that of all rewards of the batch (arXiv 2508.08221). With
/// [`ScaleRewards::None`] there is no division (Dr. GRPO, arXiv 2503.20783: dividing favors questions that are nearly
/// always or nearly never solved).
///
/// A group is flat if its rewards are bitwise equal. Its advantages are exactly zero: the rounding of the mean would
/// otherwise leave residues that are divided by almost zero.
pub fn advantages(rewards: &[Vec<f64>], scale: ScaleRewards) -> Advantages {
    let (reward_mean, reward_std) = mean_and_std(&rewards.concat());
    let mut flat_groups = 0;
    let values = rewards
        .iter()
        .map(|group| {
            if is_flat(group) {
                flat_groups += 1;
                return vec![0.0; group.len()];
            }
            let (mean, std) = mean_and_std(group);
            let divisor = match scale {
                ScaleRewards::Group => std + EPSILON,
                ScaleRewards::Batch => reward_std + EPSILON,
                ScaleRewards::None => 1.0,
            };
            group.iter().map(|reward| ((reward - mean) / divisor) as f32).collect()
        })
        .collect();
    Advantages { values, reward_mean, reward_std, flat_groups }
}

/// True if no completion has a higher reward than another, so that the group has no gradient. A single completion is
/// flat.
pub fn is_flat(rewards: &[f64]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

impl Advantages {
    /// `reward`, `reward_std` and `frac_reward_zero_std`, TRL's names.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("reward".to_owned(), self.reward_mean),
            ("reward_std".to_owned(), self.reward_std),
            ("frac_reward_zero_std".to_owned(), self.flat_groups as f64 / self.values.len().max(1) as f64),
        ])
    }
}

/// Mean and unbiased standard deviation, which is zero for fewer than two values.
fn mean_and_std(values: &[f64]) -> (f64, f64) {
    match values {
        [] => (0.0, 0.0),
        [one] => (*one, 0.0),
        _ => (mean(values), sample_std(values)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_close(actual: &[f32], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((f64::from(*a) - e).abs() < 1e-6, "{actual:?} expected {expected:?}");
        }
    }

    /// One right of four: mean 1/4, squares 9/16 + 3/16 = 3/4, unbiased variance 1/4, deviation 1/2.
    #[test]
    fn group_scale_divides_by_the_unbiased_deviation() {
        let found = advantages(&[vec![1.0, 0.0, 0.0, 0.0]], ScaleRewards::Group);
        assert_close(&found.values[0], &[0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001]);
        assert_eq!((found.reward_mean, found.reward_std, found.flat_groups), (0.25, 0.5, 0));
    }

    /// Rewards 0, 2, 4, 4 in two groups: batch mean 5/2, squares 6.25 + 0.25 + 2.25 + 2.25 = 11, variance 11/3.
    #[test]
    fn batch_scale_divides_every_group_by_the_same_deviation() {
        let rewards = [vec![0.0, 2.0], vec![4.0, 4.0]];
        let divisor = (11.0_f64 / 3.0).sqrt() + 1e-4;
        let found = advantages(&rewards, ScaleRewards::Batch);
        assert_close(&found.values[0], &[-1.0 / divisor, 1.0 / divisor]);
        assert_eq!(found.values[1], [0.0, 0.0]);
        assert_eq!(found.flat_groups, 1);
        assert_close(&advantages(&rewards, ScaleRewards::None).values[0], &[-1.0, 1.0]);
    }

    /// In floating point, the mean of eight times 0.1 is not 0.1; the advantages of a flat group are zero anyway.
    #[test]
    fn flat_groups_are_exactly_zero_and_counted() {
        for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
            let found = advantages(&[vec![0.1; 8], vec![0.7], vec![0.0, 1.0]], scale);
            assert!(found.values[0].iter().chain(&found.values[1]).all(|&value| value == 0.0));
            assert_eq!(found.flat_groups, 2);
            assert_eq!(found.metrics()["frac_reward_zero_std"], 2.0 / 3.0);
        }
    }

    #[test]
    fn no_groups_give_no_advantages() {
        let found = advantages(&[], ScaleRewards::Group);
        assert_eq!((found.values.len(), found.reward_mean, found.reward_std), (0, 0.0, 0.0));
        assert_eq!(found.metrics()["frac_reward_zero_std"], 0.0);
    }

    proptest! {
        #[test]
        fn a_group_sums_to_zero_and_ignores_a_shift(
            group in prop::collection::vec(-2.0..2.0_f64, 2..16),
            shift in -5.0..5.0_f64,
        ) {
            for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
                let plain = advantages(std::slice::from_ref(&group), scale).values;
                let moved = advantages(&[group.iter().map(|reward| reward + shift).collect()], scale).values;
                prop_assert!(plain[0].iter().sum::<f32>().abs() < 1e-4);
                for (a, b) in plain[0].iter().zip(&moved[0]) {
                    prop_assert!((a - b).abs() < 1e-4);
                }
            }
        }

        #[test]
        fn a_better_reward_never_has_a_smaller_advantage(group in prop::collection::vec(0.0..1.0_f64, 2..16)) {
            let values = &advantages(std::slice::from_ref(&group), ScaleRewards::Group).values[0];
            for i in 0..group.len() {
                for j in 0..group.len() {
                    prop_assert!(group[i] <= group[j] || values[i] >= values[j]);
                }
            }
        }
    }
}
