//! The schema: every key of a configuration, its type, and what follows from it.
//!
//! Keys are TRL's where TRL has one. An optional key is written `"unset"` in TOML, which has no null, so that a layer can
//! take back what a lower one set and a written configuration names every key.

use serde::{Deserialize, Serialize};

use super::reward::RewardSection;

/// Everything that decides what a run does. Written, resolved, into the run directory; a run can be repeated from it.
///
/// A *step* is one rollout batch and the optimiser updates made on it: `prompts_per_step` questions with
/// `num_generations` completions each, cut into `steps_per_generation` mini-batches, passed over `num_iterations` times.
/// Step counts (`train.steps`, `save_steps`, `eval.every`) count steps; the learning-rate schedule counts updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub model: ModelSection,
    pub prompt: PromptSection,
    pub data: DataSection,
    pub lora: LoraSection,
    pub rollout: RolloutSection,
    pub reward: RewardSection,
    pub grpo: GrpoSection,
    pub train: TrainSection,
    pub eval: EvalSection,
    pub run: RunSection,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// `tiny` (embedded), a hub id (`org/name`), a Hugging Face folder or a `.gguf` file.
    pub path: String,
    /// Branch, tag or commit, for a hub id.
    pub revision: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSection {
    /// Name of a shipped prior prompt or path of a user's file.
    pub ppe: String,
    /// `model` (the model's chat template), `plain`, or the path of a Jinja file.
    pub template: String,
    /// Put the opening tag of the prior prompt at the start of the response.
    pub prefill: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// The first `max_questions` rows, as they stand.
    Head,
    /// `max_questions` rows drawn by the seed.
    Shuffle,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// `arithmetic` (embedded generator), a file (JSONL, JSON, CSV, Parquet, each also .gz) or a hub data set id.
    pub path: String,
    /// Branch, tag or commit, for a hub id.
    pub revision: String,
    /// Split of a hub data set or of the generator.
    pub split: String,
    /// Unset: as the schema of a known data set says.
    #[serde(default, with = "super::optional")]
    pub question_column: Option<String>,
    /// Unset: as the schema of a known data set says.
    #[serde(default, with = "super::optional")]
    pub answer_column: Option<String>,
    /// Which rows, where `max_questions` is fewer than there are.
    pub take: Take,
    /// Unset: all.
    #[serde(default, with = "super::optional")]
    pub max_questions: Option<usize>,
    /// Take out questions that overlap with those of a benchmark, before any are taken; see [`crate::data::decontaminate`].
    pub decontaminate: bool,
    /// Refuse the data where a larger share of the questions has a gold answer that cannot be read.
    pub max_unreadable: f64,
    /// Draw the order of questions anew in every epoch; `false` keeps the file's order.
    pub shuffle: bool,
    /// Levels of the arithmetic generator, each 1 to 3: the number of steps of a problem.
    pub levels: Vec<u8>,
}

