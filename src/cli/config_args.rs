//! The flags that select a configuration, shared by all commands that use one.

use std::path::PathBuf;

use crate::config::ConfigLayers;

/// The sources of the configuration. Later ones override earlier ones: preset, files, `RFT_*` environment variables, `--set`,
/// the command's flags.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Start from this preset (`rft config list` prints them)
    ///
    /// Default: the `preset` key of the configuration file, else `tiny`, or `qwen2.5-0.5b` if you select a model other than the
    /// embedded one.
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub preset: Option<String>,

    /// Read values from this TOML file; repeatable, later files override earlier ones
    ///
    /// The file needs only the keys that it changes. `rft config show` prints all keys.
    #[arg(long = "config", value_name = "FILE", help_heading = "Configuration")]
    pub files: Vec<PathBuf>,

    /// Set one value, such as `train.learning_rate=1e-5`; repeatable
    ///
    /// The value is TOML or a bare word: `--set grpo.loss_type=dapo`, `--set 'rollout.stop=["\n\n"]'`. The value `unset` removes
    /// an optional value. The environment variable RFT_TRAIN__LEARNING_RATE does the same; `--set` overrides it.
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Configuration")]
    pub sets: Vec<String>,
}

impl ConfigArgs {
    /// The layers from these flags and the environment. A command adds its own flags to [`ConfigLayers::flags`].
    pub fn layers(&self) -> ConfigLayers {
        // A variable that is not valid Unicode is never one of `rft`'s.
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
