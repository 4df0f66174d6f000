//! Checks of values that parse but are invalid.

use std::borrow::Cow;

use super::optional::UNSET;
use super::reward::*;
use super::schema::*;

/// An invalid value: its key, the problem, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {problem}\nhint: {remedy}")]
pub struct Invalid {
    pub key: Cow<'static, str>,
    pub problem: String,
    pub remedy: String,
}

pub(super) type Check = Result<(), Invalid>;

pub(super) fn ensure(
    holds: bool,
    key: impl Into<Cow<'static, str>>,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> Check {
    if holds { Ok(()) } else { Err(Invalid { key: key.into(), problem: problem.into(), remedy: remedy.into() }) }
}

impl RunConfig {
    /// Returns the first invalid value. Checks that need a file or a model are made where these are read.
    pub fn validate(&self) -> Check {
        self.names()?;
        self.data.validate()?;
        self.lora.validate()?;
        self.rollout.validate()?;
        for entry in self.prompt.entries() {
            self.reward.validate(&entry.ppe, entry.ppe != NO_PROMPT, self.rollout.max_completion_length)?;
        }
        self.grpo.validate()?;
        self.train.validate()?;
        self.ranges()?;
        self.distillation()?;
        self.batches()
    }

    fn names(&self) -> Check {
        not_empty("model.path", &self.model.path, "use tiny, a Hub id (org/name), a folder or a .gguf file")?;
        self.prompt.validate()?;
        not_empty("prompt.template", &self.prompt.template, "use model, plain, or the path of a Jinja file")?;
        not_empty("data.path", &self.data.path, "use arithmetic, a file or a Hub data set")?;
        not_empty(
            "eval.path",
            &self.eval.path,
            "use held-out, a file or a Hub data set; eval.questions = 0 switches evaluation off",
        )?;
        not_empty("run.dir", &self.run.dir, "use a folder, such as runs")?;
        let name = self.run.name.as_deref().unwrap_or(UNSET);
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        ensure(
            plain,
            "run.name",
            format!("`{name}` is not a valid folder name"),
            "use a name without slashes; run.dir sets the parent folder",
        )
    }

    /// Checks that no setting contradicts the method. The prompt is checked where a run starts, because a configuration may also
    /// be used to evaluate under another one.
    fn distillation(&self) -> Check {
        let Some(kl) = self.distilled() else {
            return ensure(
                self.rollout.num_generations >= 2,
                "rollout.num_generations",
                format!("a group of size {} has nothing to compare", self.rollout.num_generations),
                "use 2 or more; the study uses 8",
            );
        };
        let of_rewards = [
            ("grpo.beta", self.grpo.beta != 0.0, self.grpo.beta.to_string()),
            ("grpo.entropy_coef", self.grpo.entropy_coef != 0.0, self.grpo.entropy_coef.to_string()),
            ("grpo.max_refills", self.grpo.max_refills != 0, self.grpo.max_refills.to_string()),
        ];
        for (key, is_set, value) in of_rewards {
            let problem =
                format!("{value} has no meaning with train.method = \"distill\", which does not learn from rewards");
            ensure(!is_set, key, problem, "set it to 0, or use train.method = \"grpo\"")?;
        }
        let is_sequence_ratio = kl == DistillKl::Sampled && self.grpo.loss_type == LossType::Gspo;
        ensure(
            !is_sequence_ratio,
            "grpo.loss_type",
            "gspo has one ratio per completion, but distill.kl = \"sampled\" has an advantage per token",
            "use another loss, or distill.kl = \"full\"",
        )
    }

    /// Checks values that depend on each other.
    fn batches(&self) -> Check {
        let RolloutSection { prompts_per_step, num_generations, .. } = self.rollout;
        let completions = self.rollout.completions_per_step();
        let parts = self.grpo.steps_per_generation;
        ensure(
            completions.is_multiple_of(parts),
            "grpo.steps_per_generation",
            format!(
                "{prompts_per_step} prompts x {num_generations} completions = {completions} cannot be split into {parts} \
                 equal mini-batches"
            ),
            format!("use a divisor of {completions}: {}", divisors_near(completions, parts)),
        )?;
        let longest = self.rollout.max_sequence_length();
        ensure(
            self.train.max_tokens_per_micro_batch >= longest,
            "train.max_tokens_per_micro_batch",
            format!(
                "{} tokens are too few for a prompt and a completion of up to {longest} tokens together",
                self.train.max_tokens_per_micro_batch
            ),
            format!("raise it to at least {longest}, or lower rollout.max_completion_length"),
        )
    }
}