/// The linear layers of a decoder block, in the order in which they are applied.
pub const LINEAR_MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Stands for all of [`LINEAR_MODULES`], as in PEFT.
pub const ALL_LINEAR: &str = "all-linear";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    /// Rank of the two factors.
    pub r: usize,
    /// The adapter's product is multiplied by `lora_alpha / r`; see [`LoraSection::scale`].
    pub lora_alpha: f64,
    /// Any of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or `all-linear`.
    pub target_modules: Vec<String>,
    /// Scale by `lora_alpha / sqrt(r)` instead.
    pub use_rslora: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSection {
    /// Questions of one rollout batch.
    pub prompts_per_step: usize,
    /// Completions of one question: the size of a group.
    pub num_generations: usize,
    /// Longest prompt, in tokens; longer questions are left out and counted.
    pub max_prompt_length: usize,
    /// Longest completion, in tokens; a longer one is truncated.
    pub max_completion_length: usize,
    /// Above 0: completions that are all alike teach nothing.
    pub temperature: f64,
    /// Sample among the likeliest tokens that together hold this probability; 1 switches it off.
    pub top_p: f64,
    /// Sample among this many of the likeliest tokens.
    /// 0 switches it off.
    pub top_k: usize,
    /// Leave out tokens less likely than this share of the likeliest one; 0 switches it off.
    pub min_p: f64,
    /// Strings that end a completion, beside the model's end-of-sequence tokens.
    pub stop: Vec<String>,
    /// Completions decoded at the same time.
    pub max_rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    Grpo,
    Dapo,
    DrGrpo,
    Bnpo,
    Gspo,
    Cispo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    Group,
    Batch,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    K1,
    K2,
    K3,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoSection {
    pub loss_type: LossType,
    /// What the centred rewards of a group are divided by: the group's standard deviation, the batch's, or nothing.
    pub scale_rewards: ScaleRewards,
    /// Clip range below 1.
    pub epsilon: f64,
    /// Clip range above 1; unset: `epsilon`.
    #[serde(default, with = "super::optional")]
    pub epsilon_high: Option<f64>,
    /// Dual clip: upper bound of the ratio where the advantage is negative; unset: off.
    #[serde(default, with = "super::optional")]
    pub delta: Option<f64>,
    /// Weight of the KL term against the model with the adapter switched off; 0 leaves the term out.
    pub beta: f64,
    /// Estimators k1, k2, k3 of the KL divergence (J. Schulman, "Approximating KL divergence", 2020).
    pub kl_estimator: KlEstimator,
    /// Weight of the entropy bonus; 0 switches it off.
    pub entropy_coef: f64,
    /// Leave truncated completions out of the loss.
    pub mask_truncated_completions: bool,
    /// Taken from the reward of a truncated completion.
    pub truncation_penalty: f64,
    /// Passes over a rollout batch (mu).
    pub num_iterations: usize,
    /// Mini-batches, each one optimiser update, that a rollout batch is cut into.
    pub steps_per_generation: usize,
    /// Replace groups whose rewards are all equal by new questions, in at most this many extra rounds; 0: off.
    pub max_refills: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    Constant,
    Linear,
    Cosine,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Rollout batches to train on; unset: as many as `epochs` passes over the data give.
    #[serde(default, with = "super::optional")]
    pub steps: Option<usize>,
    /// Passes over the questions; read where `steps` is unset.
    pub epochs: usize,
    /// The largest learning rate of the schedule.
    pub learning_rate: f64,
    /// Course of the learning rate after the warm-up.
    pub lr_scheduler_type: LrScheduler,
    /// The schedule ends at this share of `learning_rate`.
    pub min_lr_rate: f64,
    /// Share of all updates in which the learning rate rises to `learning_rate`.
    pub warmup_ratio: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    /// Decoupled from the gradient, as AdamW has it.
    pub weight_decay: f64,
    /// Bound of the gradient's global norm; 0 switches clipping off.
    pub max_grad_norm: f64,
    /// Most tokens of one packed micro-batch.
    pub max_tokens_per_micro_batch: usize,
    /// Keep only each block's input and compute the block again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Key of every random draw.
    pub seed: u64,
    /// A checkpoint every so many steps; 0: only at the end.
    pub save_steps: usize,
    /// Worker threads; unset: one for each core.
    #[serde(default, with = "super::optional")]
    pub threads: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// `held-out` takes questions from the training data before training; else a data set as in `data.path`.
    pub path: String,
    /// Held-out questions; 0 switches evaluation off.
    pub questions: usize,
    /// Evaluate every so many steps; 0: before and after only.
    pub every: usize,
    /// Also evaluate with greedy decoding, before and after.
    pub greedy: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Folder that holds run directories.
    pub dir: String,
    /// Name of the run directory; unset: model, prompt and a counter.
    #[serde(default, with = "super::optional")]
    pub name: Option<String>,
    /// `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:NUMBER`.
    pub device: String,
}

impl RunConfig {
    /// Completions of one mini-batch, the unit of an optimiser update.
    pub fn completions_per_update(&self) -> usize {
        self.rollout.completions_per_step() / self.grpo.steps_per_generation
    }

    /// Steps of the whole run over `questions` training questions; an epoch's incomplete last batch is left out.
    pub fn total_steps(&self, questions: usize) -> usize {
        self.train.steps.unwrap_or(self.train.epochs * (questions / self.rollout.prompts_per_step))
    }

    /// Optimiser updates of the whole run: what the learning-rate schedule stretches over.
    pub fn total_updates(&self, questions: usize) -> usize {
        self.total_steps(questions) * self.grpo.updates_per_step()
    }
}

impl LoraSection {
    /// Every linear layer at rank `r`, scaled by the usual 2.
    pub fn all_linear(r: usize) -> Self {
        Self { r, lora_alpha: 2.0 * r as f64, target_modules: vec![ALL_LINEAR.to_owned()], use_rslora: false }
    }

    /// What the product of B and A is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732).
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

impl RolloutSection {
    /// Completions sampled in one step.
    pub fn completions_per_step(&self) -> usize {
        self.prompts_per_step * self.num_generations
    }

    /// The longest sequence of prompt and completion, in tokens.
    pub fn max_sequence_length(&self) -> usize {
        self.max_prompt_length + self.max_completion_length
    }
}

impl GrpoSection {
    /// Clip range above 1.
    pub fn clip_high(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }

    /// Optimiser updates made on one rollout batch. Where it is 1, the policy that is trained is the one that sampled,
    /// and every importance ratio is 1.
    pub fn updates_per_step(&self) -> usize {
        self.steps_per_generation * self.num_iterations
    }
}
