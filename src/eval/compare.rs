//! Comparison of two evaluations on the same questions.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::folder::{BenchFolder, EvalFolder};
use super::grade::Grade;
use crate::stats::{Interval, compare_means, compare_paired, mean};

/// The difference of two evaluations on one benchmark, paired by question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalComparison {
    pub benchmark: String,
    /// Number of questions that both have.
    pub questions: usize,
    pub first: f64,
    pub second: f64,
    pub difference: f64,
    /// 95 % interval of the difference.
    pub interval: Interval,
    pub p_value: f64,
    /// The methods of the interval and the p-value.
    pub method: &'static str,
    /// The smallest true difference that this number of questions detects in four of five studies.
    pub detectable: Option<f64>,
    /// Reasons why the two may not be comparable.
    pub notes: Vec<String>,
}

/// Compares every benchmark that both evaluations have.
///
/// # Errors
/// They have no benchmark in common, or one of them is not complete.
pub fn compare(first: &EvalFolder, second: &EvalFolder) -> Result<Vec<EvalComparison>> {
    let (of_first, of_second) = (first.benches()?, second.benches()?);
    let both: Vec<_> = of_first.iter().filter_map(|(name, bench)| Some((name, bench, of_second.get(name)?))).collect();
    if both.is_empty() {
        let names = |benches: &BTreeMap<String, BenchFolder>| benches.keys().cloned().collect::<Vec<_>>().join(", ");
        bail!("the two evaluations have no benchmark in common: {} and {}", names(&of_first), names(&of_second));
    }
    both.into_iter().map(|(name, a, b)| one(name, a, b).with_context(|| format!("compare `{name}`"))).collect()
}

fn one(name: &str, first: &BenchFolder, second: &BenchFolder) -> Result<EvalComparison> {
    let mut notes = Vec::new();
    let (a, b) = (first.record()?, second.record()?);
    let mut differs = |what: &str, same: bool| {
        if !same {
            notes.push(format!("{what} differs"));
        }
    };
    differs("the file of questions", a.data_sha256 == b.data_sha256);
    differs("the profile", a.style.profile == b.style.profile);
    differs("temperature or top-p", (a.style.temperature, a.style.top_p) == (b.style.temperature, b.style.top_p));
    differs("the maximum completion length", a.style.max_tokens == b.style.max_tokens);
    let (a, b) = (right(first)?, right(second)?);
    let pairs: Vec<(&Vec<bool>, &Vec<bool>)> = a.iter().filter_map(|(id, a)| Some((a, b.get(id)?))).collect();
    if pairs.is_empty() {
        bail!("the evaluations have no question in common");
    }
    if pairs.len() < a.len().max(b.len()) {
        notes.push(format!("only {} of {} questions are in both evaluations", pairs.len(), a.len().max(b.len())));
    }
    let single = pairs.iter().all(|(a, b)| a.len() == 1 && b.len() == 1);
    let share = |right: &Vec<bool>| right.iter().filter(|it| **it).count() as f64 / right.len() as f64;
    let means = (
        pairs.iter().map(|(a, _)| share(a)).collect::<Vec<_>>(),
        pairs.iter().map(|(_, b)| share(b)).collect::<Vec<_>>(),
    );
    let (difference, interval, p_value, method, detectable) = if single {
        let one = |of: fn(&(&Vec<bool>, &Vec<bool>)) -> bool| pairs.iter().map(of).collect::<Vec<_>>();
        let it = compare_paired(&one(|(a, _)| a[0]), &one(|(_, b)| b[0]), 0.95);
        (it.difference, it.interval, it.p_value, "Newcombe's paired interval, exact McNemar test", it.detectable)
    } else {
        let it = compare_means(&means.0, &means.1, 0);
        (it.difference, it.interval, it.p_value, "bootstrap over questions, sign-flip test", it.detectable)
    };
    Ok(EvalComparison {
        benchmark: name.to_owned(),
        questions: pairs.len(),
        first: mean(&means.0),
        second: mean(&means.1),
        difference,
        interval,
        p_value,
        method,
        detectable,
        notes,
    })
}

/// For each question, whether each sample is correct.
fn right(bench: &BenchFolder) -> Result<BTreeMap<String, Vec<bool>>> {
    if !bench.results().is_file() {
        bail!("`{}` is not complete\nhint: run the same `rft eval` command again to resume it", bench.path().display());
    }
    let mut questions: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for record in bench.grades()? {
        questions.entry(record.question_id).or_default().push(Grade::is_right(&record.grade));
    }
    Ok(questions)
}
