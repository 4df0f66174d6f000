//! What a report says, a section each, from [`report`] down.

mod behaviors;
mod completions;
mod held_out;
mod lengths;
mod published;
mod questions;
mod repeat;
mod results;
mod training;
mod warnings;

use serde_json::{Map, Value, json};

use super::Report;
use super::aligned::{Aligned, Row, Subject, align};
use super::document::{Block, Document, Section};
use super::load::{Bench, Material, Run};
use super::paper::Published;
use super::study::AVERAGE;

/// The seed of every bootstrap: the same figures give the same intervals.
const SEED: u64 = 0;

/// A section, and its figures.
struct Part {
    section: Section,
    data: Value,
}

impl Part {
    fn new(id: &'static str, title: &'static str, blocks: Vec<Block>, data: Value) -> Self {
        Self { section: Section { id, title, blocks }, data }
    }
}

/// Makes the report. With `published`, a section says what those figures themselves can tell.
pub fn report(material: &Material, published: Option<&Published>) -> Report {
    let mut left_out = material.left_out.clone();
    let aligned = align(material, &mut left_out);
    let found = results::compare(material, &aligned, &mut left_out);
    let warnings = warnings::all(material, &aligned, &found, left_out);
    let mut summary = found.summary();
    if summary.is_empty() && material.runs.is_empty() && published.is_none() {
        summary.push("There is nothing to report: every run and every evaluation was left out.".to_owned());
    } else if aligned.benchmarks.is_empty() && published.is_none() {
        summary.push("There are no evaluations, so nothing can be said about accuracy on benchmarks.".to_owned());
    }

    let mut parts = vec![Part::new("summary", "Summary", vec![Block::List(summary.clone())], json!(summary))];
    parts.retain(|_| !summary.is_empty());
    if !warnings.is_empty() {
        parts.push(Part::new("warnings", "Warnings", vec![Block::List(warnings.clone())], json!(warnings)));
    }
    parts.extend(results::parts(material, &aligned, &found));
    parts.extend(published::parts(material, &aligned, &found, published));
    parts.extend(training::part(material));
    parts.extend(found.held_out.as_ref().map(|outcome| held_out::part(material, outcome)));
    parts.extend(lengths::part(material, &aligned));
    parts.extend(behaviors::part(material, &aligned));
    parts.extend(questions::part(material, &aligned));
    parts.extend(completions::part(material, &aligned));
    parts.extend(repeat::part(material));

    let title = if material.name.is_empty() {
        "Report of training runs".to_owned()
    } else {
        format!("Report of {}", material.name)
    };
    let mut notes = material.notes.clone();
    if material.demonstration && notes.is_empty() {
        notes.push("This study demonstrates the tool; its figures say nothing about prompts.".to_owned());
    }
    let mut data = Map::from_iter([
        ("rft".to_owned(), json!(env!("CARGO_PKG_VERSION"))),
        ("name".to_owned(), json!(material.name)),
        ("demonstration".to_owned(), json!(material.demonstration)),
        ("notes".to_owned(), json!(notes)),
    ]);
    let mut sections = Vec::new();
    for Part { section, data: figures } in parts {
        data.insert(section.id.to_owned(), figures);
        sections.push(section);
    }
    Report { document: Document { title, notes, sections }, summary, warnings, data: Value::Object(data) }
}

/// The arms in the order of the runs, each with its runs.
fn arms(material: &Material) -> Vec<(String, Vec<&Run>)> {
    let mut arms: Vec<(String, Vec<&Run>)> = Vec::new();
    for run in &material.runs {
        match arms.iter_mut().find(|(name, _)| *name == run.arm) {
            Some((_, runs)) => runs.push(run),
            None => arms.push((run.arm.clone(), vec![run])),
        }
    }
    arms
}

/// What a table's row is about: the untrained model under a prompt, or an arm under its own, with the rows of its seeds.
struct Group<'a> {
    label: String,
    rows: Vec<&'a Row>,
}

/// The untrained model under every prompt, then the arms under their own.
fn groups<'a>(material: &Material, aligned: &'a Aligned) -> Vec<Group<'a>> {
    let untrained = aligned
        .untrained()
        .into_iter()
        .map(|row| Group { label: format!("untrained, {}", row.prompt), rows: vec![row] });
    let trained = aligned.arms(material).into_iter().map(|arm| {
        let of = |row: &&Row| row.own && matches!(&row.subject, Subject::Trained { arm: name, .. } if *name == arm);
        Group { rows: aligned.rows.iter().filter(of).collect(), label: arm }
    });
    untrained.chain(trained).filter(|group| !group.rows.is_empty()).collect()
}

impl Group<'_> {
    /// Its evaluations on one benchmark.
    fn benches<'m>(&self, material: &'m Material, name: &str) -> Vec<&'m Bench> {
        self.rows.iter().map(|row| &material.evaluations[row.evaluation].benches[name]).collect()
    }
}

/// The heads of benchmarks, and of their average where there are several.
fn columns(aligned: &Aligned) -> Vec<String> {
    let mut columns: Vec<String> = aligned.benchmarks.iter().map(|benchmark| benchmark.name.clone()).collect();
    if columns.len() > 1 {
        columns.push(AVERAGE.to_owned());
    }
    columns
}
