//! The benchmarks, one per file: the source and number of the questions, and the kind of answer.

mod aime2024;
mod aime2025;
mod aime2026;
mod amc12;
mod amo_bench;
mod arithmetic;
mod at_hand;
mod benchmark;
mod beyond_aime;
mod gpqa;
mod gsm8k;
mod gsm_symbolic;
mod hmmt_feb_2026;
mod humaneval;
mod judged;
mod math500;
mod math_perturb;
mod olymmath;
mod set;
mod users;

use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::config::nearest_name;
use crate::data::read;

pub use at_hand::{AtHand, at_hand, comparable};
pub use benchmark::{AnswerKind, Benchmark, HubSet, QuestionOrigin, golds_sha256};
pub use gpqa::AnswerOptions;
pub use judged::needs_judge;
pub use set::Set;
pub use users::UsersFile;

/// All shipped benchmarks.
pub fn all() -> Vec<Benchmark> {
    let fixed = [
        aime2024::benchmark(),
        aime2025::benchmark(),
        aime2026::benchmark(),
        hmmt_feb_2026::benchmark(),
        beyond_aime::benchmark(),
        amc12::benchmark(),
        math500::benchmark(),
        math_perturb::simple(),
        math_perturb::hard(),
        gsm8k::benchmark(),
        gsm_symbolic::main(),
        gsm_symbolic::p1(),
        gsm_symbolic::p2(),
        amo_bench::all(),
        amo_bench::by_rules(),
        gpqa::benchmark(),
        humaneval::base(),
        humaneval::plus(),
    ];
    fixed.into_iter().chain(olymmath::benchmarks()).chain(arithmetic::benchmarks()).collect()
}

/// The benchmark `name`, or the user's file at that path.
///
/// # Errors
/// Neither exists. The message suggests the closest name.
pub fn find(name: &str) -> Result<Benchmark> {
    let all = all();
    let wanted = name.to_lowercase();
    let known = |it: &&Benchmark| it.name == wanted || it.aliases.contains(&wanted.as_str());
    if let Some(benchmark) = all.iter().find(known) {
        return Ok(benchmark.clone());
    }
    if Path::new(name).is_file() {
        return of_file(Path::new(name));
    }
    let meant = nearest_name(&wanted, all.iter().map(|it| it.name.as_str()));
    let question = meant.map_or_else(String::new, |it| format!("did you mean `{it}`? "));
    bail!(
        "unknown benchmark `{name}`\nhint: {question}use a name that `rft eval list` prints, or the path of a data file"
    )
}

/// The user's file at `path`, as a benchmark named after the file. It never has the name of a shipped benchmark, because a score
/// under that name is one on the published questions.
fn of_file(path: &Path) -> Result<Benchmark> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = read::ENDINGS.iter().fold(file.trim_end_matches(".gz"), |name, ending| name.trim_end_matches(ending));
    ensure!(
        stem.contains(char::is_alphanumeric),
        "the name of `{}` has no letter or digit, which the benchmark's folder needs\nhint: rename the file",
        path.display()
    );
    let plain = |c: char| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
    let mut name: String = stem.trim_start_matches('.').chars().map(plain).collect();
    if all().iter().any(|it| it.name == name || it.aliases.contains(&name.as_str())) {
        name.push_str("-file");
    }
    let file = UsersFile { path: path.to_owned(), question_column: None, answer_column: None };
    Ok(Benchmark {
        name,
        aliases: &[],
        origin: QuestionOrigin::File(file),
        kind: AnswerKind::Math,
        samples: 1,
        level_7b: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Question;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_and_alias_is_unique() {
        let mut seen = BTreeSet::new();
        for benchmark in all() {
            for name in benchmark.aliases.iter().copied().chain([benchmark.name.as_str()]) {
                assert!(seen.insert(name.to_owned()), "`{name}` occurs twice");
                assert_eq!(find(name).unwrap().name, benchmark.name);
                assert_eq!(find(&name.to_uppercase()).unwrap().name, benchmark.name);
            }
        }
        let error = find("aime204").unwrap_err().to_string();
        assert!(error.contains("did you mean `aime2024`?"), "{error}");
        let error = find("nope").unwrap_err().to_string();
        assert!(error.contains("\nhint: use a name that `rft eval list` prints"), "{error}");
    }

    #[test]
    fn arithmetic_does_not_need_a_file() {
        let set = find("arithmetic").unwrap().load(None).unwrap();
        assert_eq!(set.questions.len(), 512);
        let again = find("arithmetic").unwrap().load(None).unwrap();
        assert_eq!(set.sha256, again.sha256);
        for level in 1..=3 {
            assert_eq!(find(&format!("arithmetic-{level}")).unwrap().load(None).unwrap().questions.len(), 256);
        }
    }

    #[test]
    fn the_hash_of_golds_ignores_order_and_leading_zeros() {
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