impl PromptSection {
    fn validate(&self) -> Check {
        let shipped = "use reasoning, planning, code, recall, null-example or none, or the path of a file";
        let Some(ppe) = &self.ppe else { return self.validate_mix(shipped) };
        ensure(
            self.mix.is_empty(),
            "prompt.mix",
            format!("`prompt.ppe` = `{ppe}` is set too"),
            "set only one of the two",
        )?;
        not_empty("prompt.ppe", ppe, shipped)?;
        let is_numbered = ppe.rsplit_once('@').is_some_and(|(_, number)| number.parse::<usize>().is_ok());
        ensure(
            self.wording == 0 || !is_numbered,
            "prompt.wording",
            format!("`prompt.ppe` = `{ppe}` selects a wording too"),
            "set only one of the two",
        )
    }

    fn validate_mix(&self, shipped: &str) -> Check {
        ensure(
            !self.mix.is_empty(),
            "prompt.ppe",
            "it is unset, and `prompt.mix` has no prompts",
            "set one of the two",
        )?;
        ensure(
            self.mix.len() > 1,
            "prompt.mix",
            "expected at least 2 prompts, found 1",
            "use prompt.ppe for a single prompt",
        )?;
        ensure(
            self.wording == 0,
            "prompt.wording",
            "it does not apply to `prompt.mix`",
            "select a wording in the mixture, such as ppe = \"reasoning@2\"",
        )?;
        for (at, MixEntry { ppe, weight }) in self.mix.iter().enumerate() {
            let key = |name: &str| format!("prompt.mix[{at}].{name}");
            not_empty(key("ppe"), ppe, shipped)?;
            let first = self.mix.iter().position(|it| it.ppe == *ppe).unwrap_or(at);
            let remedy = "name each prompt once; its weight determines how often it is drawn";
            ensure(first == at, key("ppe"), format!("`{ppe}` is already prompt.mix[{first}]"), remedy)?;
            positive(
                key("weight"),
                *weight,
                "use a number above 0; the probabilities are proportional to the weights",
            )?;
        }
        Ok(())
    }
}

impl DataSection {
    fn validate(&self) -> Check {
        at_least_one(
            "data.max_questions",
            self.max_questions.unwrap_or(1),
            "use 1 or more, or unset for all questions",
        )?;
        let share = self.max_unreadable;
        let told = "use a share between 0 and 1; questions whose gold answer cannot be read are left out and counted";
        ensure((0.0..=1.0).contains(&share), "data.max_unreadable", format!("{share} is out of range"), told)?;
        let measured = "measure pass rates with `rft difficulty`, and set both keys or neither";
        ensure(
            self.pass_rate.is_some() == self.difficulty.is_some(),
            if self.pass_rate.is_some() { "data.difficulty" } else { "data.pass_rate" },
            "it is unset, and the other of the two keys is set",
            measured,
        )?;
        if let Some([low, high]) = self.pass_rate {
            let is_band = 0.0 <= low && low <= high && high <= 1.0;
            let hint = "use two shares between 0 and 1, the lower one first, such as [0.1, 0.9]";
            ensure(is_band, "data.pass_rate", format!("[{low}, {high}] is not a range of shares"), hint)?;
        }
        let levels = "use levels from 1 to 14, such as [1, 2, 3]";
        ensure(!self.levels.is_empty(), "data.levels", "expected at least one level", levels)?;
        let wrong = self.levels.iter().find(|level| !(1..=MAX_ARITHMETIC_LEVEL).contains(*level));
        ensure(wrong.is_none(), "data.levels", format!("unknown level {}", wrong.unwrap_or(&0)), levels)
    }
}

impl LoraSection {
    fn validate(&self) -> Check {
        at_least_one("lora.r", self.r, "use 1 or more; 8 to 64 is usual, the study's preset uses 32")?;
        positive("lora.lora_alpha", self.lora_alpha, "use a number above 0; the value of lora.r is usual")?;
        let key = "lora.target_modules";
        let known = format!("use {ALL_LINEAR}, or any of {}", LINEAR_MODULES.join(", "));
        ensure(!self.target_modules.is_empty(), key, "expected at least one module", &known)?;
        for (index, module) in self.target_modules.iter().enumerate() {
            let is_known = module == ALL_LINEAR || LINEAR_MODULES.contains(&module.as_str());
            ensure(is_known, key, format!("unknown module `{module}`"), &known)?;
            let is_new = !self.target_modules[..index].contains(module);
            ensure(is_new, key, format!("duplicate module `{module}`"), "name each module once")?;
        }
        let initial = self.init_adapter.as_deref().unwrap_or(UNSET);
        not_empty("lora.init_adapter", initial, "use a run, an adapter folder, a Hub id or unset")
    }
}

