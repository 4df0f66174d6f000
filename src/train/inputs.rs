//! The files that a run reads, and the check that a resumed run reads the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Result, bail};

use crate::config::{self, ConfigLayers, RunConfig};
use crate::disk::atomic;
use crate::disk::hash::sha256;
use crate::disk::hash_cache::NamedFiles;
use crate::model::files;
use crate::model::hub::is_hub_id;
use crate::model::source::{ModelOrigin, ModelSource};
use crate::run::RunDir;
use crate::run::inputs::{ALL, changes};
use crate::run::manifest::{InputChange, Manifest, SourceRecord};

/// How many changed inputs an error names.
const NAMED: usize = 6;

/// The files that a run reads.
#[derive(Clone)]
pub struct InputFiles {
    pub model: InputSource,
    pub data: InputSource,
    /// Unless the held-out questions are part of the training data.
    pub held_out: Option<InputSource>,
    /// The user's own chat template.
    pub template: Option<InputSource>,
    /// The adapter that the run starts from.
    pub init_adapter: Option<InputSource>,
    /// The file with the pass rates of the training questions.
    pub difficulty: Option<InputSource>,
}

/// A source and its files, whose hashes are not in the record yet.
#[derive(Clone)]
pub struct InputSource {
    record: SourceRecord,
    files: NamedFiles,
}

/// The inputs of a run with their hashes.
pub struct InputHashes {
    pub model: SourceRecord,
    pub data: SourceRecord,
    pub held_out: Option<SourceRecord>,
    pub template: Option<SourceRecord>,
    pub init_adapter: Option<SourceRecord>,
    pub difficulty: Option<SourceRecord>,
    /// Of the run directory.
    pub files: BTreeMap<String, String>,
}

impl InputSource {
    /// A file or a Hub id, with the hash of all its content if it is known.
    pub fn new(path: &str, revision: &str, all: Option<String>, files: NamedFiles) -> Self {
        let revision = (is_hub_id(path) && !Path::new(path).exists()).then(|| revision.to_owned());
        let hashes = all.map(|hash| (ALL.to_owned(), hash)).into_iter().collect();
        Self { record: SourceRecord { path: path.to_owned(), revision, files: hashes }, files }
    }

    /// The files of an opened model.
    pub fn model(config: &RunConfig, source: &ModelSource) -> Result<Self> {
        let mut model =
            Self::new(&config.model.path, &config.model.revision, Some(source.hash.clone()), files::of(source)?);
        if source.origin == ModelOrigin::Embedded {
            model.record.files.extend(files::embedded_hashes());
        }
        Ok(model)
    }

    /// The template file that the configuration names, if it names one.
    pub fn template(config: &RunConfig) -> Option<Self> {
        let path = &config.prompt.template;
        Path::new(path).is_file().then(|| Self::new(path, "", None, NamedFiles::of(vec![path.into()])))
    }

    /// The file with pass rates that the configuration names, if it names one.
    pub fn difficulty(config: &RunConfig) -> Option<Self> {
        let path = config.data.difficulty.as_ref()?;
        Some(Self::new(path, "", None, NamedFiles::of(vec![path.into()])))
    }

    /// Makes `hash` a part of the hash of all content.
    pub fn add_to_hash(&mut self, hash: &str) {
        let all = self.record.files.entry(ALL.to_owned()).or_default();
        *all = sha256(format!("{all} {hash}").as_bytes());
    }

    fn hashes(self) -> Result<SourceRecord> {
        let Self { mut record, files } = self;
        record.files.extend(files.hashes()?);
        Ok(record)
    }
}

impl InputFiles {
    /// Hashes the files in a separate thread: a large checkpoint takes as long as loading it, which happens at the same time.
    pub fn hash(&self) -> HashingInputs {
        let files = self.clone();
        HashingInputs(thread::spawn(move || {
            Ok(InputHashes {
                model: files.model.hashes()?,
                data: files.data.hashes()?,
                held_out: files.held_out.map(InputSource::hashes).transpose()?,
                template: files.template.map(InputSource::hashes).transpose()?,
                init_adapter: files.init_adapter.map(InputSource::hashes).transpose()?,
                difficulty: files.difficulty.map(InputSource::hashes).transpose()?,
                files: BTreeMap::new(),
            })
        }))
    }
}

