//! Completions of all models on the same questions, for reading.

use serde_json::json;

use super::{ReportPart, arms, groups, held_out};
use crate::math::Verdict;
use crate::report::aligned::Aligned;
use crate::report::document::{DocumentBlock, QuestionChange, ShownCompletion, ShownQuestion};
use crate::report::load::{Material, ReportedSample};

/// Maximum number of bytes of completions in a report, to limit the size of the page.
const ROOM: usize = 600_000;

/// Characters of a completion; the middle of longer ones is left out.
const LONGEST: usize = 6_000;

/// A model's label, and its samples.
type Readable<'a> = (&'a str, &'a [ReportedSample]);

/// The labels of an arm before and after training.
struct ArmLabels {
    arm: String,
    before: String,
    after: String,
}

/// As many questions as fit, evenly spaced in each benchmark, with the first sample of each model at its lowest seed. Questions
/// that an arm learned come first.
pub fn part(material: &Material, aligned: &Aligned) -> Option<ReportPart> {
    let groups = groups(material, aligned);
    let mut questions: Vec<Vec<ShownQuestion>> = Vec::new();
    let mut all: usize = aligned.ids.iter().map(Vec::len).sum();
    for benchmark in &aligned.benchmarks {
        let readable: Vec<Readable> = groups
            .iter()
            .map(|group| (group.label.as_str(), group.benches(material, &benchmark.name)[0].readable.as_slice()))
            .collect();
        let labels = arms(material).into_iter().map(|(arm, runs)| ArmLabels {
            before: format!("untrained, {}", runs[0].manifest.prompt.name),
            after: arm.clone(),
            arm,
        });
        questions.extend(side_by_side(&benchmark.name, &readable, &labels.collect::<Vec<_>>()));
    }
    if questions.is_empty() {
        let held_out = held_out::readable(material);
        let readable: Vec<Readable> =
            held_out.iter().map(|(label, samples)| (label.as_str(), samples.as_slice())).collect();
        let labels = arms(material).into_iter().map(|(arm, _)| ArmLabels {
            before: held_out::before(&arm),
            after: arm.clone(),
            arm,
        });
        questions.extend(side_by_side("held-out", &readable, &labels.collect::<Vec<_>>()));
        all = questions.iter().map(Vec::len).sum();
    }
    let fits = |each: usize| {
        questions.iter().flat_map(|it| chosen(it.len(), each).map(|at| size(&it[at]))).sum::<usize>() <= ROOM
    };
    let most = questions.iter().map(Vec::len).max().unwrap_or(0);
    let each = (1..=most).rev().find(|&each| fits(each)).unwrap_or(1);
    let mut kept: Vec<ShownQuestion> = questions
        .into_iter()
        .flat_map(|it| {
            let chosen: Vec<usize> = chosen(it.len(), each).collect();
            it.into_iter().enumerate().filter(move |(at, _)| chosen.contains(at)).map(|(_, question)| question)
        })
        .collect();
    if kept.is_empty() {
        return None;
    }
    kept.sort_by_key(|it| it.changes.iter().map(|(_, change)| *change).min());
    let mut text = format!(
        "{} of {all} questions, evenly spaced in each benchmark and not selected by their completions. Each model is shown with the \
         first sample of its lowest seed.",
        kept.len()
    );
    if kept.iter().any(|it| !it.changes.is_empty()) {
        text += " Questions that training made correct come first. One sample says little about a question: see the tables for \
                 what can be concluded.";
    }
    let ids: Vec<String> = kept.iter().map(|it| format!("{}/{}", it.benchmark, it.id)).collect();
    let blocks = vec![DocumentBlock::Text(text), DocumentBlock::Completions(kept)];
    Some(ReportPart::new("completions", "Completions", blocks, json!({ "shown": ids, "of": all })))
}

/// The questions of one benchmark, each with the completions of all models; `None` without models.
fn side_by_side(benchmark: &str, readable: &[Readable], arms: &[ArmLabels]) -> Option<Vec<ShownQuestion>> {
    let (_, first) = readable.first()?;
    Some(first.iter().map(|sample| question(benchmark, sample, readable, arms)).collect())
}

fn chosen(n: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = n.min(most);
    (0..count).map(move |i| i * n / count)
}

fn question(benchmark: &str, sample: &ReportedSample, readable: &[Readable], arms: &[ArmLabels]) -> ShownQuestion {
    let answer = |(by, samples): &Readable| {
        let found = samples.iter().find(|it| it.id == sample.id)?;
        Some(ShownCompletion {
            by: (*by).to_owned(),
            sample: ReportedSample { text: shortened(&found.text), ..found.clone() },
        })
    };
    let right = |label: &str| {
        let (_, samples) = readable.iter().find(|(by, _)| *by == label)?;
        Some(samples.iter().find(|it| it.id == sample.id)?.verdict == Verdict::Correct)
    };
    let change = |it: &ArmLabels| Some((it.arm.clone(), QuestionChange::new(right(&it.before)?, right(&it.after)?)));
    ShownQuestion {
        changes: arms.iter().filter_map(change).collect(),
        benchmark: benchmark.to_owned(),
        id: sample.id.clone(),
        text: sample.question.clone(),
        gold: sample.gold.clone(),
        answers: readable.iter().filter_map(answer).collect(),
    }
}

/// Approximate size on the page, including escaped characters and markup.
fn size(question: &ShownQuestion) -> usize {
    let answers: usize = question.answers.iter().map(|it| 2 * it.sample.text.len() + 400).sum();
    2 * question.text.len() + answers + 400
}

/// The beginning and the end of a long text.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= LONGEST {
        return text.to_owned();
    }
    let (head, tail) = (LONGEST * 2 / 3, LONGEST / 3);
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{begin}\n[… {} characters left out …]\n{end}", count - head - tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_middle_of_a_long_text_is_left_out() {
        let text: String = (0..10_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let short = shortened(&text);
        assert!(short.starts_with("abc") && short.contains("[… 4000 characters left out …]"));
        assert!(short.ends_with(&text[8_000..]));
        assert_eq!(shortened("é".repeat(LONGEST).as_str()).chars().count(), LONGEST);
    }
}
