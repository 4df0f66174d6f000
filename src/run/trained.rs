//! The argument of `--adapter`: a run, or an adapter folder.

use super::inputs::{ALL, short};
use super::manifest::Manifest;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

use crate::config::{self, ConfigLayers, RunConfig};
use crate::model::hub::{HubConfig, Kind, Plan, Repo, adapter_files, is_hub_id};
use crate::model::lora::Adapter;
use crate::model::peft::{self, load_adapter};
use crate::model::source::ModelSource;
use crate::prompt::{self, Mixture};

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

    /// As [`Trained::find`], or an adapter on the Hub, which is downloaded if it is not in the cache. A path that exists takes
    /// precedence over a Hub id of the same form.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if path.exists() || !is_hub_id(name) {
            return Self::find(path);
        }
        let files = || {
            let plan = Plan::new(&HubConfig::from_env()?, Repo::new(Kind::Model, name, "main")?, adapter_files)?;
            plan.fetch(&mut |_| {})?;
            Self::find(&plan.folder())
        };
        files().with_context(|| format!("open the adapter `{name}`, which is not a folder on this machine"))
    }

    /// Adds the run's configuration as a layer below the user's files.
    pub fn configure(&self, layers: &mut ConfigLayers) {
        layers.files.splice(0..0, self.config.clone());
    }

    /// The model that the adapter was trained on, and its revision: from the run's configuration, or else the name in the
    /// adapter's own configuration.
    pub fn base_model(&self) -> Result<(Option<String>, Option<String>)> {
        let Some(RunConfig { model, .. }) = self.own_config()? else {
            return Ok((peft::load_config(&self.folder)?.base_model_name_or_path, None));
        };
        Ok((Some(model.path), Some(model.revision)))
    }

    /// The configuration of the run; `None` for an adapter without a run.
    fn own_config(&self) -> Result<Option<RunConfig>> {
        let Some(run) = &self.config else { return Ok(None) };
        let layers = ConfigLayers { files: vec![run.clone()], ..ConfigLayers::default() };
        Ok(Some(config::resolve(&layers)?.config))
    }

    /// Loads the adapter, for the model `source`.
    ///
    /// # Errors
    /// It does not fit the model; if the model is not the one that it was trained on, this is the first part of the error.
    pub fn adapter(&self, source: &ModelSource) -> Result<Adapter> {
        let adapter = load_adapter(&self.folder, &source.config, None);
        match self.base_warning(source).is_some().then(|| self.base_model().ok()?.0).flatten() {
            Some(base) => adapter.with_context(|| {
                let (folder, name) = (self.folder.display(), &source.name);
                format!("the adapter `{folder}` belongs to `{base}`, not to `{name}`\nhint: leave out --model, or pass --model {base}")
            }),
            None => adapter,
        }
    }

    /// A warning if `source` is not the model that the adapter was trained on.
    pub fn base_warning(&self, source: &ModelSource) -> Option<String> {
        base_warning(&self.folder, source)
    }
}

/// A warning if `source` is not the model that the adapter in `folder` was trained on.
fn base_warning(folder: &Path, source: &ModelSource) -> Option<String> {
    Some(format!("{}: results may be meaningless", other_base(folder, source)?.difference))
}

/// Another model, on which an adapter was trained.
pub struct OtherBase {
    pub name: String,
    /// A sentence.
    pub difference: String,
    /// Only the names were compared.
    pub by_name: bool,
}

/// The model that the adapter in `folder` was trained on, if this is not `source`: by the hash in the manifest of its run, else by
/// the name in its configuration.
pub fn other_base(folder: &Path, source: &ModelSource) -> Option<OtherBase> {
    // The folder of the run, for its adapter and for that of a checkpoint.
    let manifests = folder.ancestors().skip(1).take(3).map(|folder| folder.join("manifest.json"));
    let manifest = manifests.filter(|path| path.is_file()).find_map(|path| Manifest::read_file(&path).ok());
    let (base, difference) = match &manifest {
        Some(Manifest { model, .. }) => {
            let hash = model.files.get(ALL).filter(|hash| **hash != source.hash)?;
            let hashes = format!("SHA-256 {}, now {}", short(hash), short(&source.hash));
            (model.path.clone(), format!(", but the weights of `{}` are different ({hashes})", source.name))
        }
        None => {
            let base = peft::load_config(folder).ok()?.base_model_name_or_path?;
            let last = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
            if last(&base) == last(&source.name) {
                return None;
            }
            (base, format!(" according to its configuration, not on `{}`", source.name))
        }
    };
    let difference = format!("the adapter `{}` was trained on `{base}`{difference}", folder.display());
    Some(OtherBase { name: base, difference, by_name: manifest.is_none() })
}

/// The prior prompts of `config`: those that the user chose, or those of training. If they are the run's own and not all of them
/// are shipped, they are read from the run directory, because the user's files may have changed since. `chosen`: the user
/// selected a prompt.
pub fn prior_prompts(trained: Option<&Trained>, config: &RunConfig, chosen: bool) -> Result<Mixture> {
    if !chosen && trained.is_some() && config.distilled().is_some() {
        return Mixture::of_entries(&config.training_prompts());
    }
    let entries = config.prompt.entries();
    if let Some(trained) = trained.filter(|_| !chosen)
        && let (Some(own), Some(file)) = (trained.own_config()?, &trained.prompt)
        && own.prompt.entries() == entries
        && !entries.iter().all(|entry| prompt::find_shipped(&entry.ppe).is_some())
    {
        return Mixture::read(file);
    }
    Mixture::of_config(&config.prompt)
}