impl RolloutSection {
    fn validate(&self) -> Check {
        at_least_one(
            "rollout.prompts_per_step",
            self.prompts_per_step,
            "use 1 or more; 16 is enough for the embedded model",
        )?;
        at_least_one("rollout.num_generations", self.num_generations, "use 2 or more; the study uses 8")?;
        at_least_one(
            "rollout.max_prompt_length",
            self.max_prompt_length,
            "use 1 or more; 1024 is enough for every question of the study",
        )?;
        at_least_one(
            "rollout.max_completion_length",
            self.max_completion_length,
            "use 1 or more; the study uses 4096",
        )?;
        let sampling =
            "use a number above 0; 1 samples from the unchanged policy, and eval.greedy evaluates with greedy decoding";
        positive("rollout.temperature", self.temperature, sampling)?;
        let top_p = "use a number between 0 and 1; 1 switches it off";
        ensure(
            0.0 < self.top_p && self.top_p <= 1.0,
            "rollout.top_p",
            format!("{} is out of range", self.top_p),
            top_p,
        )?;
        let min_p = "use a number of at least 0 and below 1; 0 switches it off";
        ensure((0.0..1.0).contains(&self.min_p), "rollout.min_p", format!("{} is out of range", self.min_p), min_p)?;
        let stops = self.stop.iter().all(|it| !it.is_empty());
        ensure(stops, "rollout.stop", "an empty string would end every completion immediately", "remove it")?;
        at_least_one("rollout.max_rows", self.max_rows, "use 1 or more, as many as fit in memory; 64 is a good start")?;
        self.validate_servers()
    }

    fn validate_servers(&self) -> Check {
        if self.endpoints.is_empty() {
            return Ok(());
        }
        for (index, url) in self.endpoints.iter().enumerate() {
            let is_url = url.starts_with("http://") || url.starts_with("https://");
            let problem = format!("`{url}` is not the address of a server");
            ensure(is_url, "rollout.endpoints", problem, "write it as http://127.0.0.1:8000")?;
            let is_new = !self.endpoints[..index].contains(url);
            ensure(is_new, "rollout.endpoints", format!("duplicate address `{url}`"), "name each server once")?;
        }
        let truncated = [
            ("rollout.top_p", self.top_p != 1.0, "1"),
            ("rollout.top_k", self.top_k != 0, "0"),
            ("rollout.min_p", self.min_p != 0.0, "0"),
        ];
        for (key, is_set, off) in truncated {
            ensure(
                !is_set,
                key,
                "it cannot be used with rollout.endpoints, because servers report log-probabilities after it",
                format!("set it to {off}, or remove rollout.endpoints"),
            )?;
        }
        let needed = self.server == ServerKind::Command;
        let hint = "name a program that makes the servers use the adapter in the folder that it is given";
        ensure(
            !needed || self.reload_command.first().is_some_and(|program| !program.is_empty()),
            "rollout.reload_command",
            "it is empty, and rollout.server is `command`",
            hint,
        )?;
        ensure(
            needed || self.reload_command.is_empty(),
            "rollout.reload_command",
            "it is only used if rollout.server is `command`",
            "remove it, or set rollout.server to command",
        )
    }
}

impl RewardSection {
    /// Returns the first value that is invalid under the prior prompt of this name, with or without a tag, if completions are
    /// truncated at `max_completion_length`.
    pub fn validate(&self, prompt: &str, has_tag: bool, max_completion_length: usize) -> Check {
        let weights = self.all_weights(has_tag);
        let remedy = "use a number of 0 or more; 0 measures without rewarding";
        // The value as written: without a tag, the resolved weight of `format` is always 0.
        let written = [("reward.format.weight", self.format.weight.unwrap_or(0.0))];
        for &(key, weight) in written.iter().chain(&weights) {
            ensure(weight.is_finite() && weight >= 0.0, key, format!("{weight} is not a valid weight"), remedy)?;
        }
        let forms = [
            ("reward.format.weight", self.format.weight),
            ("reward.format_strict.weight", self.format_strict.weight),
            ("reward.tag_count.weight", self.tag_count.weight),
            ("reward.gate", (self.gate == Gate::Format).then_some(1.0)),
        ];
        for (key, weight) in forms {
            ensure(
                has_tag || weight.is_none_or(|it| it == 0.0),
                key,
                format!("the prior prompt `{prompt}` has no format to reward"),
                "remove it, or choose a prior prompt with tags",
            )?;
        }
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        ensure(
            sum > 0.0,
            "reward.accuracy.weight",
            "all rewards have weight 0",
            "set a weight above 0; unset uses the study's weights, 0.5 for accuracy and 0.5 for format",
        )?;
        self.length.validate(max_completion_length)?;
        self.repetition.validate()?;
        self.code.validate()?;
        self.random.validate()?;
        custom(&self.custom)
    }
}

