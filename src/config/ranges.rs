//! Plausible ranges of all numbers, and plain text for all names.
//!
//! A value outside its range is a typing error, or would end in a crash, a full memory or weights that are not finite. The
//! ranges are far wider than anything useful.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::RangeInclusive;

use super::schema::RunConfig;
use super::validate::{Check, ensure};

/// Longest text of a name or a path, in bytes.
const LONGEST: usize = 4096;
/// Longest name of a folder, in bytes.
const LONGEST_NAME: usize = 200;
/// Maximum number of tokens of a prompt or a completion.
const TOKENS: usize = 1 << 20;
/// Maximum number of completions per step.
const COMPLETIONS: usize = 1 << 20;

impl RunConfig {
    /// Checks every number and text on its own.
    pub(super) fn ranges(&self) -> Check {
        self.counts().into_iter().try_for_each(|(key, value, range)| within(key, value, range))?;
        let completions = self.rollout.completions_per_step();
        ensure(
            completions <= COMPLETIONS,
            "rollout.num_generations",
            format!("{completions} completions per step are too many, expected at most {COMPLETIONS}"),
            "lower rollout.num_generations or rollout.prompts_per_step",
        )?;
        self.numbers().into_iter().try_for_each(|(key, value, range)| within(key, value, range))?;
        for (at, entry) in self.prompt.mix.iter().enumerate() {
            within(format!("prompt.mix[{at}].weight"), entry.weight, 1e-6..=1e6)?;
            plain_text(format!("prompt.mix[{at}].ppe"), &entry.ppe, LONGEST)?;
        }
        self.reward.custom.iter().try_for_each(|component| {
            within("reward.custom", component.weight, 0.0..=1000.0)?;
            within("reward.custom", component.timeout, 0.001..=86_400.0)
        })?;
        self.texts()
    }

