//! The schema: every key of a configuration, its type, and the values derived from it.
//!
//! If TRL has a key, its name is TRL's. TOML has no null, so an unset optional key is written as `"unset"`. A layer can
//! therefore unset a value from a lower layer, and a written configuration contains every key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::optional::OrUnset;
use super::reward::RewardSection;

/// All settings of a run. The resolved configuration is saved in the run directory, and the run can be repeated from it.
///
/// A *step* is one rollout batch and its optimizer updates: `prompts_per_step` questions with `num_generations` completions
/// each, split into `steps_per_generation` mini-batches, with `num_iterations` passes over them.
/// Step counts (`train.steps`, `save_steps`, `eval.every`) count steps; the learning rate schedule counts updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub model: ModelSection,
    pub prompt: PromptSection,
    pub data: DataSection,
    pub lora: LoraSection,
    pub rollout: RolloutSection,
    pub reward: RewardSection,
    pub grpo: GrpoSection,
    pub distill: DistillSection,
    pub train: TrainSection,
    pub eval: EvalSection,
    pub run: RunSection,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// `tiny` (embedded), a Hub id (`org/name`), a Hugging Face folder or a `.gguf` file.
    pub path: String,
    /// Branch, tag or commit, for a Hub id.
    pub revision: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptSection {
    /// Name of a shipped prior prompt, or path of a user's file. `reasoning@2` is its wording 2. Unset: the prompts of `mix`.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<String>")]
    pub ppe: Option<String>,
    /// Number of the wording of `ppe`; 0 is the first.
    pub wording: usize,
    /// Several prior prompts instead of `ppe`, such as `[{ ppe = "reasoning", weight = 1 }, { ppe = "planning@1" }]`. Every group
    /// draws one, with a probability proportional to `weight`, which is 1 if it is left out.
    pub mix: Vec<MixEntry>,
    /// `model` (the model's chat template), `plain`, or the path of a Jinja file.
    pub template: String,
    /// Start the completion with the opening tag of the prior prompt.
    pub prefill: bool,
}

/// One of the prior prompts of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixEntry {
    /// As in `prompt.ppe`.
    pub ppe: String,
    #[serde(default = "one")]
    pub weight: f64,
}

impl MixEntry {
    /// The argument of `--set` that selects the mixture `mix`.
    pub fn setting(mix: &[MixEntry]) -> String {
        let value = toml::Value::try_from(mix).expect("TOML can represent a mixture");
        format!("prompt.mix={value}")
    }
}

fn one() -> f64 {
    1.0
}

