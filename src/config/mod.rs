//! What a run is: one [`RunConfig`], resolved from layers (preset, files, environment, `--set`, flags).

use serde::{Deserialize, Serialize};

/// Everything that decides what a run does. Written, resolved, into the run directory; a run can be repeated from it.
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
    pub revision: String,
    pub split: String,
    pub question_column: Option<String>,
    pub answer_column: Option<String>,
    pub take: Take,
    pub max_questions: Option<usize>,
    /// Draw the order of questions anew in every epoch; `false` keeps the file's order.
    pub shuffle: bool,
    /// Levels of the arithmetic generator.
    pub levels: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    pub r: usize,
    pub lora_alpha: f64,
    /// Any of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or `all-linear`.
    pub target_modules: Vec<String>,
    pub use_rslora: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSection {
    /// Questions of one rollout batch.
    pub prompts_per_step: usize,
    /// Branches of one question: the size of a group.
    pub num_generations: usize,
    /// Longest prompt, in tokens; longer questions are left out and counted.
    pub max_prompt_length: usize,
    pub max_completion_length: usize,
    pub temperature: f64,
    pub top_p: f64,
    /// 0 switches it off.
    pub top_k: usize,
    pub min_p: f64,
    /// Strings that end a completion, beside the model's end-of-sequence tokens.
    pub stop: Vec<String>,
    /// Branches decoded at the same time.
    pub max_rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The last box of the whole response: accuracy and format stay independent, as in the study.
    Response,
    /// The last box of the last closed answer element only.
    Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSection {
    pub accuracy: AccuracySection,
    pub format: FormatSection,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracySection {
    /// Unset: 0.5 beside a format reward, 1 alone.
    pub weight: Option<f64>,
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormatSection {
    /// Unset: 0.5 where the prior prompt has a tag, 0 for `none`.
    pub weight: Option<f64>,
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
    pub scale_rewards: ScaleRewards,
    /// Clip range below 1.
    pub epsilon: f64,
    /// Clip range above 1; unset: `epsilon`.
    pub epsilon_high: Option<f64>,
    /// Dual clip: upper bound of the ratio where the advantage is negative; unset: off.
    pub delta: Option<f64>,
    pub beta: f64,
    pub kl_estimator: KlEstimator,
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
    pub steps: Option<usize>,
    pub epochs: usize,
    pub learning_rate: f64,
    pub lr_scheduler_type: LrScheduler,
    /// The schedule ends at this share of `learning_rate`.
    pub min_lr_rate: f64,
    pub warmup_ratio: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub weight_decay: f64,
    /// Bound of the gradient's global norm; 0 switches clipping off.
    pub max_grad_norm: f64,
    /// Most tokens of one packed micro-batch.
    pub max_tokens_per_micro_batch: usize,
    /// Keep only each block's input and compute the block again in the backward pass.
    pub gradient_checkpointing: bool,
    pub seed: u64,
    /// A checkpoint every so many steps; 0: only at the end.
    pub save_steps: usize,
    /// Worker threads; unset: one for each core.
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
    pub name: Option<String>,
}
