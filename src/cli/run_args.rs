//! The flags that describe a run, shared by the commands that train.

use super::config_args::ConfigArgs;
use crate::config::ConfigLayers;

#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Prior prompt: reasoning, planning, code, recall, null-example, none, or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub ppe: Option<String>,

    /// Model: `tiny` (embedded), a Hub id, a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,

    /// Training questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a Hub data set id
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,

    /// Column with the questions, if it cannot be detected
    #[arg(long, value_name = "COLUMN")]
    pub question_column: Option<String>,

    /// Column with the gold answers, if it cannot be detected
    #[arg(long, value_name = "COLUMN")]
    pub answer_column: Option<String>,

    /// Maximum number of training questions
    #[arg(long, value_name = "N")]
    pub max_questions: Option<i64>,

    /// Random seed
    #[arg(long, value_name = "N")]
    pub seed: Option<i64>,

    /// Device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Worker threads; the result does not depend on their number [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<i64>,

    #[command(flatten)]
    pub config: ConfigArgs,
}

impl RunArgs {
    /// The layers of the configuration, with these flags on top.
    pub fn layers(&self) -> ConfigLayers {
        let mut layers = self.config.layers();
        layers.prompt_flag(self.ppe.as_deref());
        layers.flag("model.path", self.model.clone(), "--model");
        layers.flag("run.device", self.device.clone(), "--device");
        layers.flag("data.path", self.data.clone(), "--data");
        layers.flag("data.question_column", self.question_column.clone(), "--question-column");
        layers.flag("data.answer_column", self.answer_column.clone(), "--answer-column");
        layers.flag("data.max_questions", self.max_questions, "--max-questions");
        layers.flag("train.seed", self.seed, "--seed");
        layers.flag("train.threads", self.threads, "--threads");
        layers
    }
}
