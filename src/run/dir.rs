//! The run directory: its name and the paths of its parts.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::config::{self, EvalSection, PromptSection, RunConfig};
use crate::disk::atomic::{verify_dir, write_error};
use crate::disk::files;
use crate::disk::hash::sha256_file;
use crate::disk::lock::{self, Lock, is_held};
use crate::disk::presence::Presence;
use crate::prompt;

/// Kinds of a held-out evaluation: sampled at temperature 1, and greedy.
pub const SAMPLED: &str = "sampled";
pub const GREEDY: &str = "greedy";

const CONFIG: &str = "config.toml";
const PROMPT: &str = "prompt.toml";
const CONTAMINATION: &str = "contamination.json";

/// The directory `runs/<name>`, opened by the process that trains, or by one that only reads.
pub struct RunDir {
    path: PathBuf,
    /// Held by the process that writes, so that two processes cannot work on the same run.
    _lock: Option<Lock>,
    /// Of the lock's file.
    presence: Option<Presence>,
}

impl RunDir {
    /// Creates a new run directory under `root`; nothing is ever overwritten. It is an error if `name` exists. Without a name,
    /// the run is named `<default_stem>-<counter>`, with a counter one above the highest existing one.
    pub fn create(root: &Path, name: Option<&str>, default_stem: &str) -> Result<Self> {
        files::create_dir_all(root).map_err(|error| write_error(root, &error))?;
        let path = match name {
            Some(name) => create_named(root, name)?,
            None => create_counted(root, &file_stem(default_stem))?,
        };
        Self::open(&path)?.locked()
    }

