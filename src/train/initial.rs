//! The adapter that a run starts from, as `lora.init_adapter` names it.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::inputs::InputSource;
use crate::config::RunConfig;
use crate::disk::hash_cache::NamedFiles;
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::model::peft::{self, CONFIG, WEIGHTS};
use crate::model::source::{ModelSource, content_hash};
use crate::run::trained::{OtherBase, Trained, other_base};

/// An adapter to start from.
pub struct InitialAdapter {
    /// As the user wrote it.
    name: String,
    trained: Trained,
}

impl InitialAdapter {
    /// The adapter that the configuration names; `None` if it names none.
    ///
    /// # Errors
    /// It does not exist.
    pub fn open(config: &RunConfig) -> Result<Option<Self>> {
        let Some(name) = config.lora.init_adapter.clone() else { return Ok(None) };
        let trained = Trained::open(&name).context("read `lora.init_adapter`")?;
        Ok(Some(Self { name, trained }))
    }

    /// Its two files.
    pub fn input(&self) -> Result<InputSource> {
        let folder = &self.trained.folder;
        let files: Vec<_> =
            [CONFIG, WEIGHTS].map(|name| folder.join(name)).into_iter().filter(|it| it.is_file()).collect();
        let all = content_hash(&files)?;
        // The folder inside a run, so that the files are found again; the name, for a Hub id.
        let path = if Path::new(&self.name).exists() { folder.display().to_string() } else { self.name.clone() };
        Ok(InputSource::new(&path, "main", Some(all), NamedFiles::of(files)))
    }

    /// Makes `adapter`, a new one, start from this one. Returns a note for the user.
    ///
    /// # Errors
    /// The adapter does not fit the model or the configuration.
    pub fn apply(&self, adapter: &mut Adapter, source: &ModelSource) -> Result<String> {
        if let Some(OtherBase { name, difference, by_name }) = other_base(&self.trained.folder, source) {
            let same = match by_name {
                true => format!(
                    "; if both are the same, write `{}` as `base_model_name_or_path` in `{CONFIG}`",
                    source.name
                ),
                false => String::new(),
            };
            bail!("{difference}\nhint: use `{name}` as the model{same}");
        }
        self.fit(adapter, &source.config)
    }

    /// As [`InitialAdapter::apply`], for a model of which only the shape is known.
    pub fn fit(&self, adapter: &mut Adapter, shape: &ModelConfig) -> Result<String> {
        let folder = &self.trained.folder;
        let rank = peft::start_from(adapter, folder, shape)
            .with_context(|| format!("start from the adapter `{}`", folder.display()))?;
        Ok(format!("the run starts from the adapter `{}` of rank {rank}", self.name))
    }
}