    fn counts(&self) -> [(&'static str, usize, RangeInclusive<usize>); 21] {
        let Self { data, lora, rollout, reward, grpo, train, eval, .. } = self;
        [
            ("data.max_questions", data.max_questions.unwrap_or(1), 1..=10_000_000),
            ("lora.r", lora.r, 1..=1024),
            ("rollout.prompts_per_step", rollout.prompts_per_step, 1..=65_536),
            ("rollout.num_generations", rollout.num_generations, 1..=65_536),
            ("rollout.max_prompt_length", rollout.max_prompt_length, 1..=TOKENS),
            ("rollout.max_completion_length", rollout.max_completion_length, 1..=TOKENS),
            ("rollout.max_rows", rollout.max_rows, 1..=65_536),
            ("rollout.requests_per_endpoint", rollout.requests_per_endpoint, 1..=4096),
            ("rollout.verify_every", rollout.verify_every, 1..=1_000_000),
            ("reward.length.max_length", reward.length.max_length.unwrap_or(1), 1..=TOKENS),
            ("reward.max_bench_failures", reward.max_bench_failures, 0..=1_000_000),
            ("reward.repetition.ngram_size", reward.repetition.ngram_size, 1..=10_000),
            ("grpo.num_iterations", grpo.num_iterations, 1..=1000),
            ("grpo.steps_per_generation", grpo.steps_per_generation, 1..=COMPLETIONS),
            ("grpo.max_refills", grpo.max_refills, 0..=1000),
            ("train.steps", train.steps.unwrap_or(1), 1..=100_000_000),
            ("train.epochs", train.epochs, 1..=1_000_000),
            ("train.max_tokens_per_micro_batch", train.max_tokens_per_micro_batch, 1..=1 << 24),
            ("train.save_total_limit", train.save_total_limit.unwrap_or(1), 1..=1_000_000),
            ("train.threads", train.threads.unwrap_or(1), 1..=512),
            ("eval.questions", eval.questions, 0..=1_000_000),
        ]
    }

    fn numbers(&self) -> [(&'static str, f64, RangeInclusive<f64>); 37] {
        let Self { lora, rollout, reward, grpo, train, .. } = self;
        let weight = 0.0..=1000.0;
        let value = -1000.0..=1000.0;
        [
            ("lora.lora_alpha", lora.lora_alpha, 1e-6..=1e5),
            ("rollout.temperature", rollout.temperature, 0.01..=100.0),
            ("rollout.top_p", rollout.top_p, 1e-6..=1.0),
            ("rollout.min_p", rollout.min_p, 0.0..=1.0),
            ("rollout.max_logprob_difference", rollout.max_logprob_difference, 1e-6..=100.0),
            ("rollout.importance_sampling_cap", rollout.importance_sampling_cap, 1.0..=1e6),
            ("reward.accuracy.weight", reward.accuracy.weight.unwrap_or(0.0), weight.clone()),
            ("reward.format.weight", reward.format.weight.unwrap_or(0.0), weight.clone()),
            ("reward.format_strict.weight", reward.format_strict.weight.unwrap_or(0.0), weight.clone()),
            ("reward.tag_count.weight", reward.tag_count.weight.unwrap_or(0.0), weight.clone()),
            ("reward.length.weight", reward.length.weight.unwrap_or(0.0), weight.clone()),
            ("reward.length.min_value_correct", reward.length.min_value_correct, value.clone()),
            ("reward.length.max_value_correct", reward.length.max_value_correct, value.clone()),
            ("reward.length.min_value_wrong", reward.length.min_value_wrong, value.clone()),
            ("reward.length.max_value_wrong", reward.length.max_value_wrong, value),
            ("reward.repetition.weight", reward.repetition.weight.unwrap_or(0.0), weight.clone()),
            ("reward.repetition.max_penalty", reward.repetition.max_penalty, -1000.0..=0.0),
            ("reward.random.weight", reward.random.weight.unwrap_or(0.0), weight.clone()),
            ("reward.random.probability", reward.random.probability, 0.0..=1.0),
            ("reward.inverted.weight", reward.inverted.weight.unwrap_or(0.0), weight.clone()),
            ("reward.majority.weight", reward.majority.weight.unwrap_or(0.0), weight.clone()),
            ("reward.code.weight", reward.code.weight.unwrap_or(0.0), weight.clone()),
            ("reward.code.timeout", reward.code.timeout, 0.001..=86_400.0),
            ("grpo.epsilon", grpo.epsilon, 1e-9..=1.0),
            ("grpo.epsilon_high", grpo.clip_high(), 1e-9..=1000.0),
            ("grpo.delta", grpo.delta.unwrap_or(1.0), 1.0..=1e6),
            ("grpo.beta", grpo.beta, 0.0..=1000.0),
            ("grpo.entropy_coef", grpo.entropy_coef, 0.0..=1000.0),
            ("grpo.truncation_penalty", grpo.truncation_penalty, 0.0..=1000.0),
            ("train.learning_rate", train.learning_rate, 1e-12..=1.0),
            ("train.warmup_ratio", train.warmup_ratio, 0.0..=1.0),
            ("train.min_lr_rate", train.min_lr_rate, 0.0..=1.0),
            ("train.adam_beta1", train.adam_beta1, 0.0..=0.999_999),
            ("train.adam_beta2", train.adam_beta2, 0.0..=0.999_999),
            ("train.adam_epsilon", train.adam_epsilon, 1e-30..=1.0),
            ("train.weight_decay", train.weight_decay, 0.0..=1.0),
            ("train.max_grad_norm", train.max_grad_norm, 0.0..=1e6),
        ]
    }

    /// The lowest and the highest value of a number; `None` if the key is not one of these.
    pub(super) fn range_of(&self, key: &str) -> Option<(f64, f64)> {
        let counts = self.counts().into_iter().map(|(key, _, range)| (key, *range.start() as f64, *range.end() as f64));
        let numbers = self.numbers().into_iter().map(|(key, _, range)| (key, *range.start(), *range.end()));
        counts.chain(numbers).find(|(name, ..)| *name == key).map(|(_, low, high)| (low, high))
    }

    fn texts(&self) -> Check {
        let Self { model, prompt, data, lora, reward, eval, run, .. } = self;
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let texts = [
            ("model.path", model.path.clone()),
            ("model.revision", model.revision.clone()),
            ("prompt.ppe", optional(&prompt.ppe)),
            ("prompt.template", prompt.template.clone()),
            ("data.path", data.path.clone()),
            ("data.revision", data.revision.clone()),
            ("data.split", data.split.clone()),
            ("data.question_column", optional(&data.question_column)),
            ("data.answer_column", optional(&data.answer_column)),
            ("data.difficulty", optional(&data.difficulty)),
            ("lora.init_adapter", optional(&lora.init_adapter)),
            ("reward.code.column", reward.code.column.clone()),
            ("eval.path", eval.path.clone()),
            ("run.dir", run.dir.clone()),
            ("run.name", optional(&run.name)),
            ("run.device", run.device.clone()),
        ];
        for (key, text) in texts {
            plain_text(key, &text, if key == "run.name" { LONGEST_NAME } else { LONGEST })?;
        }
        let device = &run.device;
        let is_device = ["auto", "cpu", "cuda"].contains(&device.as_str())
            || device.strip_prefix("cuda:").is_some_and(|number| number.parse::<u16>().is_ok());
        ensure(
            is_device,
            "run.device",
            format!("expected a device, found `{device}`"),
            "use `auto`, `cpu`, `cuda` or `cuda:NUMBER`",
        )
    }
}

fn plain_text(key: impl Into<Cow<'static, str>>, text: &str, longest: usize) -> Check {
    let key = key.into();
    ensure(
        text.len() <= longest,
        key.clone(),
        format!("a text of {} bytes is too long, expected at most {longest}", text.len()),
        "shorten it",
    )?;
    ensure(
        !text.contains(char::is_control),
        key,
        format!("`{}` contains control characters", text.escape_debug()),
        "remove them",
    )
}

fn within<T: PartialOrd + Debug>(key: impl Into<Cow<'static, str>>, value: T, range: RangeInclusive<T>) -> Check {
    let (lowest, highest) = (range.start(), range.end());
    let problem = format!("{value:?} is out of range, expected {lowest:?} to {highest:?}");
    ensure(range.contains(&value), key, problem, "use a value in this range")
}