impl LengthSection {
    fn validate(&self, max_completion_length: usize) -> Check {
        at_least_one(
            "reward.length.max_length",
            self.max_length.unwrap_or(1),
            "use 1 or more; unset uses rollout.max_completion_length",
        )?;
        let (limit, cache) = (self.limit(max_completion_length), self.soft_punish_cache.unwrap_or(1));
        let remedy = format!("use 1 to {limit}, the length limit; unset uses a fifth of it");
        ensure(
            (1..=limit).contains(&cache),
            "reward.length.soft_punish_cache",
            format!("{cache} is out of range"),
            remedy,
        )?;
        let ranges = [
            ("reward.length.min_value_correct", self.min_value_correct, self.max_value_correct),
            ("reward.length.min_value_wrong", self.min_value_wrong, self.max_value_wrong),
        ];
        for (key, min, max) in ranges {
            ensure(
                min.is_finite() && max.is_finite() && min <= max,
                key,
                format!("the range from {min} to {max} is empty"),
                "put the smaller value first; open-r1 uses 0.5 to 1 for right answers and -1 to -0.5 for wrong ones",
            )?;
        }
        Ok(())
    }
}

impl RepetitionSection {
    fn validate(&self) -> Check {
        at_least_one(
            "reward.repetition.ngram_size",
            self.ngram_size,
            "use 1 or more; open-r1 uses 3, arXiv 2502.03373 uses 40",
        )?;
        let penalty = self.max_penalty;
        ensure(
            penalty.is_finite() && penalty <= 0.0,
            "reward.repetition.max_penalty",
            format!("{penalty} would reward repetition"),
            "use 0 or less; -1 is usual",
        )
    }
}

impl CodeSection {
    fn validate(&self) -> Check {
        not_empty("reward.code.column", &self.column, "use the data column with the tests")?;
        let timeout = self.timeout;
        ensure(
            0.0 < timeout && timeout <= 1e6,
            "reward.code.timeout",
            format!("{timeout} seconds is not a valid time limit"),
            "use a number above 0; the default is 10",
        )
    }
}

impl RandomSection {
    fn validate(&self) -> Check {
        ensure(
            0.0 < self.probability && self.probability < 1.0,
            "reward.random.probability",
            format!("{} would give every completion the same reward", self.probability),
            "use a number above 0 and below 1; 0.5 is usual",
        )
    }
}

fn custom(components: &[CustomSection]) -> Check {
    let key = "reward.custom";
    for (index, CustomSection { name, command, timeout, .. }) in components.iter().enumerate() {
        let plain = !name.is_empty() && name.chars().all(|it| it.is_ascii_alphanumeric() || "_-".contains(it));
        ensure(
            plain,
            key,
            format!("`{name}` is not a valid name"),
            "use letters, digits, `-` and `_`; the name is part of metric names",
        )?;
        let taken = RULES.contains(&name.as_str()) || components[..index].iter().any(|it| it.name == *name);
        ensure(!taken, key, format!("duplicate name `{name}`"), "use a different name for each component")?;
        let program = command.first().is_some_and(|it| !it.is_empty());
        ensure(
            program,
            key,
            format!("`{name}` has no command"),
            r#"set it, such as command = ["python3", "judge.py"]"#,
        )?;
        let seconds = format!("{timeout} seconds is not a valid time limit for `{name}`");
        ensure(0.0 < *timeout && *timeout <= 1e6, key, seconds, "use a number above 0; the default is 60")?;
    }
    Ok(())
}

impl GrpoSection {
    fn validate(&self) -> Check {
        self.validate_clip()?;
        not_negative("grpo.beta", self.beta, "use 0 or more; 0 leaves out the KL term")?;
        not_negative("grpo.entropy_coef", self.entropy_coef, "use 0 or more; 0 switches the bonus off")?;
        not_negative(
            "grpo.truncation_penalty",
            self.truncation_penalty,
            "use 0 or more; it is subtracted from the reward, and 0 switches it off",
        )?;
        at_least_one("grpo.num_iterations", self.num_iterations, "use 1 or more; 1 uses each completion once")?;
        at_least_one(
            "grpo.steps_per_generation",
            self.steps_per_generation,
            "use 1 or more; 1 makes one update per rollout batch",
        )
    }

