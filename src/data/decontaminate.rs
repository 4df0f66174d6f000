//! Overlap of training questions with the questions of benchmarks.
//!
//! A training question overlaps with a benchmark question if it contains at least 70 % of the latter's 8-grams of words.
//! This is PaLM's measure (arXiv 2204.02311), applied to single training questions, because these can be removed. The older rule,
//! any shared 13-gram (GPT-3, arXiv 2005.14165, appendix C; lm-evaluation-harness), counts boilerplate of mathematics: "m/n
//! where m and n are relatively prime positive integers. Find m + n" has more than 13 words. docs/decontamination.md compares
//! the rules on real data.

use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Question;
use crate::rng::name_hash;

/// Words of an n-gram.
pub const N: usize = 8;

/// The share of a benchmark question's n-grams from which a training question overlaps with it.
pub const SHARE: f64 = 0.7;

/// A benchmark to compare with.
#[derive(Clone, Debug)]
pub struct OverlapBenchmark {
    pub name: String,
    /// Only identities and texts are used.
    pub questions: Vec<Question>,
    /// [`SHARE`]; 1 for questions made from templates, which share most of their words.
    pub share: f64,
}

/// The result of the check: `contamination.json` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contamination {
    /// [`N`].
    pub n: usize,
    /// [`SHARE`].
    pub share: f64,
    /// Number of training questions that were compared.
    pub rows: usize,
    /// Whether overlapping training questions are removed (`data.decontaminate`).
    pub decontaminated: bool,
    /// Number of removed training questions.
    pub removed: usize,
    /// Identities of the removed questions, in the order of the data.
    pub removed_rows: Vec<String>,
    /// The overlap with each benchmark, by name.
    pub benchmarks: BTreeMap<String, Overlap>,
    /// Benchmarks that were not compared, with the reason.
    pub not_checked: BTreeMap<String, String>,
}

/// The overlap with one benchmark. Identities are in the order of their data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Number of questions of the benchmark.
    pub questions: usize,
    /// Benchmark questions that overlap with the training questions: none after decontamination.
    pub overlapping: Vec<String>,
    /// The training questions that they overlap with.
    pub rows: Vec<String>,
    /// Benchmark questions that would overlap if the training questions had not been removed.
    pub avoided: Vec<String>,
}

impl Contamination {
    /// Compares the training questions `rows` with all questions of the benchmarks. With `remove`, overlapping training questions
    /// count as removed; the caller has to remove those in [`Contamination::removed_rows`].
    pub fn of(rows: &[Question], benchmarks: &[OverlapBenchmark], remove: bool) -> Self {
        let found = overlaps(rows, benchmarks);
        let ids = |rows: &[Question], keep: &dyn Fn(usize) -> bool| -> Vec<String> {
            (0..rows.len()).filter(|&i| keep(i)).map(|i| rows[i].id.clone()).collect()
        };
        let hit: HashSet<usize> = found.iter().flatten().map(|pair| pair.row).collect();
        let removed_rows = if remove { ids(rows, &|i| hit.contains(&i)) } else { Vec::new() };
        let overlap = |(benchmark, pairs): (&OverlapBenchmark, &Vec<OverlapPair>)| {
            let (asked, trained): (HashSet<usize>, HashSet<usize>) =
                pairs.iter().map(|pair| (pair.question, pair.row)).unzip();
            let questions = benchmark.questions.len();
            let overlapping = ids(&benchmark.questions, &|i| asked.contains(&i));
            let overlap = if remove {
                Overlap { questions, avoided: overlapping, ..Overlap::default() }
            } else {
                let rows = ids(rows, &|i| trained.contains(&i));
                Overlap { questions, overlapping, rows, avoided: Vec::new() }
            };
            (benchmark.name.clone(), overlap)
        };
        Self {
            n: N,
            share: SHARE,
            rows: rows.len(),
            decontaminated: remove,
            removed: removed_rows.len(),
            removed_rows,
            benchmarks: benchmarks.iter().zip(&found).map(overlap).collect(),
            not_checked: BTreeMap::new(),
        }
    }

    /// Removes the questions in `removed_rows` from `questions`.
    pub fn clean(&self, mut questions: Vec<Question>) -> Vec<Question> {
        let removed: HashSet<&str> = self.removed_rows.iter().map(String::as_str).collect();
        questions.retain(|question| !removed.contains(question.id.as_str()));
        questions
    }

    /// Notes for the user, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let named = |of: &dyn Fn(&Overlap) -> usize| -> Vec<String> {
            let some = self.benchmarks.iter().filter(|(_, overlap)| of(overlap) > 0);
            some.map(|(name, overlap)| format!("{name} ({} of {})", of(overlap), overlap.questions)).collect()
        };
        let (overlapping, avoided) = (named(&|it| it.overlapping.len()), named(&|it| it.avoided.len()));
        let mut notes = Vec::new();
        if !overlapping.is_empty() {
            notes.push(format!(
                "benchmark questions that overlap with training questions: {}; set `data.decontaminate` to remove these training questions",
                overlapping.join(", ")
            ));
        }
        if self.decontaminated {
            let what = match self.removed {
                0 => format!("no overlap of {} training questions with benchmarks", self.rows),
                n => format!("removed {n} training questions that overlap with questions of {}", avoided.join(", ")),
            };
            notes.push(what);
            if !self.not_checked.is_empty() {
                let names: Vec<&str> = self.not_checked.keys().map(String::as_str).collect();
                notes.push(format!("overlap not checked with {}", names.join(", ")));
            }
        }
        notes
    }
}

