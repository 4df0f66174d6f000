//! The benchmarks, one a file: where the questions are, how many there are, and what kind of answer they want.

mod aime2024;
mod aime2025;
mod amc12;
mod arithmetic;
mod at_hand;
mod gpqa;
mod gsm8k;
mod humaneval;
mod math500;
mod users;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::data::Question;
use crate::data::arithmetic::Split;
use crate::data::read;
use crate::data::schema::{self, Columns};
use crate::disk::hash::sha256;
use crate::model::hub;

pub use at_hand::{AtHand, at_hand, comparable};
pub use gpqa::Choices;
pub use users::UsersFile;

/// A set of questions that models are measured on.
#[derive(Clone, Debug)]
pub struct Benchmark {
    /// In folders, tables and on the command line.
    pub name: String,
    /// What other harnesses call it.
    pub aliases: &'static [&'static str],
    pub origin: Origin,
    pub kind: Kind,
    /// Samples of a question that the profile `study` draws.
    pub samples: usize,
}

/// Where questions come from.
#[derive(Clone, Debug)]
pub enum Origin {
    Hub(&'static HubSet),
    /// Generated: so many held-out questions of these levels.
    Arithmetic {
        levels: &'static [u8],
        questions: usize,
    },
    File(UsersFile),
}

/// A data set on the hub, with what is known about it.
#[derive(Debug)]
pub struct HubSet {
    pub id: &'static str,
    pub revision: &'static str,
    pub split: &'static str,
    /// The file, where the split does not tell which.
    pub hub_file: Option<&'static str>,
    /// Where to get the file, for a set that the hub does not have in the form that is read here.
    pub download: Option<&'static str>,
    /// Names that a file of it goes by in a folder with data.
    pub files: &'static [&'static str],
    pub question: &'static str,
    pub answer: &'static str,
    pub rows: usize,
    /// [`golds_sha256`] of the set, where we have seen it.
    pub golds_sha256: Option<&'static str>,
}

/// What kind of answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value: a number, an expression, a set.
    Math,
    /// One of several options.
    Choice,
    /// A Python function that passes tests.
    Code {
        /// With the added tests of HumanEval+.
        plus: bool,
    },
}

/// The questions of a benchmark.
pub struct Set {
    pub questions: Vec<Question>,
    /// What a reader of the scores should know.
    pub notes: Vec<String>,
    /// Of the files, or of the generated questions.
    pub sha256: String,
}

/// All shipped benchmarks.
pub fn all() -> Vec<Benchmark> {
    let fixed = [
        aime2024::benchmark(),
        aime2025::benchmark(),
        amc12::benchmark(),
        math500::benchmark(),
        gsm8k::benchmark(),
        gpqa::benchmark(),
        humaneval::base(),
        humaneval::plus(),
    ];
    fixed.into_iter().chain(arithmetic::benchmarks()).collect()
}

/// The benchmark called `name`, or the user's file at that path.
///
/// # Errors
/// Neither: the message lists the names, the nearest first.
pub fn find(name: &str) -> Result<Benchmark> {
    let all = all();
    let wanted = name.to_lowercase();
    let known = |it: &&Benchmark| it.name == wanted || it.aliases.contains(&wanted.as_str());
    if let Some(benchmark) = all.iter().find(known) {
        return Ok(benchmark.clone());
    }
    if Path::new(name).is_file() {
        return Ok(users::benchmark(Path::new(name)));
    }
    let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
    let near = names.iter().max_by(|a, b| {
        let likeness = |it: &str| strsim::jaro_winkler(it, &wanted);
        likeness(a).total_cmp(&likeness(b))
    });
    bail!(
        "there is no benchmark `{name}`\nhint: did you mean `{}`? There are {}; or give a data file",
        near.copied().unwrap_or_default(),
        names.join(", ")
    )
}

impl Benchmark {
    /// The questions, from `data_dir` where it has a file of the set, else from the hub or its cache.
    ///
    /// # Errors
    /// No data to be had: the message says which file to put where. Another number of rows than the set has; a missing
    /// column.
    pub fn load(&self, data_dir: Option<&Path>) -> Result<Set> {
        let what = || format!("load the questions of `{}`", self.name);
        match &self.origin {
            Origin::Hub(set) => set.load(self.kind, data_dir).with_context(what),
            Origin::Arithmetic { levels, questions } => generated(levels, *questions),
            Origin::File(file) => file.load().with_context(what),
        }
    }
}

impl HubSet {
    fn load(&self, kind: Kind, data_dir: Option<&Path>) -> Result<Set> {
        self.read(kind, &self.find(data_dir)?)
    }

