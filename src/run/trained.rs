//! The argument of `--adapter`: a run, or an adapter folder.

use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

use crate::config::{self, ConfigLayers, RunConfig};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::model::peft::{self, load_adapter};
use crate::prompt::{self, PriorPrompt};

/// The location of an adapter, and the configuration and prompt of the run that trained it.
pub struct Trained {
    /// The adapter's folder.
    pub folder: PathBuf,
    /// The last part of the path that the user gave.
    pub name: String,
    config: Option<PathBuf>,
    prompt: Option<PathBuf>,
}

impl Trained {
    /// # Errors
    /// `path` is neither a run with an adapter nor an adapter folder.
    pub fn find(path: &Path) -> Result<Self> {
        let inside = path.join("adapter");
        let folder = if inside.is_dir() { inside } else { path.to_owned() };
        ensure!(
            folder.join("adapter_config.json").is_file(),
            "`{}` is neither a run with an adapter nor an adapter folder\nhint: use a run directory, or a folder with an `adapter_config.json`",
            path.display()
        );
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_run = |name: &str| Some(path.join(name)).filter(|file| file.is_file());
        Ok(Self { folder, name, config: of_run("config.toml"), prompt: of_run("prompt.toml") })
    }

    /// Adds the run's configuration as a layer below the user's files.
    pub fn configure(&self, layers: &mut ConfigLayers) {
        layers.files.splice(0..0, self.config.clone());
    }

    /// The model that the adapter was trained on, and its revision: from the run's configuration, or else the name in the
    /// adapter's own configuration.
    pub fn base_model(&self) -> Result<(Option<String>, Option<String>)> {
        let Some(run) = &self.config else {
            return Ok((peft::load_config(&self.folder)?.base_model_name_or_path, None));
        };
        let layers = ConfigLayers { files: vec![run.clone()], ..ConfigLayers::default() };
        let model = config::resolve(&layers)?.config.model;
        Ok((Some(model.path), Some(model.revision)))
    }

    /// Loads the adapter, for a model of this shape.
    pub fn adapter(&self, model: &ModelConfig) -> Result<Adapter> {
        load_adapter(&self.folder, model, None)
    }
}

/// The prior prompt of `config`. If it is the run's own prompt and not a shipped one, it is read from the run directory, because
/// the user's file may have changed since. `chosen`: the user selected a prompt.
pub fn prior_prompt(trained: Option<&Trained>, config: &RunConfig, chosen: bool) -> Result<PriorPrompt> {
    match trained.and_then(|trained| trained.prompt.as_ref()) {
        Some(file) if !chosen && prompt::find_shipped(&config.prompt.ppe).is_none() => {
            prompt::find(&file.display().to_string())
        }
        _ => prompt::find(&config.prompt.ppe),
    }
}