impl PromptSection {
    /// The prior prompts, each as [`crate::prompt::find`] takes it: those of `mix`, or else the one of `ppe` with its wording.
    pub fn entries(&self) -> Vec<MixEntry> {
        match &self.ppe {
            Some(ppe) if self.mix.is_empty() => {
                let ppe = if self.wording == 0 { ppe.clone() } else { format!("{ppe}@{}", self.wording) };
                vec![MixEntry { ppe, weight: one() }]
            }
            _ => self.mix.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// The first `max_questions` rows, in their order.
    Head,
    /// `max_questions` rows selected at random.
    Shuffle,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// `arithmetic` (embedded generator), a file (JSONL, JSON, CSV, Parquet, optionally .gz) or a Hub data set id.
    pub path: String,
    /// Branch, tag or commit, for a Hub id.
    pub revision: String,
    /// Split of a Hub data set or of the generator.
    pub split: String,
    /// Unset: from the schema of a known data set.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<String>")]
    pub question_column: Option<String>,
    /// Unset: from the schema of a known data set.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<String>")]
    pub answer_column: Option<String>,
    /// Which rows to use if `max_questions` is smaller than their number.
    pub take: Take,
    /// Unset: all.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<usize>")]
    pub max_questions: Option<usize>,
    /// Remove questions that overlap with a benchmark, before `max_questions` applies; see [`crate::data::decontaminate`].
    pub decontaminate: bool,
    /// Maximum share of questions whose gold answer cannot be read; above it, the data is an error.
    pub max_unreadable: f64,
    /// Train only on questions whose pass rate in `difficulty` is from the first to the second number; unset: on all.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<[f64; 2]>")]
    pub pass_rate: Option<[f64; 2]>,
    /// File with the pass rate of every training question, as `rft difficulty` writes it; required for `pass_rate`.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<String>")]
    pub difficulty: Option<String>,
    /// Shuffle the questions in every epoch; `false` keeps the file's order.
    pub shuffle: bool,
    /// Levels of the arithmetic generator, each 1 to 14: the number of steps in a problem. The embedded model was trained on 1 to 3.
    pub levels: Vec<u8>,
}

/// The largest level of the arithmetic generator.
pub const MAX_ARITHMETIC_LEVEL: u8 = 14;

/// The name of the empty prior prompt.
pub const NO_PROMPT: &str = "none";

/// The linear layers of a decoder block, in the order in which they are applied.
pub const LINEAR_MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Means all of [`LINEAR_MODULES`], as in PEFT.
pub const ALL_LINEAR: &str = "all-linear";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    /// Rank of the adapter.
    pub r: usize,
    /// The product B·A is multiplied by `lora_alpha / r`; see [`LoraSection::scale`].
    pub lora_alpha: f64,
    /// Any of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or `all-linear`.
    pub target_modules: Vec<String>,
    /// Scale by `lora_alpha / sqrt(r)` instead.
    pub use_rslora: bool,
    /// Adapter to start from, whose rank is at most `r`: a run, a folder in PEFT's format or a Hub id; unset: a new adapter.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<String>")]
    pub init_adapter: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSection {
    /// Questions per rollout batch.
    pub prompts_per_step: usize,
    /// Completions per question: the size of a group. At least 2, unless a prompt is distilled.
    pub num_generations: usize,
    /// Maximum prompt length in tokens; longer questions are left out and counted.
    pub max_prompt_length: usize,
    /// Maximum completion length in tokens; longer completions are truncated.
    pub max_completion_length: usize,
    /// Above 0: a group of identical completions has no advantages.
    pub temperature: f64,
    /// Sample only from the most probable tokens with this total probability; 1 switches it off.
    pub top_p: f64,
    /// Sample only from this number of most probable tokens.
    /// 0 switches it off.
    pub top_k: usize,
    /// Exclude tokens that are less probable than this share of the most probable one; 0 switches it off.
    pub min_p: f64,
    /// Strings that end a completion, in addition to the model's end-of-sequence tokens.
    pub stop: Vec<String>,
    /// Number of completions decoded at the same time.
    pub max_rows: usize,
    /// Addresses of servers that generate the completions, such as `http://127.0.0.1:8000`; empty: this process generates them.
    pub endpoints: Vec<String>,
    /// How the servers take the adapter of each step: `vllm` and `sglang` load it over HTTP; `command` is for all others.
    pub server: ServerKind,
    /// With `server = "command"`: a program and its arguments. It is called with the folder of the adapter as its last
    /// argument, and ends when the servers use that adapter.
    pub reload_command: Vec<String>,
    /// Number of requests that a server gets at the same time.
    pub requests_per_endpoint: usize,
    /// Steps between two tests of which adapter the servers use; the first step is tested too.
    pub verify_every: usize,
    /// Maximum mean difference between the log-probabilities of the servers and of the trainer, in nats per token.
    pub max_logprob_difference: f64,
    /// How the loss corrects that difference: importance weights of tokens or of completions, truncated at
    /// `importance_sampling_cap`, or left out (`mask`) above it.
    pub importance_sampling_mode: ImportanceSampling,
    /// Maximum importance weight.
    pub importance_sampling_cap: f64,
}

/// How a server takes an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerKind {
    Vllm,
    Sglang,
    Command,
}

/// The correction of the difference between the log-probabilities of servers and trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSampling {
    None,
    TokenTruncate,
    TokenMask,
    SequenceTruncate,
    SequenceMask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    Grpo,
    Dapo,
    DrGrpo,
    Bnpo,
    Gspo,
    Cispo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    Group,
    Batch,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    K2,
    K3,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpoSection {
    /// The objective: how ratios are clipped and losses averaged; see [`crate::grpo::objective`].
    pub loss_type: LossType,
    /// Divisor of the centered rewards of a group: the group's standard deviation, the batch's, or none.
    pub scale_rewards: ScaleRewards,
    /// Clip range below 1.
    pub epsilon: f64,
    /// Clip range above 1; unset: `epsilon`.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub epsilon_high: Option<f64>,
    /// Dual clip: upper bound of the ratio if the advantage is negative; unset: off.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub delta: Option<f64>,
    /// Weight of the KL term against the base model without any adapter, also without `lora.init_adapter`; 0 leaves the term out.
    pub beta: f64,
    /// Estimator of the KL divergence, k2 or k3 (J. Schulman, "Approximating KL divergence", 2020).
    pub kl_estimator: KlEstimator,
    /// Weight of the entropy bonus; 0 switches it off.
    pub entropy_coef: f64,
    /// Leave truncated completions out of the loss.
    pub mask_truncated_completions: bool,
    /// Subtracted from the reward of a truncated completion.
    pub truncation_penalty: f64,
    /// Passes over a rollout batch (mu).
    pub num_iterations: usize,
    /// Number of mini-batches per rollout batch, each with one optimizer update.
    pub steps_per_generation: usize,
    /// Replace groups whose rewards are all equal with new questions, in at most this many extra rounds; 0: off.
    pub max_refills: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DistillKl {
    /// Over the whole vocabulary.
    Full,
    /// Estimated from the sampled token.
    Sampled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistillSection {
    /// The reverse KL divergence from the teacher, with `train.method = "distill"`: over the `full` vocabulary, or of the `sampled` token.
    pub kl: DistillKl,
}

/// How a model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// From rewards, under the prior prompt.
    Grpo,
    /// From the model without its adapter under the prior prompt. The trained model samples without one.
    Distill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    Constant,
    Linear,
    Cosine,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// `grpo` learns from rewards under the prior prompt; `distill` learns without it to answer as the base model does with it.
    pub method: Method,
    /// Number of steps, each with one rollout batch; unset: determined by `epochs`.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<usize>")]
    pub steps: Option<usize>,
    /// Passes over the questions; used if `steps` is unset.
    pub epochs: usize,
    /// Maximum learning rate of the schedule.
    pub learning_rate: f64,
    /// Shape of the learning rate schedule after the warm-up.
    pub lr_scheduler_type: LrScheduler,
    /// Final learning rate of the schedule, as a share of `learning_rate`.
    pub min_lr_rate: f64,
    /// Share of all updates in which the learning rate rises to `learning_rate`.
    pub warmup_ratio: f64,
    /// Decay of AdamW's mean of the gradient.
    pub adam_beta1: f64,
    /// Decay of AdamW's mean of the squared gradient.
    pub adam_beta2: f64,
    /// Added to the divisor of AdamW's step.
    pub adam_epsilon: f64,
    /// Decoupled from the gradient, as in AdamW.
    pub weight_decay: f64,
    /// Maximum global norm of the gradient; 0 switches clipping off.
    pub max_grad_norm: f64,
    /// Maximum number of tokens in a packed micro-batch.
    pub max_tokens_per_micro_batch: usize,
    /// Keep only each block's input, and recompute the block in the backward pass.
    pub gradient_checkpointing: bool,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Steps between checkpoints; 0: only at the end.
    pub save_steps: usize,
    /// Number of newest checkpoints to keep, in addition to the best by held-out accuracy; unset: all.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<usize>")]
    pub save_total_limit: Option<usize>,
    /// Worker threads; unset: one per core.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<usize>")]
    pub threads: Option<usize>,
}

/// The value of `eval.path` for questions that are held out of the training data.
pub const HELD_OUT: &str = "held-out";

/// The value of `eval.path` for held-out questions on which a setting is chosen: not those of [`HELD_OUT`], nor of a benchmark.
pub const TUNING: &str = "tuning";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// `held-out` takes questions from the training data before training; `tuning` takes others, for the trials of a sweep; else a
    /// data set as in `data.path`.
    pub path: String,
    /// Number of held-out questions; 0 switches evaluation off.
    pub questions: usize,
    /// Steps between evaluations; 0: only before and after training.
    pub every: usize,
    /// Also evaluate with greedy decoding, before and after training.
    pub greedy: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Folder with run directories.
    pub dir: String,
    /// Name of the run directory; unset: model, prompt and a counter.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<String>")]
    pub name: Option<String>,
    /// `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`.
    pub device: String,
}

impl RunConfig {
    /// Steps of the whole run with `questions` training questions; an epoch's incomplete last batch is left out.
    pub fn total_steps(&self, questions: usize) -> usize {
        self.train.steps.unwrap_or(self.train.epochs * (questions / self.rollout.prompts_per_step))
    }