    /// Opens an existing run directory for reading.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            bail!(
                "no run directory `{}`\nhint: use the folder that `rft train` printed when it started, such as \
                 `runs/NAME`",
                path.display()
            );
        }
        Ok(Self { path: path.to_owned(), _lock: None, presence: None })
    }

    /// Opens an existing run directory to resume the run.
    pub fn resume(path: &Path) -> Result<Self> {
        let run = Self::open(path)?;
        if !run.config().is_file() {
            bail!(
                "`{}` is not a run directory: it has no config.toml\nhint: use the folder of the run, not of a checkpoint",
                path.display()
            );
        }
        run.locked()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// The folder was deleted or moved since this process began to work on it. Writing to it would create a new folder with a
    /// part of the run.
    pub fn check_presence(&self) -> Result<()> {
        self.presence.as_ref().map_or(Ok(()), Presence::check).map_err(|_| {
            anyhow!(
                "the run directory `{}` was deleted, moved or replaced while the run was working\n\
                 hint: if it was moved, resume the run from its last checkpoint where it is now, with `rft train --resume`",
                self.path.display()
            )
        })
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// The configuration that the run was started with. A user's own prompts are read from the run's copy.
    pub fn run_config(&self) -> Result<RunConfig> {
        let layers = config::ConfigLayers { files: vec![self.config()], ..config::ConfigLayers::default() };
        let mut config = config::resolve(&layers)?.config;
        if !config.prompt.entries().iter().all(|entry| prompt::find_shipped(&entry.ppe).is_some()) {
            let ppe = Some(self.prompt().display().to_string());
            config.prompt = PromptSection { ppe, wording: 0, mix: Vec::new(), ..config.prompt };
        }
        Ok(config)
    }

    /// The complete prior prompt, so that the run can be repeated without the user's file.
    pub fn prompt(&self) -> PathBuf {
        self.path.join(PROMPT)
    }

    /// The files of the run that are inputs of a resumed run.
    pub fn inputs(&self) -> [PathBuf; 2] {
        [self.config(), self.prompt()]
    }

    /// The matrix product algorithms in use on a GPU.
    pub fn products(&self) -> PathBuf {
        self.path.join("products.json")
    }

    pub fn manifest(&self) -> PathBuf {
        self.path.join("manifest.json")
    }

    /// The overlap of the training questions with benchmarks.
    pub fn contamination(&self) -> PathBuf {
        self.path.join(CONTAMINATION)
    }

    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The results of the finished run.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    pub fn completions(&self) -> PathBuf {
        self.path.join("completions.jsonl")
    }

    /// The trained adapter in PEFT format.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// The folder with the adapter that servers use for rollouts.
    pub fn server_adapters(&self) -> PathBuf {
        self.path.join("server-adapters")
    }

    /// Results of evaluations.
    pub fn eval(&self) -> PathBuf {
        self.path.join("eval")
    }

    /// The held-out completions after `step`, of the kind [`SAMPLED`] or [`GREEDY`].
    pub fn evaluation(&self, step: usize, kind: &str) -> PathBuf {
        self.eval().join(format!("step-{step:06}-{kind}.jsonl"))
    }

    /// Whether a run of `steps` steps is finished: trained, its adapter saved, and evaluated if `eval` requires it.
    pub fn is_finished(&self, steps: usize, eval: &EvalSection) -> Result<bool> {
        if !self.adapter().is_dir() {
            return Ok(false);
        }
        if eval.questions > 0 {
            // The last evaluation comes after the adapter.
            let greedy = !eval.greedy || self.evaluation(steps, GREEDY).is_file();
            return Ok(greedy && self.evaluation(steps, SAMPLED).is_file());
        }
        let checkpoint = self.checkpoint(steps).join("adapter");
        // There may be an adapter from an earlier stop.
        let weights = |folder: PathBuf| sha256_file(&folder.join("adapter_model.safetensors"));
        Ok(weights(checkpoint).ok().is_some_and(|hash| weights(self.adapter()).is_ok_and(|it| it == hash)))
    }

    /// The path of the checkpoint after `step`, whether it exists or not.
    pub fn checkpoint(&self, step: usize) -> PathBuf {
        self.path.join("checkpoints").join(format!("step-{step:06}"))
    }

    /// Steps that have a checkpoint, valid or not, in ascending order.
    pub fn checkpoints(&self) -> Result<Vec<usize>> {
        let folder = self.path.join("checkpoints");
        let names = file_names(&folder)?;
        let mut steps: Vec<usize> = names.iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest valid checkpoint. `skipped` is called with the error of each newer one that is damaged.
    pub fn newest_checkpoint(&self, mut skipped: impl FnMut(usize, anyhow::Error)) -> Result<Option<usize>> {
        for step in self.checkpoints()?.into_iter().rev() {
            match verify_dir(&self.checkpoint(step)) {
                Ok(()) => return Ok(Some(step)),
                Err(error) => skipped(step, error),
            }
        }
        Ok(None)
    }

    fn locked(mut self) -> Result<Self> {
        self._lock = lock::take(&self.path)?;
        if self._lock.is_none() {
            bail!(
                "another process is using `{}`\nhint: wait until it ends, or start a new run with another `--name`",
                self.path.display()
            );
        }
        let lock = self.path.join(lock::FILE);
        self.presence = Some(Presence::of(&lock).map_err(|error| write_error(&lock, &error))?);
        Ok(self)
    }
}

/// Whether `name` is a valid folder name that does not lead out of its parent folder.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn create_named(root: &Path, name: &str) -> Result<PathBuf> {
    if !is_name(name) {
        bail!("`{name}` is not a valid run name\nhint: use a single word; `run.dir` sets the parent folder");
    }
    let path = root.join(name);
    if is_unfinished(&path)? {
        return Ok(path);
    }
    files::create_dir(&path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => anyhow!(
            "the run `{}` already exists\nhint: use another `--name`, leave it out for a numbered one, or resume the run \
             with `--resume {}`",
            path.display(),
            path.display()
        ),
        _ => write_error(&path, &error),
    })?;
    Ok(path)
}

/// Whether a process was killed while it created the run directory: it has nothing but files that are written before the
/// configuration.
fn is_unfinished(path: &Path) -> Result<bool> {
    let early = |name: &String| {
        [lock::FILE, CONTAMINATION, PROMPT].contains(&name.as_str())
            || [CONTAMINATION, PROMPT, CONFIG].iter().any(|file| name.starts_with(&format!("{file}.")))
    };
    Ok(path.join(lock::FILE).is_file() && !is_held(path) && file_names(path)?.iter().all(early))
}

fn create_counted(root: &Path, stem: &str) -> Result<PathBuf> {
    let counter = |name: &String| name.strip_prefix(stem)?.strip_prefix('-')?.parse::<u64>().ok();
    let highest = file_names(root)?.iter().filter_map(counter).max().unwrap_or(0);
    // Another process may take the number first; creating the folder decides.
    for number in highest + 1.. {
        let path = root.join(format!("{stem}-{number}"));
        match files::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(write_error(&path, &error)),
        }
    }
    unreachable!("there is always a next number")
}