    fn read(&self, kind: Kind, path: &Path) -> Result<Set> {
        let mut hash = Sha256::new();
        let rows = read::read(path, &mut hash)?;
        let columns =
            Columns { schema: schema::known(self.id), question: Some(self.question), answer: Some(self.answer) };
        let (questions, empty) = schema::questions(path, &rows, self.id, columns)?;
        ensure!(
            empty.is_empty(),
            "`{}`: {} rows lack a question or an answer, the first: {}",
            path.display(),
            empty.len(),
            empty[0]
        );
        ensure!(
            questions.len() == self.rows,
            "`{}` has {} questions; {} has {}\nhint: `--limit` takes the first few of the whole set; \
             a set of your own is evaluated by its path",
            path.display(),
            questions.len(),
            self.id,
            self.rows
        );
        let mut notes = Vec::new();
        let differs = |known| kind == Kind::Math && golds_sha256(&questions) != known;
        if self.golds_sha256.is_some_and(differs) {
            notes.push(format!("the answers in `{}` are not those of {} as we know it", path.display(), self.id));
        }
        Ok(Set { questions, notes, sha256: hex::encode(hash.finalize()) })
    }

    /// A file of the set in a folder.
    fn find_in(&self, folder: &Path) -> Option<PathBuf> {
        self.files.iter().map(|name| folder.join(name)).find(|path| path.is_file())
    }

    /// A file of the set: in the folder, in the hub's cache, or from the hub.
    pub fn find(&self, data_dir: Option<&Path>) -> Result<PathBuf> {
        if let Some(folder) = data_dir {
            ensure!(
                folder.is_dir(),
                "the folder with data `{}` does not exist\nhint: see --data-dir and RFT_DATA_DIR",
                folder.display()
            );
            if let Some(path) = self.find_in(folder) {
                return Ok(path);
            }
        }
        let names = self.files.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
        if let Some(address) = self.download {
            bail!(
                "the tests of {} are not on this machine\n\
                 hint: put {names} into a folder and name it with --data-dir or RFT_DATA_DIR; it is at {address}",
                self.id
            );
        }
        let fetched = match self.hub_file {
            Some(file) => hub::dataset_file(self.id, self.revision, file),
            None => hub::dataset_files(self.id, self.revision, self.split),
        };
        let paths = fetched.with_context(|| {
            format!("get {}\nhint: or put {names} into a folder and name it with --data-dir or RFT_DATA_DIR", self.id,)
        })?;
        match <[PathBuf; 1]>::try_from(paths) {
            Ok([path]) => Ok(path),
            Err(paths) => bail!("{} is in {} files on the hub; one was expected", self.id, paths.len()),
        }
    }
}

fn generated(levels: &[u8], n: usize) -> Result<Set> {
    // The seed of the questions that training holds out, so that both mean the same set.
    let questions = crate::data::arithmetic::questions(Split::HeldOut, 0, levels, n);
    let sha256 = sha256(&serde_json::to_vec(&questions)?);
    Ok(Set { questions, notes: Vec::new(), sha256 })
}

/// SHA-256 of the gold answers, whole numbers without leading zeros, sorted and joined by line feeds: the same however the
/// questions are stored and ordered.
pub fn golds_sha256(questions: &[Question]) -> String {
    let plain = |gold: &str| match gold.bytes().all(|it| it.is_ascii_digit()) {
        true => Some(gold.trim_start_matches('0')).filter(|it| !it.is_empty()).unwrap_or("0").to_owned(),
        false => gold.to_owned(),
    };
    let mut golds: Vec<String> = questions.iter().map(|it| plain(&it.gold)).collect();
    golds.sort_unstable();
    sha256(golds.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_and_alias_means_one_benchmark() {
        let mut seen = BTreeSet::new();
        for benchmark in all() {
            for name in benchmark.aliases.iter().copied().chain([benchmark.name.as_str()]) {
                assert!(seen.insert(name.to_owned()), "`{name}` twice");
                assert_eq!(find(name).unwrap().name, benchmark.name);
                assert_eq!(find(&name.to_uppercase()).unwrap().name, benchmark.name);
            }
        }
        let error = find("aime204").unwrap_err().to_string();
        assert!(error.contains("did you mean `aime2024`?"), "{error}");
    }

    #[test]
    fn arithmetic_needs_no_file() {
        let set = find("arithmetic").unwrap().load(None).unwrap();
        assert_eq!(set.questions.len(), 512);
        let again = find("arithmetic").unwrap().load(None).unwrap();
        assert_eq!(set.sha256, again.sha256);
        for level in 1..=3 {
            assert_eq!(find(&format!("arithmetic-{level}")).unwrap().load(None).unwrap().questions.len(), 256);
        }
    }

    #[test]
    fn the_hash_of_golds_knows_neither_order_nor_zeros() {
        let questions = |golds: &[&str]| -> Vec<Question> {
            let question = |gold: &&str| Question {
                id: String::new(),
                text: String::new(),
                gold: gold.to_string(),
                source: String::new(),
                extra: serde_json::Map::new(),
            };
            golds.iter().map(question).collect()
        };
        let hash = |golds: &[&str]| golds_sha256(&questions(golds));
        assert_eq!(hash(&["033", "7"]), hash(&["7", "33"]));
        assert_eq!(hash(&["000"]), hash(&["0"]));
        assert_ne!(hash(&["33", "7"]), hash(&["33", "8"]));
    }
}
