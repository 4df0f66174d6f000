//! The flags that choose a configuration, shared by every command that runs from one.

use std::path::PathBuf;

use crate::config::ConfigLayers;

/// Where the configuration comes from. Later ones win: preset, files, `RFT_*` environment, `--set`, the command's flags.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Start from this preset (`rft config list` names them)
    ///
    /// Without it a file's own `preset = "..."` counts, then `tiny`, or `qwen2.5-0.5b` where another model than the
    /// embedded one is named.
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub preset: Option<String>,

    /// Take values from this TOML file; may be repeated, a later file wins
    ///
    /// The file needs just the keys it changes. `rft config show` prints them all.
    #[arg(long = "config", value_name = "FILE", help_heading = "Configuration")]
    pub files: Vec<PathBuf>,

    /// Set one value, such as `train.learning_rate=1e-5`; may be repeated
    ///
    /// The value is TOML, or a bare word: `--set grpo.loss_type=dapo`, `--set 'rollout.stop=["\n\n"]'`. `unset` takes an
    /// optional value back. The environment variable RFT_TRAIN__LEARNING_RATE does the same, below `--set`.
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Configuration")]
    pub sets: Vec<String>,
}

impl ConfigArgs {
    /// The layers so far: these flags and the environment. A command adds its own flags to [`ConfigLayers::flags`].
    pub fn layers(&self) -> ConfigLayers {
        // A variable that is not Unicode cannot be one of ours.
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        ConfigLayers {
            preset: self.preset.clone(),
            files: self.files.clone(),
            env: env.filter(|(name, _)| name.starts_with("RFT_")).collect(),
            sets: self.sets.clone(),
            flags: Vec::new(),
        }
    }
}
