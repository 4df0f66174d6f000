//! The sections of a report, one file each. [`report`] puts them together.

mod behaviors;
mod completions;
mod controls;
mod held_out;
mod internalized;
mod known;
mod lengths;
mod mixtures;
mod part;
mod published;
mod questions;
mod repeat;
mod results;
mod training;
mod tuning;
mod warnings;
mod wordings;

use serde_json::{Map, Value, json};

use super::aligned::align;
use super::document::{Document, DocumentBlock};
use super::load::Material;
use super::paper::Published;
use super::{Report, csv};
use part::{LONG, ReportPart, RowGroup, SEED, arms, charts, closed_if_long, columns, groups};

/// Makes the report. With `published`, it has a section that analyzes those figures. The arms are compared with those named in
/// `baselines`; without any, see [`super::study::pairs`].
pub fn report(material: &Material, published: Option<&Published>, baselines: &[String]) -> Report {
    let mut left_out = material.left_out.clone();
    let aligned = align(material, &mut left_out);
    let found = results::compare(material, &aligned, baselines, &mut left_out);
    let warnings = warnings::all(material, &aligned, &found, left_out);
    let mut summary = known::sentences(material, &aligned, found.held_out.as_ref());
    summary.extend(found.summary());
    if summary.is_empty() && material.runs.is_empty() && published.is_none() {
        summary.push("There is nothing to report: every run and every evaluation was left out.".to_owned());
    } else if aligned.benchmarks.is_empty() && published.is_none() {
        summary.push("There are no evaluations, so this report has no accuracy on benchmarks.".to_owned());
    }

    let mut parts =
        vec![ReportPart::new("summary", "Summary", vec![DocumentBlock::List(summary.clone())], json!(summary))];
    parts.retain(|_| !summary.is_empty());
    if !warnings.is_empty() {
        parts.push(ReportPart::new(
            "warnings",
            "Warnings",
            vec![DocumentBlock::List(warnings.clone())],
            json!(warnings),
        ));
    }
    // What was learned, then how, then where not.
    parts.extend(results::parts(material, &aligned, &found));
    parts.extend(mixtures::part(material, &aligned));
    parts.extend(controls::part(material, &aligned, found.untrained.as_ref()));
    parts.extend(internalized::part(material, &aligned));
    parts.extend(found.held_out.as_ref().map(|outcome| held_out::part(material, outcome)));
    parts.extend(tuning::part(material));
    parts.extend(training::part(material));
    parts.extend(behaviors::part(material, &aligned));
    parts.extend(lengths::part(material, &aligned));
    parts.extend(questions::part(material, &aligned));
    parts.extend(completions::part(material, &aligned));
    parts.extend(published::parts(material, &aligned, &found, published));
    parts.extend(repeat::part(material));

    let title = if material.name.is_empty() {
        "Report of training runs".to_owned()
    } else {
        format!("Report of {}", material.name)
    };
    let mut notes = material.notes.clone();
    if material.demonstration && notes.is_empty() {
        notes.push("This study demonstrates the tool. Its figures are not evidence about prompts.".to_owned());
    }
    let mut data = Map::from_iter([
        ("rft".to_owned(), json!(env!("CARGO_PKG_VERSION"))),
        ("name".to_owned(), json!(material.name)),
        ("input".to_owned(), json!(input(material))),
        ("demonstration".to_owned(), json!(material.demonstration)),
        ("notes".to_owned(), json!(notes)),
    ]);
    let mut sections = Vec::new();
    for ReportPart { section, data: figures } in parts {
        data.insert(section.id.to_owned(), figures);
        sections.push(section);
    }
    let document = Document { title, notes, sections };
    Report { document, summary, warnings, data: Value::Object(data), observations: csv::observations(material) }
}

/// What the report is about, to recognize a report of the same input: the sweep, or the runs, or evaluations without runs.
fn input(material: &Material) -> Vec<&str> {
    if !material.name.is_empty() {
        return vec![&material.name];
    }
    let mut names: Vec<&str> = material.runs.iter().map(|run| run.name.as_str()).collect();
    if names.is_empty() {
        names = material.evaluations.iter().map(|it| it.name.as_str()).collect();
    }
    names.sort_unstable();
    names
}