/// A name without characters that have a meaning in a path: `Qwen/Qwen2.5-7B` becomes `Qwen-Qwen2.5-7B`.
fn file_stem(text: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let stem: String = text.chars().map(plain).collect();
    match stem.trim_matches(['-', '.']) {
        "" => "run".to_owned(),
        stem => stem.to_owned(),
    }
}

/// The names in a folder; none if it does not exist.
fn file_names(folder: &Path) -> Result<Vec<String>> {
    let context = || format!("read `{}`", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(context)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is never one of `rft`'s.
        names.extend(entry.with_context(context)?.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::atomic::commit_dir;

    fn name(run: &RunDir) -> String {
        run.path().file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// The error of a call that must fail.
    fn error<T>(result: Result<T>) -> String {
        format!("{:#}", result.err().expect("an error"))
    }

    #[test]
    fn default_names_count_up() {
        let dir = tempfile::tempdir().unwrap();
        let create = || name(&RunDir::create(dir.path(), None, "tiny/null example").unwrap());
        assert_eq!(create(), "tiny-null-example-1");
        assert_eq!(create(), "tiny-null-example-2");
        // A gap is not filled: a higher number is a later run.
        fs::remove_dir_all(dir.path().join("tiny-null-example-1")).unwrap();
        assert_eq!(create(), "tiny-null-example-3");
        assert_eq!(name(&RunDir::create(dir.path(), None, "tiny").unwrap()), "tiny-1");
        assert_eq!(name(&RunDir::create(dir.path(), None, "../..").unwrap()), "run-1");
    }

    #[test]
    fn runs_that_start_at_the_same_time_get_different_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut names: Vec<String> = std::thread::scope(|scope| {
            let create = || name(&RunDir::create(dir.path(), None, "tiny").unwrap());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        names.sort();
        assert_eq!(names, (1..=8).map(|i| format!("tiny-{i}")).collect::<Vec<_>>());
    }

    #[test]
    fn an_existing_or_invalid_name_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Some("first"), "tiny").unwrap();
        assert!(error(RunDir::create(dir.path(), Some("first"), "tiny")).contains("first` already exists"));
        drop(run);
        // Without a configuration, nothing is there that could be resumed.
        let run = RunDir::create(dir.path(), Some("first"), "tiny").unwrap();
        fs::write(run.config(), "").unwrap();
        drop(run);
        let text = error(RunDir::create(dir.path(), Some("first"), "tiny"));
        assert!(text.contains("first` already exists") && text.contains("\nhint: use another `--name`"), "{text}");
        for odd in ["", ".", "..", ".hidden", "a/b", "/tmp"] {
            assert!(error(RunDir::create(dir.path(), Some(odd), "tiny")).contains("is not a valid run name"), "{odd}");
        }
    }

    #[test]
    fn only_one_process_can_resume_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Some("first"), "tiny").unwrap();
        fs::write(run.config(), "").unwrap();
        assert!(error(RunDir::resume(run.path())).contains("another process"));
        RunDir::open(run.path()).unwrap();
        let path = run.path().to_owned();
        drop(run);
        RunDir::resume(&path).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_a_run_cannot_be_resumed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(error(RunDir::resume(&dir.path().join("none"))).contains("no run directory"));
        assert!(error(RunDir::resume(dir.path())).contains("has no config.toml"));
    }

    #[test]
    fn the_newest_valid_checkpoint_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), None, "tiny").unwrap();
        let newest = || {
            let mut skipped = Vec::new();
            (run.newest_checkpoint(|step, _| skipped.push(step)).unwrap(), skipped)
        };
        assert_eq!(newest(), (None, vec![]));
        for step in [20, 40, 1_000_000] {
            commit_dir(&run.checkpoint(step), |folder| Ok(fs::write(folder.join("state"), "1")?)).unwrap();
        }
        fs::create_dir(run.checkpoint(60).with_extension("tmp")).unwrap();
        assert_eq!(run.checkpoints().unwrap(), [20, 40, 1_000_000]);
        assert_eq!(newest(), (Some(1_000_000), vec![]));
        fs::write(run.checkpoint(1_000_000).join("state"), "2").unwrap();
        fs::remove_file(run.checkpoint(40).join("state")).unwrap();
        assert_eq!(newest(), (Some(20), vec![1_000_000, 40]));
    }
}