/// The index of a training question, and the index of a benchmark question that it overlaps with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlapPair {
    pub row: usize,
    pub question: usize,
}

/// For each benchmark, the overlapping pairs, in the order of the rows and then of the questions.
pub fn overlaps(rows: &[Question], benchmarks: &[OverlapBenchmark]) -> Vec<Vec<OverlapPair>> {
    let questions: Vec<(usize, usize)> = (0..benchmarks.len())
        .flat_map(|benchmark| (0..benchmarks[benchmark].questions.len()).map(move |question| (benchmark, question)))
        .collect();
    let asked: Vec<Vec<u64>> = questions
        .par_iter()
        .map(|&(benchmark, question)| grams(&benchmarks[benchmark].questions[question].text))
        .collect();
    let mut holders: HashMap<u64, Vec<usize>> = HashMap::new();
    for (place, grams) in asked.iter().enumerate() {
        for &gram in grams {
            holders.entry(gram).or_default().push(place);
        }
    }
    let enough = |place: usize, common: usize| {
        let share = benchmarks[questions[place].0].share;
        // The tolerance is for shares that are not binary fractions.
        common as f64 >= share * asked[place].len() as f64 - 1e-9
    };
    // The array of counts is reused for every row, and is zero in between.
    let of_row = |common: &mut Vec<usize>, row: &Question| -> Vec<usize> {
        let mut met = Vec::new();
        for place in grams(&row.text).iter().filter_map(|gram| holders.get(gram)).flatten() {
            if common[*place] == 0 {
                met.push(*place);
            }
            common[*place] += 1;
        }
        met.sort_unstable();
        met.retain(|&place| enough(place, std::mem::take(&mut common[place])));
        met
    };
    let found: Vec<Vec<usize>> = rows.par_iter().map_init(|| vec![0; questions.len()], of_row).collect();

    let mut pairs = vec![Vec::new(); benchmarks.len()];
    for (row, places) in found.into_iter().enumerate() {
        for place in places {
            let (benchmark, question) = questions[place];
            pairs[benchmark].push(OverlapPair { row, question });
        }
    }
    pairs
}

/// Hashes of the different n-grams of a text. A text with fewer than [`N`] words has a single n-gram, the whole text: it only
/// overlaps with the same words, because a few words occur in many questions.
fn grams(text: &str) -> Vec<u64> {
    let words = words(text);
    let hash = |words: &[u64]| {
        words
            .iter()
            .fold(words.len() as u64, |hash, word| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    };
    let mut grams: Vec<u64> = match words.len() {
        0 => Vec::new(),
        1..N => vec![hash(&words)],
        _ => words.windows(N).map(hash).collect(),
    };
    grams.sort_unstable();
    grams.dedup();
    grams
}

/// LaTeX commands that change the look of a formula but not its meaning. Copies of the same question differ in them.
const STYLE: [&str; 16] = [
    "left",
    "right",
    "big",
    "bigl",
    "bigr",
    "bigg",
    "displaystyle",
    "limits",
    "quad",
    "qquad",
    "text",
    "textbf",
    "textit",
    "mathrm",
    "mathbf",
    "mbox",
];

/// Hashes of the words of a text: sequences of letters (in lower case) and of digits. Spaces, punctuation and signs separate words
/// and are not words, so `x^2`, `x ^ {2}` and `$x^{2}$` are the same two words. In a script without spaces, a character is a word.
fn words(text: &str) -> Vec<u64> {
    let spaced = |c: char| c.is_alphabetic() && c < '\u{2e80}';
    let mut words = Vec::new();
    for prose in without_figures(&text.to_lowercase()) {
        let mut chars = prose.char_indices().peekable();
        while let Some((start, first)) = chars.next() {
            if !first.is_alphanumeric() {
                continue;
            }
            let mut end = start + first.len_utf8();
            // TeX reads `\frac12` as `\frac{1}{2}`.
            let is_numerator = prose[..start].ends_with("frac");
            let joined = |next: char| match first.is_numeric() {
                true => next.is_numeric() && !is_numerator,
                false => spaced(first) && spaced(next),
            };
            while let Some((at, next)) = chars.next_if(|&(_, next)| joined(next)) {
                end = at + next.len_utf8();
            }
            let is_command = prose[..start].ends_with('\\');
            match &prose[start..end] {
                word if is_command && STYLE.contains(&word) => {}
                "dfrac" | "tfrac" | "cfrac" if is_command => words.push(name_hash("frac")),
                word => words.push(name_hash(word)),
            }
        }
    }
    words
}

/// The text outside of figures, which are programs in MATH's questions: their lines recur in many questions, and a copy of a
/// question may not have the figure.
fn without_figures(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[asy]") {
        parts.push(before);
        rest = after.split_once("[/asy]").map_or("", |(_, after)| after);
    }
    parts.push(rest);
    parts
}