    /// The bounds of the probability ratio.
    pub fn validate_clip(&self) -> Check {
        let clip = "use a number above 0 and below 1; 0.2 is usual, for gspo about 3e-4";
        ensure(
            0.0 < self.epsilon && self.epsilon < 1.0,
            "grpo.epsilon",
            format!("{} is out of range", self.epsilon),
            clip,
        )?;
        positive(
            "grpo.epsilon_high",
            self.clip_high(),
            "use a number above 0; dapo uses 0.28, unset uses grpo.epsilon",
        )?;
        let is_cispo = self.loss_type == LossType::Cispo;
        ensure(
            !is_cispo || self.epsilon_high.is_some(),
            "grpo.epsilon_high",
            "cispo requires the maximum weight of a token",
            "set it to the maximum; 5.0 is usual",
        )?;
        let delta = self.delta.unwrap_or(f64::INFINITY);
        let beyond = 1.0 + self.clip_high();
        ensure(
            is_cispo || delta > beyond,
            "grpo.delta",
            format!(
                "{delta} is not above 1 + epsilon_high = {beyond}, so it would clip ratios that the first clip allows"
            ),
            "use a larger number, such as 4; unset switches it off",
        )?;
        Ok(())
    }
}

impl TrainSection {
    fn validate(&self) -> Check {
        at_least_one(
            "train.steps",
            self.steps.unwrap_or(1),
            "use 1 or more; unset trains for train.epochs passes over the data",
        )?;
        at_least_one("train.epochs", self.epochs, "use 1 or more; 1 uses each question once")?;
        positive(
            "train.learning_rate",
            self.learning_rate,
            "use a number above 0; 1e-5 is usual for LoRA on a model with billions of weights",
        )?;
        let share = "use a share between 0 and 1";
        let min_lr = self.min_lr_rate;
        ensure((0.0..=1.0).contains(&min_lr), "train.min_lr_rate", format!("{min_lr} is out of range"), share)?;
        let warmup = self.warmup_ratio;
        ensure((0.0..=1.0).contains(&warmup), "train.warmup_ratio", format!("{warmup} is out of range"), share)?;
        for (key, beta) in [("train.adam_beta1", self.adam_beta1), ("train.adam_beta2", self.adam_beta2)] {
            let remedy = "use a number of at least 0 and below 1; the study uses 0.9 and 0.95";
            ensure((0.0..1.0).contains(&beta), key, format!("{beta} is out of range"), remedy)?;
        }
        positive("train.adam_epsilon", self.adam_epsilon, "use a number above 0; 1e-8 is usual")?;
        not_negative("train.weight_decay", self.weight_decay, "use 0 or more; 0 switches it off")?;
        not_negative("train.max_grad_norm", self.max_grad_norm, "use 0 or more; 0 switches clipping off")?;
        at_least_one("train.threads", self.threads.unwrap_or(1), "use 1 or more; unset uses one per core")
    }
}

fn not_empty(key: impl Into<Cow<'static, str>>, value: &str, remedy: &str) -> Check {
    ensure(!value.trim().is_empty(), key, "expected a value, found an empty string", remedy)
}

fn at_least_one(key: &'static str, value: usize, remedy: &str) -> Check {
    ensure(value >= 1, key, format!("expected 1 or more, found {value}"), remedy)
}

fn positive(key: impl Into<Cow<'static, str>>, value: f64, remedy: &str) -> Check {
    ensure(value.is_finite() && value > 0.0, key, format!("expected a number above 0, found {value}"), remedy)
}

fn not_negative(key: &'static str, value: f64, remedy: &str) -> Check {
    ensure(value.is_finite() && value >= 0.0, key, format!("expected 0 or more, found {value}"), remedy)
}

/// The divisors of `number` that are closest to `wanted`, which is not a divisor.
fn divisors_near(number: usize, wanted: usize) -> String {
    let divisors: Vec<usize> = (1..=number).filter(|it| number.is_multiple_of(*it)).collect();
    let above = divisors.partition_point(|it| *it < wanted);
    let near = &divisors[above.saturating_sub(2)..(above + 2).min(divisors.len())];
    near.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