    /// The divergence from the teacher that the run minimizes; `None` if it learns from rewards.
    pub fn distilled(&self) -> Option<DistillKl> {
        (self.train.method == Method::Distill).then_some(self.distill.kl)
    }

    /// The prior prompts under which the model is trained, and evaluated if nothing else is requested: none if the prompt is
    /// distilled.
    pub fn training_prompts(&self) -> Vec<MixEntry> {
        match self.train.method {
            Method::Grpo => self.prompt.entries(),
            Method::Distill => vec![MixEntry { ppe: NO_PROMPT.to_owned(), weight: one() }],
        }
    }
}

impl LoraSection {
    /// All linear layers at rank `r`, with the usual scale of 2.
    pub fn all_linear(r: usize) -> Self {
        Self {
            r,
            lora_alpha: 2.0 * r as f64,
            target_modules: vec![ALL_LINEAR.to_owned()],
            use_rslora: false,
            init_adapter: None,
        }
    }

    /// Factor of the product B·A: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732).
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

impl RolloutSection {
    /// Completions that this process decodes at the same time: with servers, only those of a check.
    pub fn local_rows(&self) -> usize {
        if self.endpoints.is_empty() { self.max_rows } else { 1 }
    }

    /// Number of completions per step.
    pub fn completions_per_step(&self) -> usize {
        self.prompts_per_step * self.num_generations
    }

    /// Maximum length of prompt and completion together, in tokens.
    pub fn max_sequence_length(&self) -> usize {
        self.max_prompt_length + self.max_completion_length
    }
}

impl GrpoSection {
    /// Clip range above 1.
    pub fn clip_high(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }

    /// Optimizer updates per rollout batch. If it is 1, the policy that is trained is the one that sampled, and every importance
    /// ratio is 1.
    pub fn updates_per_step(&self) -> usize {
        self.steps_per_generation * self.num_iterations
    }
}
