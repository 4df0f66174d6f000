//! The choice of cuBLASLt's algorithm for each shape of a matrix product.
//!
//! Another algorithm sums in another order and gives different bits. Therefore a choice is saved: in the folder of the
//! run, and, if `rft perf tune` measured the algorithms, in the user's cache, for runs that start later.

use crate::disk::{atomic, cache, files};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An algorithm as cuBLASLt describes it. According to its documentation it can be stored and used again with the same
/// version of the library (`cublasLtMatmulAlgo_t`).
pub type Algorithm = [u64; 8];

/// A file: for each GPU and library version, for each shape of a product, an algorithm in hexadecimal digits.
type ChoicesFile = BTreeMap<String, BTreeMap<String, String>>;

/// The choices for one GPU and library version.
pub struct AlgorithmChoices {
    /// The GPU's name and the library's version.
    setup: String,
    algorithms: BTreeMap<String, Algorithm>,
    /// The file to which every new choice is written immediately.
    file: Option<PathBuf>,
}

impl AlgorithmChoices {
    /// No choices yet.
    pub fn new(setup: String) -> Self {
        Self { setup, algorithms: BTreeMap::new(), file: None }
    }

    /// The choices that `rft perf tune` has measured, if there are any.
    pub fn tuned(setup: String) -> Result<Self> {
        let file = match tuned_file() {
            Some(path) => read(&path)?,
            None => ChoicesFile::new(),
        };
        let algorithms = file.get(&setup).map_or_else(|| Ok(BTreeMap::new()), parse)?;
        Ok(Self { algorithms, ..Self::new(setup) })
    }

    /// The GPU's name and the library's version.
    pub fn setup(&self) -> &str {
        &self.setup
    }

    pub fn get(&self, shape: &str) -> Option<Algorithm> {
        self.algorithms.get(shape).copied()
    }

    pub fn insert(&mut self, shape: &str, algorithm: Algorithm) -> Result<()> {
        self.algorithms.insert(shape.to_owned(), algorithm);
        self.file.as_deref().map_or(Ok(()), |path| self.write(path))
    }

    /// Uses the choices in a file, or creates the file with the current ones; then writes every new one to it. Returns
    /// a warning if the file is from another GPU or version of the library.
    pub fn keep_in(&mut self, path: &Path) -> Result<Option<String>> {
        let file = read(path)?;
        let others = file.keys().next().cloned();
        if let Some(algorithms) = file.get(&self.setup) {
            self.algorithms = parse(algorithms)?;
        }
        self.file = Some(path.to_owned());
        self.write(path)?;
        let warning = |others| {
            format!(
                "started on {others}, resumed on {}: the results will differ in their last bits from those of an uninterrupted run",
                self.setup
            )
        };
        Ok(others.filter(|_| !file.contains_key(&self.setup)).map(warning))
    }

    /// Adds the choices to those in the user's cache, and returns the path of the file.
    pub fn save_as_tuned(&self) -> Result<PathBuf> {
        let path =
            tuned_file().context("no home folder was found\nhint: set XDG_CACHE_HOME to a folder for the choices")?;
        let folder = path.parent().context("the cache has a folder")?;
        files::create_dir_all(folder).map_err(|error| atomic::write_error(folder, &error))?;
        self.write(&path)?;
        Ok(path)
    }

    /// Writes the file with these choices; those of other GPUs, libraries and shapes are kept.
    fn write(&self, path: &Path) -> Result<()> {
        let mut file = read(path)?;
        let words = |algorithm: &Algorithm| algorithm.iter().map(|word| format!("{word:016x}")).collect();
        let algorithms = self.algorithms.iter().map(|(shape, algorithm)| (shape.clone(), words(algorithm)));
        file.entry(self.setup.clone()).or_default().extend(algorithms);
        let mut text = serde_json::to_vec_pretty(&file).context("encode the choices")?;
        text.push(b'\n');
        atomic::write(path, &text)
    }
}

/// The file that `rft perf tune` writes.
fn tuned_file() -> Option<PathBuf> {
    cache::folder().map(|folder| folder.join("products.json"))
}

/// The contents of a file; empty if there is no file.
fn read(path: &Path) -> Result<ChoicesFile> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ChoicesFile::new()),
        text => text.with_context(|| format!("read `{}`", path.display()))?,
    };
    serde_json::from_slice(&text).with_context(|| {
        format!("parse `{}`\nhint: remove the file; `rft` chooses the algorithms again", path.display())
    })
}

fn parse(algorithms: &BTreeMap<String, String>) -> Result<BTreeMap<String, Algorithm>> {
    let algorithm = |(shape, text): (&String, &String)| {
        let wrong = || {
            format!("the algorithm for `{shape}` is not 128 hexadecimal digits\nhint: remove the file that contains it")
        };
        ensure!(text.len() == 128 && text.is_ascii(), wrong());
        let word = |i: usize| u64::from_str_radix(&text[16 * i..16 * (i + 1)], 16).with_context(wrong);
        let mut words = [0; 8];
        for (i, slot) in words.iter_mut().enumerate() {
            *slot = word(i)?;
        }
        Ok((shape.clone(), words))
    };
    algorithms.iter().map(algorithm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Algorithm = [1, 2, 3, 4, 5, 6, 7, u64::MAX];
    const SECOND: Algorithm = [9; 8];

    fn choices(setup: &str) -> AlgorithmChoices {
        AlgorithmChoices::new(setup.to_owned())
    }

    #[test]
    fn a_run_resumes_with_the_choices_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products.json");
        let mut run = choices("GPU X");
        run.insert("a", FIRST).unwrap();
        assert_eq!(run.keep_in(&path).unwrap(), None);
        run.insert("b", SECOND).unwrap();

        // In the meantime, other algorithms were measured to be faster.
        let mut resumed = choices("GPU X");
        resumed.insert("a", SECOND).unwrap();
        resumed.insert("c", SECOND).unwrap();
        assert_eq!(resumed.keep_in(&path).unwrap(), None);
        assert_eq!((resumed.get("a"), resumed.get("b"), resumed.get("c")), (Some(FIRST), Some(SECOND), None));
    }

    #[test]
    fn another_gpu_gives_a_warning_and_keeps_the_choices_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products.json");
        choices("GPU X").keep_in(&path).unwrap();
        let mut other = choices("GPU Y");
        let warning = other.keep_in(&path).unwrap().unwrap();
        assert!(warning.starts_with("started on GPU X, resumed on GPU Y: the results will differ"), "{warning}");
        other.insert("a", SECOND).unwrap();
        assert_eq!(choices("GPU Y").keep_in(&path).unwrap(), None);
        let mut first = choices("GPU X");
        assert_eq!((first.keep_in(&path).unwrap(), first.get("a")), (None, None));
    }

    #[test]
    fn a_damaged_file_is_an_error_with_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products.json");
        for text in ["{", "[]", r#"{"GPU X": {"a": "12"}}"#, &format!(r#"{{"GPU X": {{"a": "{}"}}}}"#, "x".repeat(128))]
        {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", choices("GPU X").keep_in(&path).unwrap_err());
            assert!(error.contains("hint: remove the file"), "{text}: {error}");
        }
    }
}