/// A thread that hashes the inputs.
pub struct HashingInputs(JoinHandle<Result<InputHashes>>);

impl HashingInputs {
    /// Waits for the hashes, and adds those of the files in the run directory.
    pub fn finish(self, run: &RunDir) -> Result<InputHashes> {
        let mut hashes = self.0.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))?;
        hashes.files = own_files(run)?;
        Ok(hashes)
    }
}

/// Changes the number of steps of a run in its configuration and its manifest, so that later resumes expect it. Returns the
/// change for the session.
pub fn extend(run: &RunDir, steps: usize, manifest: &mut Manifest) -> Result<InputChange> {
    let layers = ConfigLayers { files: vec![run.config()], ..ConfigLayers::default() };
    let mut config = config::resolve(&layers)?.config;
    config.train.steps = Some(steps);
    atomic::write(&run.config(), config::to_toml(&config, None).as_bytes())?;
    let hash = |manifest: &Manifest| manifest.files.get("config.toml").cloned();
    let before = hash(manifest);
    manifest.files = own_files(run)?;
    manifest.steps = steps;
    Ok(InputChange { input: format!("`train.steps` of the run, now {steps}"), before, after: hash(manifest) })
}

/// The hashes of the inputs in the run directory.
fn own_files(run: &RunDir) -> Result<BTreeMap<String, String>> {
    NamedFiles::of(run.inputs().into_iter().filter(|path| path.is_file()).collect()).hashes()
}

/// The error that names the inputs on this machine that have changed; `None` if all are unchanged. For a run that cannot be loaded:
/// the change is the likely cause.
pub fn explain(run: &RunDir, before: &Manifest) -> Option<String> {
    let now = || -> Result<Manifest> {
        Ok(Manifest {
            files: own_files(run)?,
            model: local(&before.model)?,
            data: local(&before.data)?,
            template: before.template.as_ref().map(local).transpose()?,
            init_adapter: before.init_adapter.as_ref().map(local).transpose()?,
            difficulty: before.difficulty.as_ref().map(local).transpose()?,
            held_out: before.held_out.as_ref().map(local).transpose()?,
            ..before.clone()
        })
    };
    let changed = changes(before, &now().ok()?);
    (!changed.is_empty()).then(|| refusal(run, &changed))
}

/// The record with the present hashes of its files, if it names a file or a folder. Files that are missing have none.
fn local(record: &SourceRecord) -> Result<SourceRecord> {
    let source = Path::new(&record.path);
    if !source.exists() {
        return Ok(record.clone());
    }
    let path = |name: &String| if source.is_dir() { source.join(name) } else { source.to_owned() };
    let names = record.files.keys().filter(|name| *name != ALL);
    let files = names.map(|name| (name.clone(), path(name))).filter(|(_, path)| path.is_file());
    let mut hashes = NamedFiles(files.collect()).hashes()?;
    hashes.extend(record.files.get(ALL).map(|hash| (ALL.to_owned(), hash.clone())));
    Ok(SourceRecord { files: hashes, ..record.clone() })
}

/// The manifest of a resumed run: that of `now` with the sessions of `before`, and the changes for the new session.
///
/// # Errors
/// An input has changed, and the user does not accept it.
pub fn compare(before: Manifest, now: Manifest, run: &RunDir, accept: bool) -> Result<(Manifest, Vec<InputChange>)> {
    let changed = changes(&before, &now);
    if !changed.is_empty() && !accept {
        bail!(refusal(run, &changed));
    }
    Ok((Manifest { sessions: before.sessions, ..now }, changed))
}

fn refusal(run: &RunDir, changed: &[InputChange]) -> String {
    let mut named: Vec<String> = changed.iter().take(NAMED).map(ToString::to_string).collect();
    if changed.len() > NAMED {
        named.push(format!("{} more", changed.len() - NAMED));
    }
    format!(
        "the inputs of `{}` have changed since it was started: {}\n\
         hint: restore them, start a new run, or pass --accept-changes to continue with the new ones, which is recorded in \
         manifest.json",
        run.path().display(),
        named.join(", ")
    )
}
