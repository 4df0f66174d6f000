//! The metrics of an update, under the names in the log.

use std::collections::BTreeMap;

use super::Objective;
use crate::config::LossType;
use crate::grpo::totals::Totals;

impl Totals {
    /// TRL's names and definitions, for the whole update: `loss`, `entropy`, `kl` if `beta` is not zero,
    /// `policy_loss` and `entropy_coef` if there is a bonus, the clip shares, and `ratio/{min,mean,max}`, which TRL
    /// does not have, like `distill/kl` if a prompt is distilled. A mean over no tokens is omitted.
    pub fn metrics(&self, objective: &Objective) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::from([("loss".to_owned(), self.loss)]);
        let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
        if objective.entropy_coef != 0.0 {
            put("policy_loss", self.policy_loss);
            put("entropy_coef", objective.entropy_coef);
        }
        if self.entropy_tokens > 0 {
            put("entropy", self.entropy_sum / self.entropy_tokens as f64);
        }
        if self.tokens == 0 {
            return metrics;
        }
        let tokens = self.tokens as f64;
        match objective.distill {
            Some(_) => put("distill/kl", self.kl_sum / tokens),
            None if objective.beta != 0.0 => put("kl", self.kl_sum / tokens),
            None => None,
        };
        if self.ratio.count == 0 {
            return metrics;
        }
        put("ratio/min", self.ratio.min);
        put("ratio/mean", self.ratio.sum / self.ratio.count as f64);
        put("ratio/max", self.ratio.max);
        // A completion with a single ratio counts as one ratio, and the ratio of a masked completion is 1.
        let (low, high) = match objective.loss_type {
            LossType::Cispo => {
                put("cispo_clip_ratio", self.clip.high as f64 / tokens);
                return metrics;
            }
            LossType::Gspo => {
                let completions = self.completions as f64;
                (self.clip.completions_low as f64 / completions, self.clip.completions_high as f64 / completions)
            }
            _ => (self.clip.low as f64 / tokens, self.clip.high as f64 / tokens),
        };
        put("clip_ratio/low_mean", low);
        put("clip_ratio/low_min", self.clip.low_min.unwrap_or(0.0));
        put("clip_ratio/high_mean", high);
        put("clip_ratio/high_max", self.clip.high_max.unwrap_or(0.0));
        put("clip_ratio/region_mean", low + high);
        metrics
    }
}
